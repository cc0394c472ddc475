//! Where services are, and where forwards listen: `tcp://HOST:PORT`, `udp://HOST:PORT`, `unix:///PATH`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use p2pnode_daemon::config::kind::MAX_SOCKET_PATH;
use p2pnode_protocol::quote;

/// The host of a target, dialed as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name, looked up at each dial.
    Name(String),
}

/// An address with a transport. `H` is the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address<H> {
    /// TCP.
    Tcp(H, u16),
    /// UDP.
    Udp(H, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Where a service is.
pub type Target = Address<Host>;

/// Where a forward listens.
pub type Listen = Address<IpAddr>;

impl<H> Address<H> {
    /// The name of the transport: `tcp`, `udp` or `unix`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(..) => "tcp",
            Self::Udp(..) => "udp",
            Self::Unix(_) => "unix",
        }
    }

    /// Whether datagrams go there.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        matches!(self, Self::Udp(..))
    }
}

impl Listen {
    /// The address and port, unless it is a Unix socket.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(ip, port) | Self::Udp(ip, port) => Some(SocketAddr::new(*ip, *port)),
            Self::Unix(_) => None,
        }
    }

    /// Whether only one of both can listen. A wildcard address has all of its family, and that of IPv6 has IPv4 too.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let covers =
            |a: &IpAddr, b: &IpAddr| a == b || (a.is_unspecified() && (a.is_ipv6() || b.is_ipv4()));
        match (self, other) {
            (Self::Tcp(a, port), Self::Tcp(b, at)) | (Self::Udp(a, port), Self::Udp(b, at)) => {
                port == at && *port != 0 && (covers(a, b) || covers(b, a))
            }
            (Self::Unix(a), Self::Unix(b)) => plain(a) == plain(b),
            _ => false,
        }
    }
}

/// A path without what leads nowhere.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part == std::path::Component::ParentDir {
            true => drop(plain.pop()),
            false => plain.push(part),
        }
    }
    plain
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => authority(f, ip),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn authority(f: &mut fmt::Formatter<'_>, ip: &IpAddr) -> fmt::Result {
    match ip {
        IpAddr::V4(ip) => write!(f, "{ip}"),
        IpAddr::V6(ip) => write!(f, "[{ip}]"),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) | Self::Udp(host, port) => {
                write!(f, "{}://{host}:{port}", self.kind())
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(ip, port) | Self::Udp(ip, port) => {
                write!(f, "{}://", self.kind())?;
                authority(f, ip)?;
                write!(f, ":{port}")
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, EXAMPLES, |host, port| {
            if port == 0 {
                return Err("has port 0; write the port of the service");
            }
            if let Some(ip) = ip(host) {
                return Ok(Host::Ip(ip));
            }
            // A name of digits and dots is a mistyped address, and no resolver should see it.
            let digits = host
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if host.is_empty() || host.len() > 253 || digits || !host.bytes().all(plain) {
                return Err("has no host; write an IP address (IPv6 in brackets) or a name");
            }
            Ok(Host::Name(host.to_ascii_lowercase()))
        })
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, EXAMPLES, |host, _| {
            ip(host)
                .ok_or("has no IP address; write the one to listen on, such as 127.0.0.1 or [::1]")
        })
    }
}

const EXAMPLES: &str = "tcp://127.0.0.1:5432, udp://127.0.0.1:53 or unix:///run/app.sock";

fn parse<H>(
    text: &str,
    examples: &str,
    host: impl Fn(&str, u16) -> Result<H, &'static str>,
) -> Result<Address<H>, String> {
    let wrong = |why: &str| Err(format!("{} {why}", quote(text)));
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong(&format!("names no transport; write {examples}"));
    };
    if scheme == "unix" {
        return match Path::new(rest) {
            path if !path.is_absolute() || rest.contains('\0') || rest.ends_with('/') => {
                wrong("names no absolute path; write unix:///run/app.sock")
            }
            _ if rest.len() > MAX_SOCKET_PATH => wrong(&format!(
                "is longer than {MAX_SOCKET_PATH} bytes, the most of a Unix socket; choose a shorter path"
            )),
            path => Ok(Address::Unix(path.to_owned())),
        };
    }
    if !["tcp", "udp"].contains(&scheme) {
        return wrong(&format!(
            "has the unknown transport {}; write {examples}",
            quote(scheme)
        ));
    }
    // As `u16` parses it, "+80" would be a port.
    let port = rest
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let Some((name, Ok(port))) = port.map(|(name, port)| (name, port.parse::<u16>())) else {
        return wrong(&format!(
            "has no port from 0 to 65535 at its end; write {examples}"
        ));
    };
    let host = match host(name, port) {
        Ok(host) => host,
        Err(why) => return wrong(why),
    };
    Ok(match scheme {
        "tcp" => Address::Tcp(host, port),
        _ => Address::Udp(host, port),
    })
}

fn ip(host: &str) -> Option<IpAddr> {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(ip) => ip.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}
