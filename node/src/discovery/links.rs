//! The links of this host: hosts on them are reached without a router.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A link of this host, as each family names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Link {
    /// By an address that this host has there.
    Ip4(Ipv4Addr),
    /// By the index of its interface.
    Ip6(u32),
}

/// Linux lists here which IPv6 address is on which interface.
const INTERFACES: &str = "/proc/net/if_inet6";

/// The addresses of this host, each with its network, without loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Links {
    ip4: BTreeSet<Ipv4Net>,
    /// With the index of the interface.
    ip6: BTreeSet<(Ipv6Net, u32)>,
}

impl Links {
    /// Those of these networks. The interfaces of IPv6 are read from the system; without them it is left out.
    pub(crate) fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let ip4 = networks.into_iter().filter_map(|network| match network {
            IpNet::V4(network) if !network.addr().is_loopback() => Some(network),
            IpNet::V4(_) | IpNet::V6(_) => None,
        });
        Self {
            ip4: ip4.collect(),
            ip6: parse(&std::fs::read_to_string(INTERFACES).unwrap_or_default()),
        }
    }

    /// The links themselves, IPv4 first.
    pub(crate) fn all(&self) -> BTreeSet<Link> {
        let ip4 = self.ip4.iter().map(|network| Link::Ip4(network.addr()));
        let ip6 = self.ip6.iter().map(|(_, index)| Link::Ip6(*index));
        ip4.chain(ip6).collect()
    }

    /// Whether a host with this address is on one of them. `scope` is the interface that an IPv6 datagram came in on, or 0.
    pub(crate) fn is_on(&self, host: IpAddr, scope: u32) -> bool {
        self.around(host, scope).next().is_some()
    }

    /// This host's addresses on the link of `host`, apart from those that mean something on one link only.
    pub(crate) fn own(&self, host: IpAddr, scope: u32) -> BTreeSet<IpAddr> {
        let on_link: BTreeSet<_> = self.around(host, scope).collect();
        on_link
            .into_iter()
            .flat_map(|link| {
                let ip4 = self
                    .ip4
                    .iter()
                    .filter(move |network| link == Link::Ip4(network.addr()));
                let ip6 = self
                    .ip6
                    .iter()
                    .filter(move |(_, index)| link == Link::Ip6(*index));
                let ip4 = ip4.map(|network| IpAddr::from(network.addr()));
                ip4.chain(ip6.map(|(network, _)| IpAddr::from(network.addr())))
            })
            .filter(|ip| !needs_scope(*ip))
            .collect()
    }

    fn around(&self, host: IpAddr, scope: u32) -> impl Iterator<Item = Link> + '_ {
        let ip4 = self.ip4.iter().filter(move |network| match host {
            IpAddr::V4(host) => network.contains(&host),
            IpAddr::V6(_) => false,
        });
        let ip6 = self.ip6.iter().filter(move |(network, index)| match host {
            IpAddr::V6(host) => network.contains(&host) && (scope == 0 || scope == *index),
            IpAddr::V4(_) => false,
        });
        let ip4 = ip4.map(|network| Link::Ip4(network.addr()));
        ip4.chain(ip6.map(|(_, index)| Link::Ip6(*index)))
    }
}

/// Whether an address is valid only together with an interface, which a multiaddr does not name.
fn needs_scope(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(&ip),
    }
}

/// Lines such as `fd000000000000000000000000000007 02 40 00 80 eth0`: address, index, length of the prefix in hexadecimal, then
/// scope, flags and name.
fn parse(interfaces: &str) -> BTreeSet<(Ipv6Net, u32)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = Ipv6Addr::from(u128::from_str_radix(words.next()?, 16).ok()?);
        let index = u32::from_str_radix(words.next()?, 16).ok()?;
        let length = u8::from_str_radix(words.next()?, 16).ok()?;
        let network = Ipv6Net::new(address, length).ok()?;
        (!address.is_loopback()).then_some((network, index))
    };
    interfaces.lines().filter_map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const TWO_INTERFACES: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000a8bbccfffe000102 02 40 20 80     eth0
fd000000000000000000000000000007 02 40 00 80     eth0
fe80000000000000a8bbccfffe000103 0a 40 20 80     eth1
20010db8000000000000000000000007 0a 40 00 80     eth1
this is no interface
";

    fn links() -> Links {
        let ip4 = ["192.168.1.7/24", "10.0.0.7/8"].map(|network| network.parse().unwrap());
        Links {
            ip4: ip4.into(),
            ip6: parse(TWO_INTERFACES),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_no_router_is_needed_for_is_on_link() {
        let links = links();
        let expected = [
            Link::Ip4(Ipv4Addr::new(10, 0, 0, 7)),
            Link::Ip4(Ipv4Addr::new(192, 168, 1, 7)),
            Link::Ip6(2),
            Link::Ip6(10),
        ];
        assert_eq!(links.all(), expected.into());
        for on in [
            "192.168.1.9",
            "10.9.9.9",
            "fd00::9",
            "2001:db8::9",
            "fe80::9",
        ] {
            assert!(links.is_on(ip(on), 0), "{on}");
        }
        for off in ["192.168.2.9", "8.8.8.8", "fd00:1::9", "::1", "127.0.0.1"] {
            assert!(!links.is_on(ip(off), 0), "{off}");
        }
        assert!(links.is_on(ip("fd00::9"), 2) && !links.is_on(ip("fd00::9"), 10));
    }

    #[test]
    fn a_neighbour_gets_the_addresses_on_its_link_only() {
        let own = |host, scope| links().own(ip(host), scope);
        assert_eq!(own("192.168.1.9", 0), [ip("192.168.1.7")].into());
        assert_eq!(own("fe80::9", 2), [ip("fd00::7")].into());
        assert_eq!(own("fe80::9", 10), [ip("2001:db8::7")].into());
        assert_eq!(own("8.8.8.8", 0), BTreeSet::new());
    }
}
