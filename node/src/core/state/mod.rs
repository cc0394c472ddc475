//! The state of a node: its machines, and every map that connects them.
//!
//! Pure: no IO, no clock, no Swarm. A driver reports what happens by the `handle_*` methods. After each call, the driver carries
//! out the [`Action`]s of [`NodeState::poll_action`] in their order. It then passes on the [`Event`]s of
//! [`NodeState::poll_event`]. It calls [`NodeState::handle_timeout`] at the instant of [`NodeState::poll_timeout`]. The event
//! loop of `swarm` is such a driver; tests are others.
//!
//! - `interface`: what goes in and comes out.
//! - `connections`: connections that open, fail to and close.
//! - `dials`: the dials that were requested, and their pings and searches.
//! - `circuits`: over which leg a circuit goes, and what its relay reports about the other leg.
//! - `doubts`: connections that have missed a ping.
//! - `learned`: what dials have learned about paths.
//! - `found`: relays that a record names.
//! - `relays`: what configured relays report about themselves and about this node.
//! - `joins`, `introductions`, `punches`, `directory`, `lost`: one protocol or concern each.
//! - `services`: paths that services ask for.
//! - `classes`: what each peer may make this node hold.
//! - `searches`, `moves`: searches for ports, and paths that leave a mapping before it dies of age.
//! - `addresses`, `mapped`: where this node is.
//! - `view`: what observers see.

mod access;
mod addresses;
mod circuits;
mod classes;
mod connections;
mod dial;
mod dials;
mod directory;
mod doubts;
mod found;
mod interface;
mod introductions;
mod joins;
mod learned;
mod lost;
mod mapped;
mod moves;
mod own_key;
mod punches;
mod relays;
mod searches;
mod services;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::port_search::Offer;
use p2pnode_transports::{Class, Family, Learned, PortRange};

use crate::core::{
    addresses::Addresses,
    admission::Recent,
    dialer::{Dialer, Pace, Sources},
    endings::Endings,
    event,
    found_relays::FoundRelays,
    inquiries::Inquiries,
    introductions::Introductions,
    joins::Joins,
    keeper::Keeper,
    liveness::Liveness,
    neighbours::Neighbours,
    own_key::OwnKey,
    peers::{Path, PathCause, PeerTable},
    port_search::{Aging, SearchReport, Searches},
    reconnect::Reconnector,
    refusals::Refusals,
    registrar::Registrar,
    relays::RelayKeeper,
    sights::Sights,
    tokens::Tokens,
};
use crate::punch::Reason;

use dial::Dial;
use interface::Lookup;

pub(crate) use services::ServiceNeeds;

pub(crate) use interface::{
    Action, AnsweredBy, Closed, DialFailure, DialId, Established, Event, JoinRequest, ListenerEnd,
    Purpose, QueryId, Settings,
};

