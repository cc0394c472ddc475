//! Searches for a pair of ports, after a punch has failed.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::port_search::Offer;
use p2pnode_transports::{Transport, to_socket_addr};

use super::{Action, Event, NodeState};
use crate::{
    core::{
        event,
        peers::{How, PathKind},
        port_search::{Counts, Ended, Sample, SearchOutcome, SearchReport, Step},
    },
    punch::{By, FoundPair, Reason, Record},
};

/// An offer waits this long for the peer to list its address over the circuit, too: relay and peer both have to name it, so
/// neither alone makes this node send to a third party.
const LISTED: Duration = Duration::from_secs(5);

/// An ordinary punch has this time before a side that knows that its NAT is symmetric offers a search. Most are over by then.
const HEAD_START: Duration = Duration::from_secs(1);

/// The same of another side: nearly all pairs without a symmetric NAT are direct by then.
const LONG_START: Duration = Duration::from_millis(1_500);

/// The most peers whose lists are remembered.
const PEERS: usize = 512;

impl NodeState {
    /// A punch has failed for this reason: a search may find what it did not.
    pub(super) fn search_instead(&mut self, peer: PeerId, reason: Reason, now: Instant) {
        let may_be_ports = matches!(
            reason,
            Reason::Timeout | Reason::SymmetricBoth | Reason::DialFailed | Reason::Refused
        );
        if may_be_ports {
            self.want_search(peer, now);
        }
    }

    /// A side that has dialed does not wait for the punch to fail: it has a head start. The other side may be one that no relay
    /// can reach.
    pub(super) fn search_soon(&mut self, peer: PeerId, now: Instant) {
        let path = self.best_path(&peer);
        let has_dialed = path.is_some_and(|path| path.how == How::Dialed);
        if has_dialed && self.soon.len() < PEERS {
            let is_hard = self.searches.is_hard();
            let head_start = if is_hard { HEAD_START } else { LONG_START };
            self.soon.insert(peer, now + head_start);
        }
    }

    /// When the next head start is over.
    pub(super) fn next_search(&self) -> Option<Instant> {
        self.soon.values().min().copied()
    }

    fn want_search(&mut self, peer: PeerId, now: Instant) {
        let has_quic = self.has_quic();
        if let Some(relay) = self.relay_between(&peer).filter(|_| has_quic) {
            self.searches.handle_wanted(peer, relay, now);
        }
    }

    fn has_quic(&self) -> bool {
        let mut ports = self.addresses.punch_ports().keys();
        ports.any(|(transport, _)| *transport == Transport::Quic)
    }

    /// A relay that is there, and may be asked how it sees the range.
    fn relay_that_looks(&self) -> Option<PeerId> {
        let mut relays = self.introducers.iter().filter(|_| self.has_quic());
        let relay = relays.find(|relay| self.relays.up(relay).next().is_some());
        relay.copied()
    }

    /// The relay of the best path to a peer, if that is relayed and introduces peers.
    fn relay_between(&self, peer: &PeerId) -> Option<PeerId> {
        let path = self.best_path(peer)?;
        let relay = path.relay.filter(|_| path.kind == PathKind::Relayed);
        relay.filter(|relay| self.introducers.contains(relay))
    }

    /// A relay passes on a peer's offer of a search, or its answer.
    pub(super) fn handle_search_offer(
        &mut self,
        relay: PeerId,
        peer: PeerId,
        offer: Offer,
        now: Instant,
    ) {
        let named = offer.side.mapped.ip();
        if self.is_direct_at(&peer, named) {
            self.searches.handle_offer(peer, relay, offer, true, now);
            return;
        }
        // Only for a peer that is relayed: it has paid for the circuit, and is allowed.
        if self.relay_between(&peer).is_none() {
            return;
        }
        self.note_met(peer, relay);
        let lists = self
            .listed
            .get(&peer)
            .is_some_and(|ips| ips.contains(&named));
        if lists {
            self.searches.handle_offer(peer, relay, offer, false, now);
        } else {
            // The attempt in which the peer lists its addresses may end a little later on this side.
            self.waiting_offer = Some((now + LISTED, relay, peer, offer));
        }
    }

    /// A handshake over a circuit has shown which addresses the peer calls its own.
    pub(super) fn note_listed(&mut self, record: &Record, now: Instant) {
        if record.by() != By::Dcutr {
            return;
        }
        let listed = record.received.iter();
        let listed = listed.filter_map(|candidate| Some(to_socket_addr(&candidate.addr)?.ip()));
        self.on_listed(record.peer, listed.collect(), now);
    }

