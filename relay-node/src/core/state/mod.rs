//! One relay: the machines, and every map that correlates them.
//!
//! | What happens | Method | What comes of it |
//! |---|---|---|
//! | a connection begins, is authenticated, is established, closes | [`RelayState::handle_incoming`], [`RelayState::handle_authenticated`], [`RelayState::handle_established`], [`RelayState::handle_closed`] | whether it may, [`Action::Dial`], [`Action::AbortCircuit`] |
//! | a remote opens a stream | [`RelayState::judge`] | whether it is served |
//! | a peer presents a token | [`RelayState::handle_join`] | the answer |
//! | a peer asks for a reservation or a circuit | [`RelayState::handle_reservation_request`], [`RelayState::handle_circuit_request`] | what is granted, or why not |
//! | a circuit is ready, is not taken, ends | [`RelayState::handle_circuit_ready`], [`RelayState::handle_circuit_not_taken`], [`RelayState::handle_circuit_ended`] | whether to carry it |
//! | a peer asks for the other leg of a circuit, or to be introduced | [`RelayState::handle_hop_request`], [`RelayState::handle_introduction_request`] | the answer, [`Action::Introduce`] |
//! | a record is offered | [`RelayState::handle_record`] | [`Action::StoreRecord`], [`Action::CopyRecord`] |
//! | the relay is asked to end | [`RelayState::handle_shutdown`] | [`Action::AnnounceDrain`], later [`Action::Stop`] |
//!
//! An answer that is due at once is returned. Everything else comes out of [`RelayState::poll_action`], and what is worth a line
//! in the log or a count out of [`RelayState::poll_event`]. The task that drives the state empties both after each call, and
//! calls [`RelayState::handle_timeout`] when [`RelayState::poll_timeout`] says so.

mod access;
mod action;
mod autonat;
mod circuits;
mod classes;
mod connections;
mod draining;
mod event;
mod introductions;
mod peer_relays;
mod probes;
mod rates;
mod records;
mod totals;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_protocol::directory::Offer;
use p2pnode_transports::{Class, HostAddress, to_socket_addr};

pub use self::{
    action::{Action, Hop, Keep, Stored},
    circuits::{Opened, Reservation},
    event::{Delivery, Event, RecordOutcome, ReservationEnd},
    totals::{AccessTotals, Totals},
};
pub use crate::config::Access;
use crate::{
    config::{Config, Limits},
    core::{
        admission::{Admission, Rules},
        clock::Now,
        connections::Connections,
        drain::Drain,
        external::{Change, ExternalAddresses},
        front::Translated,
        handshakes::Handshakes,
        introductions::Introductions,
        limits::count,
        memory::Memory,
        peer_relays::PeerRelays,
        policy::RelayPolicy,
        rates::Rates,
        records::Records,
        replication::Replication,
        twins::Twins,
    },
};

/// A node over whose relay many circuits open together asks once for each of them, and then every 30 s: this serves a thousand
/// circuits of one peer.
const HOP_REQUESTS: Measure = Measure {
    burst: 256,
    period: Duration::from_millis(30),
};

/// What the operator configures.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much the relay carries.
    pub limits: Limits,
    /// Who may use it.
    pub access: Access,
    /// The other relays, by peer id and address. The relay's own id is left out.
    pub relays: Vec<(PeerId, Multiaddr)>,
    /// Addresses at which peers reach the relay; those on which it listens stand in if there are none.
    pub external: Vec<Multiaddr>,
    /// How long circuits may go on once the relay was asked to end.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    /// A relay without limits that any peer may use, and that ends at once.
    fn default() -> Self {
        Self {
            limits: Limits::UNLIMITED,
            access: Access::default(),
            relays: Vec::new(),
            external: Vec::new(),
            drain_timeout: Duration::ZERO,
        }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            limits: config.limits,
            access: config.access.clone(),
            relays: config.relays.clone(),
            external: config.external.clone(),
            drain_timeout: config.drain_timeout,
        }
    }
}

