//! What a firewall lets through, whatever it is called there.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use libp2p::{Multiaddr, multiaddr};
use p2pnode_protocol::Scope;
use p2pnode_transports::{Family, PortRange, to_socket_addr};

use crate::config::Config;

/// What a firewall lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The source ports, of all nodes that share them.
    pub(super) range: PortRange,
    /// Never empty, in this order.
    pub(super) protocols: Vec<Protocol>,
    /// Never empty, IPv4 first.
    pub(super) families: Vec<Family>,
    /// Ports on which the node listens publicly.
    pub(super) listen: BTreeSet<(Protocol, u16)>,
    /// The port at which the node is probed and scraped, if other hosts can reach it.
    pub(super) admin: Option<u16>,
    /// The relays that are configured by an address which is not public.
    pub(super) private_relays: BTreeSet<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

impl Rules {
    /// The rules for nodes with this configuration.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
        let dial = &config.dial;
        let listen: BTreeSet<_> = config.listen.iter().filter_map(listener).collect();
        let offered = [(Protocol::Udp, dial.quic), (Protocol::Tcp, dial.tcp)];
        let families = [Family::Ip4, Family::Ip6];
        let relays = config.relays.iter();
        let relays = relays.filter_map(|relay| Some(to_socket_addr(&relay.addr)?.ip()));
        Self {
            range: dial.shared_range,
            protocols: offered
                .into_iter()
                .filter_map(|(protocol, is_on)| is_on.then_some(protocol))
                .collect(),
            families: families
                .into_iter()
                .filter(|family| dial.family.allows(*family))
                .collect(),
            listen,
            admin: config
                .admin_listen
                .filter(|admin| !admin.ip().is_loopback())
                .as_ref()
                .map(SocketAddr::port),
            private_relays: relays.filter(|ip| !Scope::is_global(*ip)).collect(),
        }
    }

    /// `UDP and TCP`.
    pub(super) fn protocol_names(&self) -> String {
        let names: Vec<_> = self
            .protocols
            .iter()
            .map(|protocol| protocol.upper())
            .collect();
        names.join(" and ")
    }

    /// The listeners' ports of `protocol`.
    pub(super) fn listen_ports(&self, protocol: Protocol) -> impl Iterator<Item = u16> {
        self.listen
            .iter()
            .filter(move |(of, _)| *of == protocol)
            .map(|(_, port)| *port)
    }

    /// Every address of the families, as networks.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = &'static str> {
        self.families.iter().map(|family| match family {
            Family::Ip4 => "0.0.0.0/0",
            Family::Ip6 => "::/0",
        })
    }
}

impl Protocol {
    pub(super) const fn lower(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    pub(super) const fn upper(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

fn listener(addr: &Multiaddr) -> Option<(Protocol, u16)> {
    addr.iter().find_map(|part| {
        if let multiaddr::Protocol::Udp(port) = part {
            Some((Protocol::Udp, port))
        } else if let multiaddr::Protocol::Tcp(port) = part {
            Some((Protocol::Tcp, port))
        } else {
            None
        }
    })
}