/// What a node knows and is about to do.
#[derive(Debug)]
pub(crate) struct NodeState {
    local: PeerId,
    is_throwaway: bool,
    port_range: PortRange,
    punches: bool,
    introducers: BTreeSet<PeerId>,
    allowed: Option<BTreeSet<PeerId>>,
    sources: Sources,
    started: Instant,
    rng: fastrand::Rng,
    addresses: Addresses,
    peers: PeerTable,
    relays: RelayKeeper,
    sights: Sights,
    endings: Endings,
    dials: Vec<Dial>,
    pace: Pace,
    /// How many dials and queries have begun: names for the next ones.
    begun: u64,
    /// What the dials of the swarm that are under way are for.
    purposes: BTreeMap<ConnectionId, Purpose>,
    /// Peers whose punch was given up for now, why, and when it is tried again.
    next_punches: BTreeMap<PeerId, (Reason, Option<Instant>)>,
    /// Circuits whose other leg their relay is asked for.
    inquiries: Inquiries,
    introductions: Introductions,
    searches: Searches,
    aging: Aging,
    /// The relay that looks at the punch socket again and again.
    watching: Option<PeerId>,
    /// When the path of a direct peer may move next, and over which relay the two have met.
    moves: BTreeMap<PeerId, Instant>,
    met: BTreeMap<PeerId, PeerId>,
    /// How the last search with each peer has ended.
    last_searches: BTreeMap<PeerId, SearchReport>,
    /// The IP addresses that peers have listed over circuits.
    listed: BTreeMap<PeerId, BTreeSet<IpAddr>>,
    /// The offer of a search by a peer that has not listed its address yet: until when it waits, the relay and the peer.
    waiting_offer: Option<(Instant, PeerId, PeerId, Offer)>,
    /// Until when an ordinary punch has a head start before a search.
    soon: BTreeMap<PeerId, Instant>,
    /// Why punches were given up while a search goes on, for the dials that wait for its end.
    held_back: BTreeMap<PeerId, Reason>,
    liveness: Liveness,
    /// The peers to dial again when they are lost.
    reconnector: Reconnector,
    /// The peers to which services want a path.
    keeper: Keeper,
    /// The peers of services, and whether one names them.
    serving: BTreeMap<PeerId, bool>,
    /// Peers that have refused the last dial that they answered.
    refusals: Refusals,
    registrar: Registrar,
    /// Registrations under way, and where.
    registrations: BTreeMap<QueryId, PeerId>,
    /// Questions to the directory under way.
    lookups: BTreeMap<QueryId, Lookup>,
    found_relays: FoundRelays<(PeerId, Purpose)>,
    /// Those of them that `access.allow` does not name, and that may connect while a connection to them is made or open.
    temporarily_allowed: BTreeSet<PeerId>,
    joins: Joins<(Purpose, String)>,
    /// The classes of peers that are no strangers.
    classes: BTreeMap<PeerId, Class>,
    tokens: Option<Tokens>,
    /// Which peer was at which place a moment ago.
    neighbours: Neighbours,
    /// Legs whose opening is not reported yet: their relays closed the connection before soon, or did not admit this node.
    unreported: BTreeSet<ConnectionId>,
    own_key: OwnKey,
    /// Connections that were refused or ended early.
    turned_away: Recent,
    /// What dials have learned about paths.
    learned: Vec<Learned>,
    /// Whether the node is shutting down.
    is_leaving: bool,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl NodeState {
    /// A node without connections.
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        let Settings {
            local,
            is_throwaway,
            relays,
            reservations,
            family,
            port_range,
            punches,
            searches,
            rotate,
            introducers,
            allowed,
            sources,
            tokens,
            seed,
        } = settings;
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut state = Self {
            local,
            is_throwaway,
            port_range,
            punches,
            introducers,
            allowed,
            sources,
            started: now,
            searches: Searches::new(local, punches && searches, rng.fork()),
            aging: Aging::new(rotate),
            watching: None,
            moves: BTreeMap::new(),
            met: BTreeMap::new(),
            last_searches: BTreeMap::new(),
            listed: BTreeMap::new(),
            waiting_offer: None,
            soon: BTreeMap::new(),
            held_back: BTreeMap::new(),
            rng,
            addresses: Addresses::default(),
            peers: PeerTable::new(family),
            relays: RelayKeeper::new(&relays, reservations, family, now),
            sights: Sights::default(),
            endings: Endings::default(),
            dials: Vec::new(),
            pace: Pace::default(),
            begun: 0,
            purposes: BTreeMap::new(),
            next_punches: BTreeMap::new(),
            inquiries: Inquiries::default(),
            introductions: Introductions::default(),
            liveness: Liveness::default(),
            reconnector: Reconnector::default(),
            keeper: Keeper::default(),
            serving: BTreeMap::new(),
            refusals: Refusals::default(),
            registrar: Registrar::default(),
            registrations: BTreeMap::new(),
            lookups: BTreeMap::new(),
            found_relays: FoundRelays::default(),
            temporarily_allowed: BTreeSet::new(),
            joins: Joins::default(),
            classes: BTreeMap::new(),
            tokens,
            own_key: OwnKey::default(),
            turned_away: Recent::default(),
            neighbours: Neighbours::default(),
            unreported: BTreeSet::new(),
            learned: Vec::new(),
            is_leaving: false,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        };
        state.classify_configured();
        state.advance(now);
        state
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to report, until there is none.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`NodeState::handle_timeout`] may have something to do, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_leaving {
            return None;
        }
        let dials = self.dials.iter().filter_map(Dial::poll_timeout);
        dials
            .chain(self.relays.poll_timeout())
            .chain(self.inquiries.poll_timeout())
            .chain(self.reconnector.poll_timeout())
            .chain(self.keeper.poll_timeout())
            .chain(self.registrar.poll_timeout())
            .chain(self.own_key.poll_timeout())
            .chain(self.searches.poll_timeout())
            .chain(self.next_move())
            .chain(self.next_search())
            .min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// Draws the consequences of what has happened by `now`.
    fn advance(&mut self, now: Instant) {
        if self.is_leaving {
            return;
        }
        self.move_paths(now);
        self.search_ports(now);
        self.keep_relays(now);
        self.dial_kept_peers(now);
        self.advance_dials(now);
        self.ask_relays(now);
        self.end_dials(now);
        self.dial_lost_peers(now);
        self.announce();
        self.register(now);
        self.report_key(now);
    }

