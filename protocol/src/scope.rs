//! How far an IP address reaches, as the registries of special addresses
//! ([IPv4](https://www.iana.org/assignments/iana-ipv4-special-registry/),
//! [IPv6](https://www.iana.org/assignments/iana-ipv6-special-registry/)) have it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere. The ranges of documentation and of benchmarks
    /// ([RFC 2544](https://www.rfc-editor.org/rfc/rfc2544)) count as such: labs stand for the internet with them.
    Global,
    /// Within a private network ([RFC 1918](https://www.rfc-editor.org/rfc/rfc1918),
    /// [RFC 4193](https://www.rfc-editor.org/rfc/rfc4193)), or behind a carrier's NAT
    /// ([RFC 6598](https://www.rfc-editor.org/rfc/rfc6598)).
    Private,
    /// Within one host.
    Host,
    /// To no peer. An address of one link, a group or all hosts; unspecified and reserved ones; a metadata service of a cloud. An
    /// address that a gateway maps to an IPv4 address, because that may have any scope.
    Never,
}

impl Scope {
    /// The scope of an IP address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    /// Whether an address means the same host everywhere.
    #[must_use]
    pub fn is_global(ip: IpAddr) -> bool {
        Self::of(ip) == Self::Global
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [127, ..] => Self::Host,
            // Metadata services: Alibaba's within RFC 6598's range, Azure's among global addresses.
            [100, 100, 100, 200] | [168, 63, 129, 16] => Self::Never,
            // The link, where most metadata services are; protocol assignments, among them Oracle's metadata service; 6to4.
            [169, 254, ..] | [192, 0, 0, _] | [192, 88, 99, _] => Self::Never,
            [0 | 224.., ..] => Self::Never,
            [100, second, ..] if second & 0xc0 == 64 => Self::Private,
            _ if ip.is_private() => Self::Private,
            _ => Self::Global,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Host,
            // Metadata services of AWS, Google and Oracle.
            [0xfd00, 0xec2 | 0xc1, ..] | [0xfd20, 0xce, ..] => Self::Never,
            // Teredo, 6to4, and ISATAP, which carry an IPv4 address.
            [0x2001, 0, ..] | [0x2002, ..] | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Self::Never,
            [0xfc00..=0xfdff, ..] => Self::Private,
            // All of ::/8 maps to IPv4 (NAT64, mapped, compatible, translated) or is reserved.
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Never,
        }
    }
}

/// Where a remote's word may make this host dial: global addresses, and those of the scopes that are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Private addresses.
    pub private: bool,
    /// This host.
    pub host: bool,
}

impl Reach {
    /// Whether an address is within reach.
    #[must_use]
    pub fn admits(self, ip: IpAddr) -> bool {
        match Scope::of(ip) {
            Scope::Global => true,
            Scope::Private => self.private,
            Scope::Host => self.host,
            Scope::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_has_global_addresses_and_its_scopes_and_never_a_metadata_service() {
        let (near, private) = (
            Reach::default(),
            Reach {
                private: true,
                host: false,
            },
        );
        let host = Reach {
            private: false,
            host: true,
        };
        for (text, admitted) in [
            ("203.0.113.7", [true, true, true]),
            ("10.1.2.3", [false, true, false]),
            ("fd00::1", [false, true, false]),
            ("127.0.0.1", [false, false, true]),
            ("::1", [false, false, true]),
            ("169.254.169.254", [false, false, false]),
            ("::ffff:10.1.2.3", [false, false, false]),
        ] {
            let ip = text.parse().expect("an address");
            assert_eq!(
                [near, private, host].map(|reach| reach.admits(ip)),
                admitted,
                "{text}"
            );
        }
    }

    #[test]
    fn scopes_are_those_of_the_registries() {
        for (scope, ips) in [
            (Scope::Host, "127.0.0.1 127.255.255.254 ::1"),
            (
                Scope::Private,
                "10.1.2.3 172.16.0.1 172.31.255.254 192.168.0.1 100.64.0.1 100.127.255.254 fd00::1 fc00::1 \
                 fd00:ec3::254",
            ),
            (
                Scope::Global,
                "100.128.0.1 172.32.0.1 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.7 168.63.129.17 \
                 2001:db8::1 2606:4700::1111",
            ),
            (
                Scope::Never,
                "0.0.0.0 0.1.2.3 169.254.0.1 169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 \
                 192.88.99.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 :: ::ffff:10.0.0.1 \
                 ::ffff:203.0.113.1 ::10.0.0.1 ::ffff:0:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::10.0.0.1 \
                 2002:a00:1::1 2001::1 2001:db8::5efe:10.0.0.1 2001:db8::200:5efe:10.0.0.1 100::1 fe80::1 \
                 fe80::a9fe:a9fe fec0::1 ff02::1 ff0e::1 4000::1 fd00:ec2::254 fd20:ce::254 \
                 fd00:c1::a9fe:a9fe",
            ),
        ] {
            for text in ips.split(' ') {
                let ip: IpAddr = text.parse().expect("an address");
                assert_eq!(Scope::of(ip), scope, "{text}");
            }
        }
    }
}