    pub(super) fn on_listed(&mut self, peer: PeerId, ips: BTreeSet<IpAddr>, now: Instant) {
        self.listed.insert(peer, ips);
        while self.listed.len() > PEERS {
            self.listed.pop_first();
        }
        let waits = self.waiting_offer.take_if(|(.., of, _)| *of == peer);
        if let Some((until, relay, peer, offer)) = waits
            && now < until
        {
            self.handle_search_offer(relay, peer, offer, now);
        }
    }

    /// What the relay has seen of the range; `None` if nothing.
    pub(crate) fn handle_port_sample(&mut self, sample: Option<Sample>, now: Instant) {
        tracing::debug!(?sample, "what a relay sees of the range");
        self.searches.handle_sample(sample, now);
        self.watch_port();
        self.advance(now);
    }

    /// The relay does not pass an offer to this peer on.
    pub(crate) fn handle_offer_refused(&mut self, peer: PeerId, now: Instant) {
        self.searches.handle_refused(peer, now);
        self.advance(now);
    }

    /// The search of [`Action::SearchPorts`] is over. `pair` is what it has found.
    pub(crate) fn handle_ports_searched(
        &mut self,
        peer: PeerId,
        ended: Ended,
        counts: Counts,
        pair: Option<FoundPair>,
        now: Instant,
    ) {
        if self.searches.is_with(&peer)
            && let Some(pair) = pair
        {
            self.actions.push_back(Action::PunchFound(pair));
        }
        self.searches.handle_ended(peer, ended, counts, now);
        self.advance(now);
    }

    /// Carries on what is due.
    pub(super) fn search_ports(&mut self, now: Instant) {
        if let Some(peer) = self.searches.peer()
            && self.is_needless(&peer)
        {
            self.searches.handle_needless(&peer, now);
        }
        let over = self.soon.extract_if(.., |_, at| *at <= now);
        let over: Vec<PeerId> = over.map(|(peer, _)| peer).collect();
        let due = self.searches.handle_timeout(now);
        for peer in due.into_iter().chain(over) {
            self.want_search(peer, now);
        }
        if self.searches.wants_look()
            && let Some(relay) = self.relay_that_looks()
        {
            self.searches.handle_relay(relay, now);
        }
        while let Some(step) = self.searches.poll_step() {
            match step {
                Step::Sample(relay) => self.actions.push_back(Action::SamplePorts(relay)),
                Step::SampleNext(relay, count) => {
                    self.actions
                        .push_back(Action::SampleNextPorts(relay, count));
                }
                Step::Begin(begin) => self.actions.push_back(Action::SearchPorts(begin)),
                Step::Stop => self.actions.push_back(Action::StopPorts),
                Step::Report(report) => self.report_search(report, now),
                Step::Ask(ask) => {
                    let best = self.peers.best_leg(self.relays.up(&ask.relay));
                    match best.map(|leg| leg.connection) {
                        Some(leg) => self.actions.push_back(Action::OfferSearch(ask, leg)),
                        None => self.searches.handle_refused(ask.peer, now),
                    }
                }
            }
        }
    }

    /// Whether nothing is to be found for a peer any more: it has become direct or is gone, or the path that was to move is gone.
    fn is_needless(&self, peer: &PeerId) -> bool {
        match (self.searches.is_moving(), self.peers.directs(peer)) {
            (true, directs) => directs == 0,
            (false, 0) => self.peers.connections_of(peer).is_empty(),
            (false, _) => true,
        }
    }

    fn report_search(&mut self, report: SearchReport, now: Instant) {
        let peer = report.peer;
        tracing::info!(
            %peer,
            class = ?report.class,
            sent = report.sent,
            received = report.received,
            ignored = report.ignored,
            outcome = %report.outcome,
            reason = report.reason.map(tracing::field::display),
            "search for ports"
        );
        for dialer in self.dials_of(peer) {
            let t = dialer.elapsed(now);
            dialer.handle_port_search(event::Event::Search { t, report });
        }
        self.report(event::Event::Search {
            t: self.t(now),
            report,
        });
        self.events.push_back(Event::Searched(report));
        self.last_searches.insert(peer, report);
        while self.last_searches.len() > PEERS {
            self.last_searches.pop_first();
        }
        if report.outcome != SearchOutcome::Found {
            self.release(peer);
        }
    }

    /// The dials of a peer need not wait for a search any longer.
    pub(super) fn release(&mut self, peer: PeerId) {
        if let Some(reason) = self.held_back.remove(&peer) {
            for dialer in self.dials_of(peer) {
                dialer.handle_gave_up(reason);
            }
        }
    }
}