/// A relay, as far as it decides.
#[derive(Debug)]
pub struct RelayState {
    local: PeerId,
    admission: Admission,
    memory: Memory,
    handshakes: Handshakes,
    connections: Connections,
    /// The classes of peers that are no strangers.
    classes: HashMap<PeerId, Class>,
    policy: RelayPolicy,
    rates: Rates,
    hop_requests: Limiter<PeerId>,
    introductions: Introductions,
    peer_relays: PeerRelays,
    records: Records,
    replication: Replication,
    /// Records of peers whose reservation is not known here yet: the two may come over different connections.
    records_awaiting_reservation: HashMap<PeerId, (Instant, Offer)>,
    external: ExternalAddresses,
    twins: Twins,
    /// The translator in front of the relay that was reported.
    reported_front: Option<IpAddr>,
    drain_timeout: Duration,
    /// Once the relay was asked to end.
    drain: Option<Drain>,
    /// When it is looked next whose token has expired and who was not admitted in time.
    next_enforcement: Instant,
    /// When expired records are dropped next.
    next_sweep: Instant,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl RelayState {
    /// The relay `local`, to which nobody is connected yet.
    #[must_use]
    pub fn new(local: PeerId, settings: &Settings, now: Now) -> Self {
        let Settings {
            limits,
            access,
            relays,
            external,
            drain_timeout,
        } = settings;
        let known = relays.iter().map(|(relay, _)| *relay);
        let others = relays.iter().filter(|(relay, _)| *relay != local);
        let (external, changes) = ExternalAddresses::new(external);
        let mut state = Self {
            local,
            admission: Admission::new(local, Rules::new(access, known)),
            memory: Memory::new(limits.memory),
            handshakes: Handshakes::new(limits.pending_connections),
            connections: Connections::new(limits),
            classes: HashMap::new(),
            policy: RelayPolicy::new(limits),
            rates: Rates::new(limits.reservations_per_source),
            hop_requests: Limiter::new(HOP_REQUESTS),
            introductions: Introductions::default(),
            peer_relays: PeerRelays::new(others.clone().cloned(), now.instant),
            records: Records::new(
                local,
                count(limits.records),
                others
                    .clone()
                    .map(|(relay, _)| relay)
                    .collect::<BTreeSet<_>>()
                    .len(),
                limits.reservations_per_source,
            ),
            replication: Replication::default(),
            records_awaiting_reservation: HashMap::new(),
            external,
            twins: Twins::default(),
            reported_front: None,
            drain_timeout: *drain_timeout,
            drain: None,
            next_enforcement: now.instant,
            next_sweep: now.instant,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        };
        state.apply(changes, Hop::Withheld);
        for (relay, _) in relays {
            state.classify(*relay);
        }
        state
    }

    /// The relay listens on an address.
    pub fn handle_listening(&mut self, address: &Multiaddr) {
        let before = self.hop();
        let changes = self.external.listening(address);
        self.apply(changes, before);
    }

    /// The relay does not listen on it any more.
    pub fn handle_listen_expired(&mut self, address: &Multiaddr) {
        let before = self.hop();
        let changes = self.external.expired(address);
        self.apply(changes, before);
    }

    /// The host has these addresses, and its default routes lead to these routers.
    pub fn handle_host(&mut self, addresses: BTreeSet<HostAddress>, gateways: &BTreeSet<IpAddr>) {
        let external = self.external.given().filter_map(to_socket_addr);
        let external = external.map(|socket| socket.ip());
        self.introductions.seen.host(&addresses, gateways, external);
        let before = self.hop();
        let changes = self.external.host(addresses);
        self.apply(changes, before);
        self.look_in_front();
    }

    /// Peers that are all seen at one address, which hides where they are.
    #[must_use]
    pub fn translated(&self) -> Option<Translated> {
        self.introductions.seen.front.translated()
    }

    /// Whether this is the address of a NAT that was reported, behind which peers may be anywhere.
    pub(crate) fn is_translator(&self, ip: IpAddr) -> bool {
        self.reported_front == Some(ip)
    }

    /// Reports a translator in front of the relay once it shows, and once it proves to be none.
    pub(super) fn look_in_front(&mut self) {
        let front = &self.introductions.seen.front;
        let known = self.reported_front.filter(|source| front.hides(*source));
        let now = known.or_else(|| front.translated().map(|of| of.source));
        if self.reported_front != now {
            self.reported_front = now;
            self.events.push_back(Event::Translated(now));
        }
    }

    /// Whether peers are served: they are once there is an address to name in a reservation.
    #[must_use]
    pub fn hop(&self) -> Hop {
        if self.external.is_empty() {
            Hop::Withheld
        } else {
            Hop::Offered
        }
    }

    fn apply(&mut self, changes: Vec<Change>, before: Hop) {
        for change in changes {
            match change {
                Change::Added(address) => {
                    self.actions
                        .push_back(Action::AddExternalAddress(address.clone()));
                    let configured = self.external.configured();
                    self.events.push_back(Event::ExternalAddress {
                        address,
                        configured,
                    });
                }
                Change::Removed(address) => {
                    self.actions
                        .push_back(Action::RemoveExternalAddress(address.clone()));
                    self.events.push_back(Event::ExternalAddressGone(address));
                }
            }
        }
        let hop = self.hop();
        if hop != before {
            self.actions.push_back(Action::OfferHop(hop));
            self.events.push_back(Event::Serving(hop));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.end_expired_reservations(now);
        self.enforce_access(now);
        self.take_back_left(now);
        self.sweep_records(now);
        self.replication.handle_timeout(now.instant);
        self.settle_replication(now);
        self.peer_relays.handle_timeout(now.instant);
        self.settle_peer_relays(now);
        self.settle_drain(now);
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.policy.poll_timeout(),
            self.enforces_access().then_some(self.next_enforcement),
            (self.records.len() > 0).then_some(self.next_sweep),
            self.records.poll_timeout(),
            self.peer_relays.poll_timeout(),
            self.replication.poll_timeout(),
            self.drain.as_ref().and_then(Drain::poll_timeout),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// What the adapter is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What has happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
