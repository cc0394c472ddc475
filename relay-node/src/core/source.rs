//! Where a connection comes from, as limits see it.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv4Addr},
};

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::config::PerSource;

/// What one party can be expected to have: an IPv4 address, or a /64 of IPv6, out of which it may take as many addresses as it
/// likes ([RFC 7421](https://www.rfc-editor.org/rfc/rfc7421)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address.
    Ip4(Ipv4Addr),
    /// The first 64 bits of an address.
    Net6([u16; 4]),
}

impl Source {
    /// The source of a connection from `remote`; `None` if that is no IP address.
    pub(crate) fn of(remote: &Multiaddr) -> Option<Self> {
        let first = remote.iter().next()?;
        let ip = if let Protocol::Ip4(ip) = first {
            IpAddr::V4(ip)
        } else if let Protocol::Ip6(ip) = first {
            // An IPv4 peer at a socket for both families.
            ip.to_canonical()
        } else {
            return None;
        };
        Some(match ip {
            IpAddr::V4(ip) => Self::Ip4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::Net6([a, b, c, d])
            }
        })
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

/// Whether `source`, which has `held`, may have one more within `limits`.
pub(crate) fn admits(limits: PerSource, source: Source, held: usize) -> bool {
    let limit = match source {
        Source::Ip4(_) => limits.ip4,
        Source::Net6(_) => limits.ip6_net,
    };
    limit == 0 || held < limit
}

/// Takes one away, and the entry with the last.
pub(crate) fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Option<Source> {
        Source::of(&address.parse().expect("a multiaddr"))
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
    fn each_family_has_its_limit_and_zero_is_none() {
        let limits = PerSource { ip4: 2, ip6_net: 0 };
        let (ip4, net6) = (
            Source::Ip4(Ipv4Addr::LOCALHOST),
            Source::Net6([0x2001, 0xdb8, 0, 7]),
        );
        assert!(admits(limits, ip4, 1));
        assert!(!admits(limits, ip4, 2));
        assert!(admits(limits, net6, usize::MAX));
    }
}
