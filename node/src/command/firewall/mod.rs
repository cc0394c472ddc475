//! `p2pnode firewall`: the rules that let a node through a firewall that drops everything else, from the node's configuration.
//!
//! What leaves is UDP and TCP from the range, to any address and port: where relays and peers are is not known beforehand. What
//! comes back belongs to a connection that the firewall has seen leave, so nothing is opened; a punch needs no more. Public
//! listeners are let in. DNS queries leave from the system's ports and are not covered.
//!
//! Only host firewalls and routers know source ports. The clouds' firewalls and Kubernetes' NetworkPolicy know destinations:
//! what is rendered for them lets out what they can tell, and says so.

mod cloud;
mod kubernetes;
mod linux;

use std::{collections::BTreeSet, net::SocketAddr};

use libp2p::{Multiaddr, multiaddr};
use p2pnode_transports::{Family, PortRange};

use crate::config::Config;

/// What the rules are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// nftables, for `nft -f`
    Nft,
    /// iptables, for `iptables-restore --noflush` and `ip6tables-restore --noflush`
    Iptables,
    /// An AWS security group, as JSON
    AwsSg,
    /// Google Cloud VPC firewall rules, as commands of gcloud
    Gcp,
    /// A Kubernetes NetworkPolicy
    Networkpolicy,
}

/// What a firewall has to let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The source ports, of all nodes that share them.
    range: PortRange,
    /// Never empty, in this order.
    protocols: Vec<Protocol>,
    /// Never empty, IPv4 first.
    families: Vec<Family>,
    /// Ports on which the node listens publicly.
    listen: BTreeSet<(Protocol, u16)>,
    /// The port at which the node is probed and scraped, if other hosts can reach it.
    admin: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
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
        }
    }

    /// The rules as text, with a newline at the end.
    #[must_use]
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Nft => linux::nft(self),
            Format::Iptables => linux::iptables(self),
            Format::AwsSg => cloud::aws_security_group(self),
            Format::Gcp => cloud::gcp(self),
            Format::Networkpolicy => kubernetes::network_policy(self),
        }
    }

    /// `UDP and TCP`.
    fn protocol_names(&self) -> String {
        let names: Vec<_> = self
            .protocols
            .iter()
            .map(|protocol| protocol.upper())
            .collect();
        names.join(" and ")
    }

    /// The listeners' ports of `protocol`.
    fn listen_ports(&self, protocol: Protocol) -> impl Iterator<Item = u16> {
        self.listen
            .iter()
            .filter(move |(of, _)| *of == protocol)
            .map(|(_, port)| *port)
    }

    /// Every address of the families, as networks.
    fn anywhere(&self) -> impl Iterator<Item = &'static str> {
        self.families.iter().map(|family| match family {
            Family::Ip4 => "0.0.0.0/0",
            Family::Ip6 => "::/0",
        })
    }
}

impl Protocol {
    const fn lower(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    const fn upper(self) -> &'static str {
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

#[cfg(test)]
mod tests;
