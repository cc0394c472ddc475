//! Services of the DNS at which dials look for peers.

use std::{fmt, str::FromStr};

use p2pnode_protocol::quote;

/// The most bytes that a name has ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035), section 2.3.4), without a dot at the end.
const NAME: usize = 253;

/// The most bytes of one of its labels.
const LABEL: usize = 63;

/// A name, each of whose A and AAAA records may be the host of the peer that is dialed, and the port to dial there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The name, for the system's resolver.
    pub name: String,
    /// The port of QUIC and TCP, never 0.
    pub port: u16,
}

impl Service {
    /// Whether both are the same service: neither case nor a dot at the end makes a difference.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let name = |service: &Self| {
            let name = service.name.trim_end_matches('.');
            name.to_ascii_lowercase()
        };
        self.port == other.port && name(self) == name(other)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: &str| {
            format!(
                "{} {what}; write a name and a port, as in p2pnode.default.svc.cluster.local:443",
                quote(text)
            )
        };
        if text.starts_with('/') {
            return Err(fault("is a multiaddr"));
        }
        if text.starts_with('[') || text.parse::<std::net::IpAddr>().is_ok() {
            return Err(fault("is an address; put it under peers.NAME.addrs"));
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(|| fault("has no port"))?;
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Err(fault("is an address; put it under peers.NAME.addrs"));
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse::<u16>() {
            Ok(0) => return Err(fault("has port 0, which cannot be dialed")),
            Ok(port) if digits => port,
            Ok(_) | Err(_) => return Err(fault("has no port from 1 to 65535")),
        };
        let labels = name.strip_suffix('.').unwrap_or(name);
        if labels.len() > NAME || !labels.split('.').all(is_label) {
            return Err(fault("has an invalid DNS name"));
        }
        Ok(Self {
            name: name.to_owned(),
            port,
        })
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}
