//! Addresses to advertise for punching, and filters of candidates.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use libp2p::{Multiaddr, multiaddr::Protocol};
use p2pnode_protocol::addr::{self, Host};
use p2pnode_protocol::{Scope, quote};
use p2pnode_transports::{Family, Transport};

/// An address to advertise for punching whose port may be that of the punch socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdvertiseTemplate {
    ip: IpAddr,
    transport: Transport,
    /// `None`: `{port}`, the punch port.
    port: Option<u16>,
}

impl AdvertiseTemplate {
    /// The address, where the punch port is `port`.
    #[must_use]
    pub(crate) fn with_port(&self, port: u16) -> Multiaddr {
        let port = self.port.unwrap_or(port);
        let addr = Multiaddr::from(self.ip);
        match self.transport {
            Transport::Quic => addr.with(Protocol::Udp(port)).with(Protocol::QuicV1),
            Transport::Tcp => addr.with(Protocol::Tcp(port)),
        }
    }

    /// Its transport.
    #[must_use]
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// Its IP family.
    #[must_use]
    pub(crate) fn family(&self) -> Family {
        self.ip.into()
    }
}

impl FromStr for AdvertiseTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str =
            "write /ip4/198.51.100.7/udp/{port}/quic-v1 or /ip4/198.51.100.7/tcp/{port}";
        const MARK: &str = "{port}";

        // Any port stands in for the mark while the address is parsed.
        let marked = match text.matches(MARK).count() {
            0 => false,
            1 => true,
            _ => {
                return Err(format!(
                    "{} has {MARK} more than once; {EXAMPLE}",
                    quote(text)
                ));
            }
        };
        let endpoint =
            addr::dialable(&text.replace(MARK, "1")).map_err(|error| match text.contains('{') {
                // The error quotes the text with the mark replaced, so it would confuse.
                true => format!("{} is not an address to advertise; {EXAMPLE}", quote(text)),
                false => error.to_string(),
            })?;
        let Host::Ip(ip) = endpoint.host else {
            return Err(format!(
                "{} names a host, and a punch needs an IP address; {EXAMPLE}",
                quote(text)
            ));
        };
        if endpoint.peer.is_some() {
            return Err(format!(
                "{} names a peer, and the peer is always this node; drop /p2p/<id>",
                quote(text)
            ));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let at_port = |pair: &[&str]| matches!(pair, ["udp" | "tcp", MARK]);
        if marked && !parts.windows(2).any(at_port) {
            return Err(format!(
                "{} has {MARK} where no port belongs; {EXAMPLE}",
                quote(text)
            ));
        }
        Ok(Self {
            ip,
            transport: endpoint.transport,
            port: (!marked).then_some(endpoint.port),
        })
    }
}

impl fmt::Display for AdvertiseTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.ip {
            IpAddr::V4(_) => "ip4",
            IpAddr::V6(_) => "ip6",
        };
        let port = match self.port {
            Some(port) => port.to_string(),
            None => "{port}".to_owned(),
        };
        match self.transport {
            Transport::Quic => write!(f, "/{version}/{}/udp/{port}/quic-v1", self.ip),
            Transport::Tcp => write!(f, "/{version}/{}/tcp/{port}", self.ip),
        }
    }
}

/// A filter of candidates: a network, and perhaps a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PunchFilter {
    net: IpNet,
    transport: Option<Transport>,
}

impl PunchFilter {
    /// Whether `addr` is in the network and of the transport, if one is given. An address without an IP address is in no
    /// network; an IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
    #[must_use]
    pub(crate) fn matches(&self, addr: &Multiaddr) -> bool {
        let ip = match addr.iter().next() {
            Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
            Some(Protocol::Ip6(ip)) => IpAddr::V6(ip).to_canonical(),
            _ => return false,
        };
        let of_transport = match self.transport {
            Some(transport) => Transport::of(addr) == Some(transport),
            None => true,
        };
        of_transport && self.net.contains(&ip)
    }

    /// The transport that it is for, if it is for one.
    pub(super) const fn transport(&self) -> Option<Transport> {
        self.transport
    }

    /// Whether it matches all that `other` matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let of_transport = self.transport.is_none() || self.transport == other.transport;
        of_transport && self.net.contains(&other.net)
    }

    /// Whether all of its network is private, or within this host.
    pub(crate) fn is_private(&self) -> bool {
        let is_inner = |ip| matches!(Scope::of(ip), Scope::Private | Scope::Host);
        is_inner(self.net.network()) && is_inner(self.net.broadcast())
    }
}

impl FromStr for PunchFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "write 10.0.0.0/8, fd00::/8 quic or 192.0.2.1 tcp";

        let mut words = text.split_whitespace();
        let (Some(network), transport, None) = (words.next(), words.next(), words.next()) else {
            return Err(format!(
                "{} is not a network and transport; {EXAMPLE}",
                quote(text)
            ));
        };
        let transport = match transport {
            None => None,
            Some("quic") => Some(Transport::Quic),
            Some("tcp") => Some(Transport::Tcp),
            Some(other) => {
                return Err(format!(
                    "{} is neither quic nor tcp, in {}; {EXAMPLE}",
                    quote(other),
                    quote(text)
                ));
            }
        };
        let net = match (network.parse::<IpNet>(), network.parse::<IpAddr>()) {
            (Ok(net), _) => net,
            (_, Ok(ip)) => ip.into(),
            _ => return Err(format!("{} is not a network; {EXAMPLE}", quote(network))),
        };
        if net != net.trunc() {
            return Err(format!(
                "{network} has bits set behind its prefix; write {} or {}",
                net.trunc(),
                net.addr()
            ));
        }
        Ok(Self { net, transport })
    }
}

impl fmt::Display for PunchFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Some(transport) => write!(f, "{} {transport}", self.net),
            None => write!(f, "{}", self.net),
        }
    }
}
