//! The two IP families.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "multiaddr has forty protocols, of which a few name a family"
)]

use std::{fmt, net::IpAddr};

use libp2p::multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

/// An IP family. Prints and serializes as `ip4` or `ip6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ip4, Self::Ip6];

    /// The family of the first part of an address. For a circuit this is the family of its relay. `None` if the first part
    /// leaves it open (`/dns`, `/p2p`).
    pub fn of(addr: &Multiaddr) -> Option<Self> {
        match addr.iter().next()? {
            Protocol::Ip4(_) | Protocol::Dns4(_) => Some(Self::Ip4),
            Protocol::Ip6(_) | Protocol::Ip6zone(_) | Protocol::Dns6(_) => Some(Self::Ip6),
            _ => None,
        }
    }
}

impl From<IpAddr> for Family {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ip4,
            IpAddr::V6(_) => Self::Ip6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ip4 => "ip4",
            Self::Ip6 => "ip6",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn the_family_of_an_address_is_that_of_its_first_part() {
        for (addr, family) in [
            ("/ip4/192.0.2.1/tcp/1", Some(Family::Ip4)),
            ("/ip6/2001:db8::1/udp/1/quic-v1", Some(Family::Ip6)),
            ("/dns4/relay.example.net/tcp/1", Some(Family::Ip4)),
            ("/dns6/relay.example.net/tcp/1", Some(Family::Ip6)),
            ("/dns/relay.example.net/tcp/1", None),
            ("/p2p-circuit", None),
        ] {
            assert_eq!(Family::of(&addr.parse().unwrap()), family, "{addr}");
        }
        assert_eq!(Family::of(&Multiaddr::empty()), None);
    }
}
