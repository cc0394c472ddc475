//! The two transports that carry a connection.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "multiaddr has forty protocols, of which two name a transport"
)]

use std::fmt;

use libp2p::multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

/// A transport that both programs support. Prints, serializes and is configured as `quic` or `tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC version 1 over UDP ([RFC 9000](https://www.rfc-editor.org/rfc/rfc9000)).
    Quic,
    /// TCP with TLS 1.3 or Noise, and yamux on top.
    Tcp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    /// The transport that an address names. For a circuit this is the transport to its relay. `None` if the address names
    /// neither of the two (`/p2p/X` alone, for instance): such an address does not say how its packets travel.
    pub fn of(addr: &Multiaddr) -> Option<Self> {
        addr.iter().find_map(|part| match part {
            Protocol::QuicV1 => Some(Self::Quic),
            Protocol::Tcp(_) => Some(Self::Tcp),
            _ => None,
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn an_address_without_transport_has_none() {
        for (addr, transport) in [
            (
                "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                None,
            ),
            ("/ip4/192.0.2.1/udp/1", None),
            ("/ip4/192.0.2.1/udp/1/quic-v1", Some(Transport::Quic)),
            ("/ip4/192.0.2.1/tcp/1/p2p-circuit", Some(Transport::Tcp)),
        ] {
            assert_eq!(Transport::of(&addr.parse().unwrap()), transport, "{addr}");
        }
    }
}
