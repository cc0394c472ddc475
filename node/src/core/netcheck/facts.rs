//! What was seen, without a judgement.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::PeerId;
use p2pnode_protocol::dns64::Prefix;
use p2pnode_transports::{Exhausted, Family, PortRange, Transport};

use crate::{
    config::Rotate,
    core::{
        mappings::{Claim, RouterFacts},
        sights::is_hidden,
    },
};

/// The payload that QUIC needs.
pub(super) const LEAST_PAYLOAD: u16 = 1200;

/// Connections are kept alive at least this often, in seconds.
pub(super) const KEPT_ALIVE: u32 = 15;

/// By how much a certificate begins earlier than it was made, at least: go-libp2p's.
const BACKDATED_MS: u64 = 3_600_000;

/// All that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) range: PortRange,
    pub(crate) relays: Vec<RelayFacts>,
    /// One for each transport and family that a relay has an address of.
    pub(crate) paths: Vec<PathFacts>,
    /// By how much this clock is ahead of a relay's, in milliseconds.
    pub(crate) clock_ahead: Option<i64>,
    pub(crate) host: HostFacts,
    /// What a router maps to the punch ports.
    pub(crate) claims: Vec<Claim>,
    pub(crate) router: RouterFacts,
    pub(crate) nat64: Nat64,
    /// Whether this node searches for ports where a punch fails.
    pub(crate) searches: bool,
    /// When this node leaves a mapping that ends by age.
    pub(crate) rotate: Rotate,
}

/// Whether the resolver is a DNS64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat64 {
    /// It is not.
    None,
    /// It makes addresses of IPv6 with this prefix.
    Prefix(Prefix),
    /// No resolver has answered.
    Unknown,
}

/// How long the mappings of UDP live, in seconds. The default is that nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// The longest time without traffic after which one was still there.
    pub(crate) idle_alive: Option<u32>,
    /// The shortest after which one was not.
    pub(crate) idle_dead: Option<u32>,
    /// After which time one had ended that was in use.
    pub(crate) age: Option<u32>,
}

impl Facts {
    /// Whether this process had no file left for a part of the look.
    pub(super) fn lacks_files(&self) -> bool {
        let mut legs = self.relays.iter().flat_map(|relay| &relay.legs);
        let lacks = Answer::Fault(Fault::Files);
        let mut paths = self.paths.iter();
        legs.any(|leg| leg.answer == lacks) || paths.any(|path| path.faults.contains(&Fault::Files))
    }

    /// Whether this clock or that of a relay is so wrong that certificates may not be valid.
    pub(super) fn ends_certificates(&self) -> bool {
        let off = self.clock_ahead.map(i64::unsigned_abs);
        off.is_some_and(|off| off > BACKDATED_MS)
    }

    /// The same without what may only have been late: a TCP connection from elsewhere that did not come, where the packet over UDP
    /// did.
    pub(crate) fn without_doubt(&self) -> Self {
        let mut facts = self.clone();
        for path in &mut facts.paths {
            let udp = self
                .paths
                .iter()
                .find(|other| other.transport == Transport::Quic && other.family == path.family);
            if path.transport == Transport::Tcp
                && let Some(udp) = udp
            {
                let sure = |came: Option<bool>, over_udp| {
                    came.filter(|came| *came || over_udp != Some(true))
                };
                path.from_other_port = sure(path.from_other_port, udp.from_other_port);
                path.from_other_address = sure(path.from_other_address, udp.from_other_address);
            }
        }
        facts
    }
}

/// A relay.
#[derive(Debug, Clone)]
pub(crate) struct RelayFacts {
    pub(crate) relay: PeerId,
    pub(crate) legs: Vec<Leg>,
}

/// One address of a relay.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    pub(crate) answer: Answer,
}

/// What became of packets to an address of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The relay has proved its identity in a handshake. Its first answer came after this time.
    After(Duration),
    /// No handshake ended, and the node has a connection to the relay there.
    Held,
    /// Another peer has proved its identity.
    Other(PeerId),
    /// Something answered after this time, and no handshake ended.
    Unproved(Duration),
    /// Nothing came back.
    Silent,
    /// It was refused, or the address is none: why.
    Failed(String),
    /// This host has no route to the family.
    NoRoute,
    /// This host has no socket to send from: why.
    NoSocket(String),
    /// This host sends nothing.
    Fault(Fault),
    /// The name of the relay was not resolved: why.
    Unresolved(String),
}

