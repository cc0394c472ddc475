//! What a path is: its hops, and how it came to be.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::hop;
use p2pnode_transports::{Family, Sockets, Transport, to_multiaddr};
use serde::{Deserialize, Serialize};

use crate::core::json;

/// How this node reaches a peer over one connection, hop by hop.
///
/// What is not known is `None` and is printed as `unknown`; nothing is guessed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Direct, or through a relay.
    pub kind: PathKind,
    /// The relay, if there is one.
    #[serde(with = "json::text_or_null")]
    pub relay: Option<PeerId>,
    /// How the connection was made.
    pub how: How,
    /// One hop if direct; two if relayed: this node to the relay, the relay to the peer.
    pub hops: Vec<Hop>,
}

impl Path {
    /// Whether a relay changes the IP family: its two hops are known to be of different ones.
    pub fn bridges_families(&self) -> bool {
        let mut families = self.hops.iter().filter_map(|hop| hop.family);
        families
            .next()
            .is_some_and(|near| families.any(|far| far != near))
    }
}

/// Whether a path runs through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// From socket to socket.
    Direct,
    /// Over a circuit of a relay.
    Relayed,
}

/// How a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// This node dialed it.
    Dialed,
    /// The other side dialed it.
    Accepted,
    /// It came out of a hole punch.
    Punched,
}

/// One leg of a path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Transport of the leg.
    #[serde(with = "json::or_unknown")]
    pub transport: Option<Transport>,
    /// IP family of the leg.
    #[serde(with = "json::or_unknown")]
    pub family: Option<Family>,
    /// The socket at the near end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// The socket at the far end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// Round trip time of the leg alone, in milliseconds.
    #[serde(
        rename = "rtt_ms",
        default,
        with = "json::fine_millis_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub rtt: Option<Duration>,
    /// Who reported the leg, where this node cannot see it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_by: Option<ReportedBy>,
}

/// Who reported a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedBy {
    /// The relay, of its leg to the peer.
    Relay,
}

impl Hop {
    /// A leg that this node sees itself.
    pub fn seen(sockets: Sockets) -> Self {
        Self {
            transport: Some(sockets.transport),
            family: Some(Family::from(sockets.remote.ip())),
            local: Some(sockets.local),
            remote: Some(sockets.remote),
            rtt: None,
            reported_by: None,
        }
    }

    /// The far hop of a path, as its relay reports it.
    pub(crate) fn reported(leg: &hop::Leg) -> Self {
        Self {
            transport: Some(leg.transport),
            family: Some(leg.family),
            local: None,
            remote: None,
            rtt: leg.rtt,
            reported_by: Some(ReportedBy::Relay),
        }
    }

    /// Whether the far end is this host.
    pub fn is_loopback(&self) -> bool {
        self.remote.is_some_and(|r| match r.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        })
    }
}

impl Path {
    /// The other end of a direct path.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        let hop = self.hops.first().filter(|_| self.kind == PathKind::Direct);
        hop.and_then(|hop| hop.remote)
    }

    /// The same with its transport.
    pub(crate) fn remote_addr(&self) -> Option<Multiaddr> {
        let transport = self.hops.first()?.transport?;
        self.remote().map(|remote| to_multiaddr(transport, remote))
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.transport, self.family) {
            (Some(transport), Some(family)) => write!(f, "{transport}/{family}")?,
            (None, None) => return f.write_str("unknown"),
            (transport, family) => write!(f, "{}/{}", OrUnknown(transport), OrUnknown(family))?,
        }
        if let (Some(local), Some(remote)) = (self.local, self.remote) {
            write!(f, " {local} > {remote}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hops = self.hops.iter();
        if let Some(first) = hops.next() {
            write!(f, "{first}")?;
        }
        for hop in hops {
            write!(f, " | {hop}")?;
        }
        Ok(())
    }
}

struct OrUnknown<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrUnknown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn sockets() -> Sockets {
        Sockets {
            transport: Transport::Quic,
            local: "10.0.1.2:40017".parse().unwrap(),
            remote: "203.0.113.10:443".parse().unwrap(),
        }
    }

    #[test]
    fn a_relayed_path_with_a_foreign_relay_says_that_the_far_hop_is_unknown() {
        let mut near = Hop::seen(sockets());
        near.rtt = Some(Duration::from_micros(20_149));
        let path = Path {
            kind: PathKind::Relayed,
            relay: None,
            how: How::Dialed,
            hops: vec![near, Hop::default()],
        };
        assert_eq!(
            path.to_string(),
            "quic/ip4 10.0.1.2:40017 > 203.0.113.10:443 | unknown"
        );
        assert_eq!(
            serde_json::to_string(&path).unwrap(),
            r#"{"kind":"relayed","relay":null,"how":"dialed","hops":[{"transport":"quic","family":"ip4","local":"10.0.1.2:40017","remote":"203.0.113.10:443","rtt_ms":20.1},{"transport":"unknown","family":"unknown"}]}"#
        );
    }
}
