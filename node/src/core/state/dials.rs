//! The dials that were requested: what they ask for, their pings, and the places where their peers may be.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::ping;
use p2pnode_transports::to_socket_addr;

use super::{
    Action, AnsweredBy, DialFailure, DialId, Event, NodeState, Purpose, circuits::FamilyMatch,
    dial::Dial, interface::Lookup,
};
use crate::core::{
    dialer::{self, Caller, Candidate, Dialer, LocalFailure, PingFailure, Request, Until},
    event,
    introductions::IntroductionRequest,
    liveness::{Farewell, Verdict},
    peers::{Path, PathCause, PathKind},
};

impl NodeState {
    /// Begins a dial. [`Event::Dial`] reports its course.
    pub(crate) fn handle_dial(&mut self, request: Request, now: Instant) -> DialId {
        let id = self.begin_dial(request, now);
        self.advance(now);
        id
    }

    pub(super) fn begin_dial(&mut self, request: Request, now: Instant) -> DialId {
        let (peer, until) = (request.peer, request.until);
        // The dial takes over.
        self.reconnector.handle_dial(&peer);
        self.report_wanted(peer);
        // A relay is no way to itself: it is dialed where it is.
        let relays = self.relays.relays().filter(|relay| *relay != peer);
        let relays: Vec<PeerId> = relays.collect();
        let mut request = request;
        request.addrs.extend(self.relays.addrs(&peer).cloned());
        let troubles: Vec<_> = relays
            .iter()
            .filter(|relay| !self.relays.is_connected(relay))
            .filter_map(|relay| Some((*relay, self.relays.absence(relay)?)))
            .collect();
        if self.peers.best(&peer).is_none() {
            // The caller needs the relays, and may know that they answer or would admit this node now.
            self.relays.handle_hint(now);
        }
        let mut dialer = Dialer::new(request, relays, self.punches, now);
        dialer.call_as(Caller {
            id: self.local,
            is_throwaway: self.is_throwaway,
        });
        dialer.search(self.sources, now);
        for (relay, trouble) in troubles {
            dialer.handle_relay_trouble(relay, trouble);
        }
        if let Some(reason) = self.peers.silence_means(&peer) {
            dialer.handle_silence_means(reason);
        }
        if let Some(path) = self.best_path(&peer) {
            if path.kind == PathKind::Relayed && until == Until::Direct {
                self.actions.push_back(Action::Want(peer));
            }
            let last = self.next_punches.get(&peer).map(|(reason, _)| *reason);
            dialer.handle_open(path, last, now);
        }
        if let Some(best) = self.peers.best(&peer)
            && self.inquiries.is_awaited(best)
        {
            dialer.await_far_hop(now);
        }
        let id = DialId(self.next_number());
        self.dials.push(Dial {
            id,
            dialer,
            pinging: None,
            is_abandoned: false,
        });
        self.classify(peer);
        id
    }

    /// The reader of a dial is gone.
    pub(crate) fn handle_dial_abandoned(&mut self, dial: DialId, now: Instant) {
        for known in self.dials.iter_mut().filter(|known| known.id == dial) {
            known.is_abandoned = true;
        }
        self.advance(now);
    }

    pub(super) fn advance_dials(&mut self, now: Instant) {
        let relays = self.relays.relays();
        let ready: Vec<PeerId> = relays
            .filter(|relay| self.relays.is_usable(relay))
            .collect();
        for index in 0..self.dials.len() {
            let dialer = &mut self.dials[index].dialer;
            for relay in &ready {
                dialer.handle_relay_ready(*relay, now);
            }
            dialer.handle_timeout(now);
            while let Some(action) = self.dials[index].dialer.poll_action() {
                self.on_dialer_action(index, action, now);
            }
        }
    }

