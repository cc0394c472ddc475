//! Where a connection comes from, as limits see it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// What one party can be expected to have: an IPv4 address, or a /64 of IPv6. Out of a /64 it takes any number of addresses ([RFC
/// 7421](https://www.rfc-editor.org/rfc/rfc7421)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address.
    Ip4(Ipv4Addr),
    /// The first 64 bits of an address.
    Net6([u16; 4]),
}

/// A network that a [`Source`] is part of, and the source itself. Many providers give a site a /56 and some a /48
/// ([RFC 6177](https://www.rfc-editor.org/rfc/rfc6177)), so one party may have many /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// An IPv4 address.
    Ip4(Ipv4Addr),
    /// An IPv6 /64.
    Net64(u64),
    /// An IPv6 /56.
    Net56(u64),
    /// An IPv6 /48.
    Net48(u64),
}

impl Source {
    /// The source of a connection from `remote`; `None` if that is no IP address.
    #[must_use]
    pub fn of(remote: &Multiaddr) -> Option<Self> {
        let first = remote.iter().next()?;
        if let Protocol::Ip4(ip) = first {
            Some(IpAddr::V4(ip).into())
        } else if let Protocol::Ip6(ip) = first {
            Some(IpAddr::V6(ip).into())
        } else {
            None
        }
    }

    /// The smallest network: itself.
    #[must_use]
    pub fn network(self) -> Network {
        match self {
            Self::Ip4(ip) => Network::Ip4(ip),
            Self::Net6(_) => Network::Net64(self.bits()),
        }
    }

    /// The networks whose budgets this source uses, the smallest first: itself, and for IPv6 its /56 and /48.
    pub fn networks(self) -> impl Iterator<Item = Network> {
        let bits = self.bits();
        let larger = matches!(self, Self::Net6(_)).then_some([
            Network::Net56(bits >> 8 << 8),
            Network::Net48(bits >> 16 << 16),
        ]);
        std::iter::once(self.network()).chain(larger.into_iter().flatten())
    }

    /// The first 64 bits of an IPv6 address.
    fn bits(self) -> u64 {
        match self {
            Self::Ip4(_) => 0,
            Self::Net6(parts) => {
                let add = |bits, part| bits << 16 | u64::from(part);
                parts.into_iter().fold(0, add)
            }
        }
    }
}

impl Network {
    /// How many times the budget of one source the network has.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::Ip4(_) | Self::Net64(_) => 1,
            Self::Net56(_) => 2,
            Self::Net48(_) => 4,
        }
    }
}

impl From<IpAddr> for Source {
    /// An IPv4 peer at a socket for both families is the IPv4 peer that it is.
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::Ip4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::Net6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip4(ip) => write!(f, "{ip}"),
            Self::Net6([a, b, c, d]) => write!(f, "{a:x}:{b:x}:{c:x}:{d:x}::/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Option<Source> {
        Source::of(&address.parse().expect("a multiaddr"))
    }

    fn networks(address: &str) -> Vec<Network> {
        of(address).expect("an IP address").networks().collect()
    }

    #[test]
    fn addresses_of_one_ipv6_64_are_one_source_whatever_their_ports_are() {
        let one = of("/ip6/2001:db8:0:7::1/udp/4/quic-v1");
        assert_eq!(one, Some(Source::Net6([0x2001, 0xdb8, 0, 7])));
        assert_eq!(one, of("/ip6/2001:db8:0:7:ffff::9/tcp/5"));
        assert_ne!(one, of("/ip6/2001:db8:0:8::1/udp/4/quic-v1"));
    }

    #[test]
    fn each_ipv4_address_is_a_source_also_where_ipv6_writes_it() {
        let one = of("/ip4/198.51.100.7/tcp/4");
        assert_eq!(one, Some(Source::Ip4([198, 51, 100, 7].into())));
        assert_eq!(one, of("/ip6/::ffff:198.51.100.7/udp/5/quic-v1"));
        assert_ne!(one, of("/ip4/198.51.100.8/tcp/4"));
        assert_eq!(of("/memory/4"), None);
    }

    #[test]
    fn an_ipv6_source_is_part_of_a_56_and_a_48() {
        let one = networks("/ip6/2001:db8:1:a0b::1/tcp/4");
        let same_56 = networks("/ip6/2001:db8:1:a00::1/tcp/4");
        let same_48 = networks("/ip6/2001:db8:1:b00::1/tcp/4");
        let other = networks("/ip6/2001:db8:2:a0b::1/tcp/4");
        assert_eq!(one.len(), 3);
        assert!(one[0] != same_56[0] && one[1..] == same_56[1..]);
        assert!(one[1] != same_48[1] && one[2] == same_48[2]);
        assert!(one.iter().all(|network| !other.contains(network)));
        let weights: Vec<_> = one.iter().map(|network| network.weight()).collect();
        assert_eq!(weights, [1, 2, 4]);
        assert_eq!(networks("/ip4/198.51.100.7/tcp/4").len(), 1);
    }
}