p2pnode_protocol::named! {
    /// What keeps this host from sending. It says nothing about the network.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Fault {
        /// EMFILE, ENFILE.
        Files => "too many files are open",
        /// EADDRINUSE, EADDRNOTAVAIL.
        InUse => "another program of this host has the port",
        /// EPERM, EACCES.
        Forbidden => "this host forbids it",
        /// ENOBUFS, ENOMEM.
        Memory => "this host has no buffers left",
    }
}

impl Answer {
    /// What packets and a handshake show: the `rtt` of the first answer, who proved to be there, and whether the node `is_connected`.
    pub(crate) fn of(
        relay: PeerId,
        rtt: Option<Duration>,
        proved: Option<(PeerId, Duration)>,
        is_connected: bool,
    ) -> Self {
        match (proved, rtt) {
            (Some((peer, took)), rtt) if peer == relay => Self::After(rtt.unwrap_or(took)),
            (Some((peer, _)), _) => Self::Other(peer),
            (None, _) if is_connected => Self::Held,
            (None, Some(rtt)) => Self::Unproved(rtt),
            (None, None) => Self::Silent,
        }
    }

    /// Whether nothing was sent, for a reason of this host.
    pub(crate) const fn is_of_this_host(&self) -> bool {
        matches!(self, Self::NoRoute | Self::NoSocket(_) | Self::Fault(_))
    }

    /// What has kept this host from sending.
    pub(super) const fn fault(&self) -> Option<Fault> {
        if let Self::Fault(fault) = self {
            Some(*fault)
        } else {
            None
        }
    }

    /// Whether the relay is there.
    pub(crate) const fn is_there(&self) -> bool {
        matches!(self, Self::After(_) | Self::Held)
    }

    /// Whether anything came back, from whomever.
    pub(crate) const fn came(&self) -> bool {
        matches!(
            self,
            Self::After(_) | Self::Held | Self::Other(_) | Self::Unproved(_)
        )
    }
}

/// One endpoint of a relay, and as whom it saw this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The endpoint.
    pub(crate) by: SocketAddr,
    /// The socket that asked, untranslated. A host with several addresses may take another one for each destination.
    pub(crate) local: Option<SocketAddr>,
    /// The mapping; `None` if nothing came back.
    pub(crate) mapped: Option<SocketAddr>,
    /// Whether the endpoint, a relay, reports that the mapping is that of a NAT in front of it.
    pub(crate) is_hidden: bool,
}

impl Seen {
    /// The address that the endpoint sees in place of this host's, because a NAT on the way to a relay hides that.
    pub(crate) fn hidden_at(&self) -> Option<IpAddr> {
        let seen = self.mapped?.ip();
        let is_own = |ip| self.local.is_some_and(|local| local.ip() == ip);
        (self.is_hidden || is_hidden(self.by.ip(), seen, is_own)).then_some(seen)
    }
}

/// A transport over a family.
#[derive(Debug, Clone)]
pub(crate) struct PathFacts {
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    /// As whom the endpoints saw that socket.
    pub(crate) seen: Vec<Seen>,
    /// Whether a packet from another port of an address came in that this socket has sent to; `None` if that could not be tried.
    pub(crate) from_other_port: Option<bool>,
    /// The same from an address that this socket has not sent to.
    pub(crate) from_other_address: Option<bool>,
    /// Other ports of the range, and their mappings in the order in which they were made.
    pub(crate) sample: Vec<(u16, Option<SocketAddr>)>,
    /// Whether a packet to the own mapping came back.
    pub(crate) hairpin: Option<bool>,
    /// Whether a relay has named another one, which answers on its behalf.
    pub(crate) has_partner: bool,
    /// Whether a port of the range was missing for what was to be tried.
    pub(crate) lacks_port: bool,
    /// What has kept this host from sending. Ports concerned are not in the sample.
    pub(crate) faults: BTreeSet<Fault>,
    /// The longest payload that came through whole to the relay, in bytes; 0 if the shortest did not. `None` if that was not tried.
    pub(crate) payload: Option<u16>,
    /// The same from the relay.
    pub(crate) payload_in: Option<u16>,
    /// The punch port as a relay sees it, and whether the relay reaches it there; `None` if no relay was asked.
    pub(crate) reached: Option<(SocketAddr, bool)>,
    /// How long mappings live; `None` if that was not looked at.
    pub(crate) lifetime: Option<Lifetime>,
}