    /// The node shuts down: the relays that have its record get one without addresses, and nothing else is done from now on.
    pub(crate) fn handle_shutdown(&mut self) {
        self.is_leaving = true;
        self.actions.clear();
        self.withdraw();
    }

    /// The dials of a peer.
    fn dials_of(&mut self, peer: PeerId) -> impl Iterator<Item = &mut Dialer> {
        let dialers = self.dials.iter_mut().map(Dial::dialer);
        dialers.filter(move |dialer| dialer.peer() == peer)
    }

    fn is_dialed(&mut self, peer: PeerId) -> bool {
        self.dials_of(peer).next().is_some()
    }

    fn best_path(&self, peer: &PeerId) -> Option<Path> {
        self.peers.best(peer).and_then(|id| self.peers.path(id))
    }

    /// Has these addresses of a peer dialed.
    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, purpose: Purpose) {
        let reach = matches!(purpose, Purpose::FoundLeg(_)).then(|| self.reach_of_records());
        self.actions.push_back(Action::Dial {
            peer,
            addresses,
            purpose,
            reach,
        });
    }

    /// Has these addresses of a peer dialed. Within one dial, the first address that answers ends the others. So each family is
    /// dialed by itself if one is preferred: the punch machine closes the connection of the other. Returns how many dials it takes.
    fn dial_each(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, purpose: Purpose) -> usize {
        let policy = self.peers.policy();
        let is_first = |addr: &Multiaddr| Family::of(addr).is_none_or(|of| policy.rank(of) == 0);
        let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_first);
        let dials = [first, second]
            .into_iter()
            .filter(|addrs| !addrs.is_empty());
        let mut count = 0;
        for addrs in dials {
            self.dial(peer, addrs, purpose);
            count += 1;
        }
        count
    }

    /// Reports something of the node as a whole.
    fn report(&mut self, event: event::Event) {
        self.events.push_back(Event::Node(event));
    }

    /// Something that may have moved the best path of a peer has happened to one of its connections. The legs to relays are
    /// no peers' paths.
    fn report_path(&mut self, peer: PeerId, cause: PathCause) {
        if self.is_relay(&peer) {
            return;
        }
        let best = self.peers.best(&peer);
        let best = best.and_then(|id| Some((id, self.peers.kind(id)?)));
        self.events.push_back(Event::BestPath { peer, best, cause });
    }

    /// The time of a peer to a direct path counts from now on.
    fn report_wanted(&mut self, peer: PeerId) {
        if !self.is_relay(&peer) {
            self.events.push_back(Event::Wanted(peer));
        }
    }

    /// Time since the node began.
    fn t(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// A number that no dial and no query has yet.
    fn next_number(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}

#[cfg(test)]
mod tests;