    fn on_dialer_action(&mut self, index: usize, action: dialer::Action, now: Instant) {
        let Dial { id, dialer, .. } = &self.dials[index];
        let (dial, peer) = (*id, dialer.peer());
        match action {
            dialer::Action::DialDirect(addresses) => {
                let dials = self.dial_each(peer, addresses, Purpose::Direct(peer));
                let dialer = &mut self.dials[index].dialer;
                dialer.handle_direct_dials(dials);
            }
            dialer::Action::DialCircuit(relay) => {
                self.dial_circuit(peer, relay, Purpose::Circuit { peer, relay }, now);
            }
            dialer::Action::Search => self.actions.push_back(Action::Search(peer)),
            dialer::Action::DialLocal(Candidate { host, addrs, .. }) => {
                self.dial(peer, addrs, Purpose::Local { peer, host });
            }
            dialer::Action::Introduce(relay) => {
                self.ask_for_introduction(IntroductionRequest { peer, relay });
            }
            dialer::Action::LookUp => self.look_up(peer, Lookup::Peer(peer)),
            dialer::Action::DialFound { relay, addrs } => {
                if self.is_paced(peer, relay, now) {
                    self.dial_found(peer, relay, &addrs, Purpose::Circuit { peer, relay });
                }
            }
            dialer::Action::MatchFamilies => {
                if let Some(reason) = dialer.settled() {
                    self.next_punches.entry(peer).or_insert((reason, None));
                }
                if self.match_families(peer, now) == FamilyMatch::Dialed {
                    self.dials[index].dialer.await_far_hop(now);
                }
            }
            dialer::Action::Ping => self.ping_for(index),
            dialer::Action::Report(mut event) => {
                if let event::Event::Result(outcome) = &mut event {
                    let reason = match outcome.reason {
                        Some(event::NotDirect::Punch(reason)) => Some(reason),
                        Some(event::NotDirect::Unreachable(_)) | None => None,
                    };
                    let path = outcome.path.as_ref();
                    outcome.finding = path.and_then(|path| self.finding(path, reason));
                }
                self.events.push_back(Event::Dial { dial, event });
            }
        }
    }

    /// Removes the dials that are over; a peer that one has reached is wanted from now on.
    pub(super) fn end_dials(&mut self, now: Instant) {
        let over: Vec<Dial> = self.dials.extract_if(.., |dial| dial.is_over()).collect();
        for Dial { dialer, .. } in over {
            let peer = dialer.peer();
            if self.is_dialed(peer) {
                continue;
            }
            self.actions.push_back(Action::EndSearch(peer));
            self.introductions.forget(&peer);
            match self.best_path(&peer) {
                // Its legs are kept in any case.
                Some(_) if self.relays.is_configured(&peer) => {}
                Some(path) => {
                    let last = path.relay.or(dialer.led_by());
                    self.reconnector
                        .want(peer, dialer.addrs(), dialer.relays(), last);
                }
                None => {
                    if let Some(reason) = dialer.refusal() {
                        self.refusals.handle_refused(peer, reason, now);
                    }
                    let jitter = self.rng.f64();
                    self.reconnector.handle_dial_failed(&peer, now, jitter);
                    self.events.push_back(Event::Unwanted(peer));
                    if self.keeper.keeps(&peer) {
                        let jitter = self.rng.f64();
                        self.keeper.handle_failed(&peer, now, jitter);
                        let reason = dialer.unreachable_reason();
                        self.events.push_back(Event::NoPath { peer, reason });
                    }
                }
            }
            self.classify(peer);
        }
    }

    /// A search has found places where the peer may be. `own` are those of their IP addresses that are this host's.
    pub(crate) fn handle_candidates(
        &mut self,
        peer: PeerId,
        mut candidates: Vec<Candidate>,
        own: &BTreeSet<IpAddr>,
        now: Instant,
    ) {
        candidates.retain(|candidate| !self.is_own(candidate.host, own));
        let others = self.neighbours.select(&mut candidates, peer, now);
        tracing::debug!(%peer, others, ?candidates, "places where a peer may be");
        for dialer in self.dials_of(peer) {
            dialer.handle_candidates(candidates.clone());
        }
        self.advance(now);
    }

    /// A place could not be asked for a peer, for this reason.
    pub(crate) fn handle_search_failed(&mut self, peer: PeerId, reason: &str, now: Instant) {
        for dialer in self.dials_of(peer) {
            dialer.handle_search_failed(reason.to_owned());
        }
        self.advance(now);
    }

    /// The search for a peer has ended.
    pub(crate) fn handle_search_ended(&mut self, peer: PeerId, now: Instant) {
        for dialer in self.dials_of(peer) {
            dialer.handle_searched();
        }
        self.advance(now);
    }

    /// Whether this node itself listens there.
    fn is_own(&self, host: SocketAddr, own: &BTreeSet<IpAddr>) -> bool {
        let mut ports = self.addresses.public().filter_map(to_socket_addr);
        own.contains(&host.ip()) && ports.any(|at| at.port() == host.port())
    }

