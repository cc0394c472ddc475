//! How many introductions that others asked for are punched.
//!
//! A relay vouches for the addresses, so they get an ordinary dial each, with first packets that are repeated. Peer ids cost nothing,
//! and a relay may err or lie. So what is sent is bounded by relay, by the network that it goes to and for the node. DCUtR remains for
//! the rest. An introduction that this node asked for belongs to a dial of its own and is not bounded here.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::{Network, Source};
use p2pnode_transports::Transport;

use super::Introduced;
use crate::punch::{address::Candidate, candidates::MAX_CANDIDATES};

/// In this time.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// The most introductions by one relay.
pub(super) const PER_RELAY: usize = 32;

/// Bytes that dials may send to an IPv4 address or IPv6 /64, with twice as many to a /56 and four times as many to a /48.
pub(super) const PER_SOURCE: u64 = 1 << 20;

/// Bytes that dials may send in all.
pub(super) const IN_ALL: u64 = 8 << 20;

/// The most bytes that a dial sends to an address that does not answer: a first flight of 1,200 bytes or less and its repetitions
/// within 4 s over QUIC; a SYN and its repetitions within 5 s over TCP.
pub(super) const fn most_sent(transport: Transport) -> u64 {
    match transport {
        Transport::Quic => 20_000,
        Transport::Tcp => 1_000,
    }
}

/// Those that were taken, oldest first.
#[derive(Debug, Default)]
pub(super) struct Introductions(VecDeque<Taken>);

#[derive(Debug)]
struct Taken {
    relay: PeerId,
    at: Instant,
    /// What may be sent to each network.
    bytes: BTreeMap<Network, u64>,
    in_all: u64,
}

impl Taken {
    fn new(introduced: &Introduced, at: Instant) -> Self {
        let (mut bytes, mut in_all) = (BTreeMap::new(), 0);
        let dialed = introduced.addrs.iter().filter_map(Candidate::parse);
        for candidate in dialed.take(MAX_CANDIDATES) {
            let most = most_sent(candidate.transport);
            in_all += most;
            for network in Source::from(candidate.socket.ip()).networks() {
                *bytes.entry(network).or_default() += most;
            }
        }
        Self {
            relay: introduced.relay,
            at,
            bytes,
            in_all,
        }
    }
}

impl Introductions {
    /// Whether one more is within the budgets; then it is counted.
    pub(super) fn admits(&mut self, introduced: &Introduced, now: Instant) -> bool {
        self.0.retain(|taken| taken.at + WINDOW > now);
        let new = Taken::new(introduced, now);
        let of_relay = self.0.iter().filter(|taken| taken.relay == new.relay);
        let in_all: u64 = self.0.iter().map(|taken| taken.in_all).sum();
        let is_within = |(network, bytes): (&Network, &u64)| {
            let before: u64 = self
                .0
                .iter()
                .filter_map(|taken| taken.bytes.get(network))
                .sum();
            before + bytes <= PER_SOURCE * u64::from(network.weight())
        };
        let admitted = of_relay.count() < PER_RELAY
            && in_all + new.in_all <= IN_ALL
            && new.bytes.iter().all(is_within);
        if admitted {
            self.0.push_back(new);
        }
        admitted
    }
}
