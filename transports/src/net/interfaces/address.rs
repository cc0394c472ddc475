//! An address of this host, and what is known about it.

use std::net::IpAddr;

/// What kind of interface has an address. The best kind to be reached at comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Medium {
    /// A network card, or what stands for one: a VLAN, a bond, a macvlan.
    Physical,
    /// A tunnel or a point-to-point link.
    Tunnel,
    /// A network within this host: a bridge of containers or of virtual machines, and the ends of their cables.
    Virtual,
    /// Loopback.
    Loopback,
}

/// An address of this host, and what the kernel says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// The address itself, never that of the other end of a point-to-point link.
    pub ip: IpAddr,
    /// The length of the prefix of its network. On a point-to-point link the address is alone in its network.
    pub prefix_len: u8,
    /// The kind of its interface.
    pub medium: Medium,
    /// Whether the interface has a carrier.
    pub is_running: bool,
    /// Whether the default route of the family leads out of its interface.
    pub has_default_route: bool,
    /// Whether its preferred lifetime has ended: new connections are to leave from another address
    /// ([RFC 4862, 5.5.4](https://www.rfc-editor.org/rfc/rfc4862#section-5.5.4)).
    pub is_deprecated: bool,
}

impl HostAddress {
    /// An address of a network card, of which nothing else is known.
    #[must_use]
    pub const fn plain(ip: IpAddr, prefix_len: u8) -> Self {
        Self {
            ip,
            prefix_len,
            medium: Medium::Physical,
            is_running: true,
            has_default_route: false,
            is_deprecated: false,
        }
    }
}
