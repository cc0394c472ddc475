//! NATs and firewalls: which address a packet shows outside, and which packets are let in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use p2pnode_transports::Transport;

use crate::punch::address::Candidate;

/// How a host is connected to the outside ([RFC 4787](https://www.rfc-editor.org/rfc/rfc4787) has the terms).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Not at all: the host has a public address, and everything arrives.
    None,
    /// No translation; it lets in what answers.
    Firewall,
    /// One mapping, everyone may use it.
    FullCone,
    /// One mapping, for the addresses that were sent to.
    AddressRestricted,
    /// One mapping, for the sockets that were sent to.
    PortRestricted,
    /// The same, at another port than the host's own.
    PortRewriting,
    /// A mapping for each remote, for that remote.
    Symmetric,
}

impl Nat {
    /// Whether each remote sees another port.
    pub(crate) fn maps_by_remote(self) -> bool {
        self == Self::Symmetric
    }

    /// Whether it lets in a packet from this socket to a mapping from which packets have gone to these.
    pub(crate) fn admits<'a>(
        self,
        from: SocketAddr,
        mut sent_to: impl Iterator<Item = &'a SocketAddr>,
    ) -> bool {
        match self {
            Self::None | Self::FullCone => true,
            Self::AddressRestricted => sent_to.any(|to| to.ip() == from.ip()),
            Self::Firewall | Self::PortRestricted | Self::PortRewriting | Self::Symmetric => {
                sent_to.any(|to| *to == from)
            }
        }
    }

    fn translates(self) -> bool {
        !matches!(self, Self::None | Self::Firewall)
    }
}

/// A NAT with its mappings.
#[derive(Debug, Clone)]
pub(super) struct Site {
    nat: Nat,
    /// The host's own address.
    pub(super) inside: IpAddr,
    /// What others see.
    pub(super) outside: IpAddr,
    /// The port outside of each socket inside, of a symmetric NAT for each remote.
    mappings: BTreeMap<(Transport, u16, Option<SocketAddr>), u16>,
    /// Where packets have gone, by the port outside.
    sent_to: BTreeSet<(Transport, u16, SocketAddr)>,
    next_port: u16,
    /// Ports outside that a router maps, and the ports of the host.
    pub(super) forwards: BTreeMap<(Transport, u16), u16>,
}

impl Site {
    pub(super) fn new(nat: Nat, inside: IpAddr, outside: IpAddr) -> Self {
        Self {
            nat,
            inside: if nat.translates() { inside } else { outside },
            outside,
            mappings: BTreeMap::new(),
            sent_to: BTreeSet::new(),
            next_port: 50_000,
            forwards: BTreeMap::new(),
        }
    }

    /// Forgets every mapping, as a NAT does that restarts.
    pub(super) fn forget(&mut self) {
        self.mappings.clear();
        self.sent_to.clear();
    }

    /// A packet goes from a port of the host to a remote. The socket that the remote sees.
    pub(super) fn outbound(
        &mut self,
        transport: Transport,
        port: u16,
        to: SocketAddr,
    ) -> Candidate {
        let key = (transport, port, self.nat.maps_by_remote().then_some(to));
        let next = &mut self.next_port;
        let keeps_port = !matches!(self.nat, Nat::PortRewriting | Nat::Symmetric);
        let outside = *self.mappings.entry(key).or_insert_with(|| {
            *next += 1;
            if keeps_port { port } else { *next }
        });
        self.sent_to.insert((transport, outside, to));
        Candidate {
            transport,
            socket: SocketAddr::new(self.outside, outside),
        }
    }

    /// A packet arrives from outside at this port. The host's port to which it is let in, if it is.
    pub(super) fn inbound(&self, transport: Transport, port: u16, from: SocketAddr) -> Option<u16> {
        if let Some(inside) = self.forwards.get(&(transport, port)) {
            return Some(*inside);
        }
        let sent_to = self.sent_to.iter();
        let sent_to = sent_to.filter(|(of, at, _)| (*of, *at) == (transport, port));
        if !self.nat.admits(from, sent_to.map(|(_, _, to)| to)) {
            return None;
        }
        if !self.nat.translates() {
            return Some(port);
        }
        let mut mappings = self.mappings.iter();
        let inside = mappings.find(|((of, _, _), outside)| *of == transport && **outside == port);
        inside.map(|((_, inside, _), _)| *inside)
    }

    /// Whether any host can reach the listeners of this host.
    pub(super) fn is_open(&self) -> bool {
        self.nat == Nat::None
    }
}