    /// The peer is not there, or another one is.
    pub(super) fn on_local_failed(
        &mut self,
        peer: PeerId,
        host: SocketAddr,
        failure: DialFailure,
        now: Instant,
    ) {
        let reason = failure.reason;
        let failure = match failure.answered_by {
            Some(AnsweredBy::Other(obtained)) => {
                tracing::debug!(%peer, %host, %obtained, "another peer is there");
                self.neighbours.handle_answer(host, obtained, now);
                LocalFailure::OtherPeer
            }
            Some(AnsweredBy::Local) => {
                let mut own = self.addresses.interfaces.iter();
                // Without interfaces nothing is known.
                if !self.addresses.interfaces.is_empty() && own.all(|own| own.ip != host.ip()) {
                    self.own_key.handle_answered(host, now);
                }
                LocalFailure::OtherPeer
            }
            None => {
                tracing::debug!(%peer, %host, %reason, "nobody is there");
                self.neighbours.handle_silence(host, now);
                LocalFailure::NoAnswer(reason)
            }
        };
        for dialer in self.dials_of(peer) {
            dialer.handle_local_failed(host, failure.clone());
        }
    }

    /// Pings the best path of a dial's peer.
    fn ping_for(&mut self, index: usize) {
        let peer = self.dials[index].dialer.peer();
        // Without a path there is nothing to ping, and the dial learns of the next one.
        if let Some(connection) = self.peers.best(&peer) {
            self.dials[index].pinging = Some(connection);
            self.actions.push_back(Action::Ping { peer, connection });
        }
    }

    /// A ping has ended.
    pub(crate) fn handle_ping(&mut self, event: ping::Event, now: Instant) {
        let ping::Event {
            peer,
            connection,
            result,
            missed,
            asked,
        } = event;
        let cause = match &result {
            Ok(rtt) => {
                self.peers.handle_rtt(connection, *rtt);
                PathCause::Ranked
            }
            Err(error) => {
                tracing::debug!(%peer, %connection, %error, missed, "a ping was not answered");
                if missed > 0 {
                    self.peers.handle_missed(connection);
                }
                PathCause::Missed
            }
        };
        self.report_path(peer, cause);
        if asked {
            self.answer_dials(peer, connection, &result, now);
        }
        let outcome = result.as_ref().map(|_| ());
        let verdict = self.liveness.handle_ping(connection, outcome, missed, now);
        match verdict {
            Verdict::Alive if result.is_ok() => self.on_answered(peer, connection, now),
            Verdict::Alive => {}
            Verdict::Doubtful => self.on_doubtful(peer, connection, now),
            Verdict::Dead => self.close_dead(peer, connection, now),
        }
        self.advance(now);
    }

    /// Hands the end of a ping over `connection` to the dials that asked for it.
    fn answer_dials(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        result: &Result<Duration, ping::Failure>,
        now: Instant,
    ) {
        let pinged = self.peers.path(connection);
        let kind = pinged.as_ref().map(|path| path.kind);
        let best = self.peers.best(&peer);
        let best = best.and_then(|best| self.peers.kind(best));
        // Another path of the same kind may have become a little better meanwhile: that changes nothing of what was reached. A
        // path of the preferred family does.
        let is_second = |path: &Path| self.peers.is_second_choice(path);
        let best_is_second = self.best_path(&peer).as_ref().is_some_and(is_second);
        let pinged = pinged.filter(|path| {
            Some(path.kind) == best && (best_is_second || !self.peers.is_second_choice(path))
        });
        for dial in &mut self.dials {
            let Some(dialer) = dial.take_ping(connection) else {
                continue;
            };
            match (&pinged, result) {
                (Some(path), Ok(rtt)) => dialer.handle_ping(*rtt, path.clone(), now),
                (Some(_), Err(ping::Failure::Unsupported)) => {
                    dialer.handle_ping_failed(PingFailure::Unsupported, kind);
                }
                (Some(_), Err(ping::Failure::Timeout)) => {
                    dialer.handle_ping_failed(PingFailure::Missed, kind);
                }
                (Some(_), Err(ping::Failure::Broken(_))) => {
                    dialer.handle_ping_failed(PingFailure::Broken, kind);
                    // If the connection ends, the dial does not wait.
                    dial.pinging = Some(connection);
                }
                (None, _) => dialer.handle_ping_failed(PingFailure::Stale, kind),
            }
        }
    }

    /// A connection is gone, and with it the answers to the pings over it.
    pub(super) fn forget_pings(
        &mut self,
        connection: ConnectionId,
        kind: PathKind,
        farewell: Farewell,
    ) {
        let failure = match farewell {
            Farewell::Lost => PingFailure::Lost,
            Farewell::Wanted => PingFailure::Stale,
        };
        for dial in &mut self.dials {
            if let Some(dialer) = dial.take_ping(connection) {
                dialer.handle_ping_failed(failure, Some(kind));
            }
        }
    }
}