impl PathFacts {
    /// What shows the NATs of this side: what no NAT in front of a relay has replaced.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.hidden_at().is_none())
    }

    /// The addresses that relays see in place of this host's.
    pub(super) fn hidden(&self) -> BTreeSet<IpAddr> {
        self.seen.iter().filter_map(Seen::hidden_at).collect()
    }

    /// Whether an endpoint sees such an address.
    pub(crate) fn is_hidden_from(&self, by: SocketAddr) -> bool {
        let mut seen = self.seen.iter().filter(|seen| seen.by == by);
        seen.any(|seen| seen.hidden_at().is_some())
    }

    /// Whether no relay shows where this host is.
    pub(super) fn is_hidden(&self) -> bool {
        !self.hidden().is_empty() && self.shown().all(|seen| seen.mapped.is_none())
    }

    /// Whether a sampled port gets out.
    pub(super) fn gets_out(&self) -> bool {
        self.sample.iter().any(|(_, mapped)| mapped.is_some())
    }

    /// Whether other ports than the punch port get answers, and the punch port gets none. Over TCP it does not ask.
    pub(super) fn lacks_punch_port(&self) -> bool {
        let is_seen = self.seen.iter().any(|seen| seen.mapped.is_some());
        self.transport == Transport::Quic && !is_seen && self.gets_out()
    }

    /// Whether relays of IPv4 alone are reached over IPv6, through a NAT64.
    pub(super) fn is_translated(&self) -> bool {
        let mut mapped = self.seen.iter().filter_map(|seen| seen.mapped);
        mapped.any(|mapped| Family::from(mapped.ip()) != self.family)
    }

    /// The longest payload that comes through both ways, as far as that was tried.
    pub(super) fn both_ways(&self) -> Option<u16> {
        self.payload.into_iter().chain(self.payload_in).min()
    }

    pub(crate) const fn new(transport: Transport, family: Family) -> Self {
        Self {
            transport,
            family,
            seen: Vec::new(),
            from_other_port: None,
            from_other_address: None,
            sample: Vec::new(),
            hairpin: None,
            has_partner: false,
            lacks_port: false,
            faults: BTreeSet::new(),
            payload: None,
            payload_in: None,
            reached: None,
            lifetime: None,
        }
    }
}

/// This host.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostFacts {
    /// `net.ipv4.ip_local_port_range`.
    pub(crate) ephemeral: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub(crate) reserved: Vec<(u16, u16)>,
    /// `net.ipv4.tcp_timestamps`.
    pub(crate) timestamps: Option<bool>,
    /// `net.netfilter.nf_conntrack_udp_timeout_stream`, in seconds.
    pub(crate) udp_timeout: Option<u32>,
    /// TCP sockets of the range that wait for their end.
    pub(crate) waiting: usize,
    /// Ports of the range that other programs have.
    pub(crate) taken: usize,
    /// Ports of the range that this process lacks the privilege for.
    pub(crate) forbidden: usize,
    /// What holds the range, if a punch socket has no port.
    pub(crate) unbound: Option<Exhausted>,
}

/// Ports that stand for a range: the first, the last, and others between, as far from each other as possible. They are not in the
/// order of their numbers, so that a NAT that maps one after another is not taken for one whose mappings follow from the port.
pub(crate) fn spread(range: PortRange, count: usize) -> Vec<u16> {
    let count = count.min(range.len());
    let last = count.saturating_sub(1).max(1);
    let span = usize::from(range.end() - range.start());
    let at = |at: usize| {
        let offset = u16::try_from(span * at / last).unwrap_or_default();
        range.start() + offset
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| at * 5 % 8);
    order.into_iter().map(at).collect()
}
