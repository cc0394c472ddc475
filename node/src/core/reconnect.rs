//! Peers that this node dialed and has lost: when to dial them again, and over which relay.
//!
//! Pure: the time and a jitter between 0 and 1 are arguments. Only the side that dialed first dials again: that side knows relays
//! that lead to the other side. The other side may know none that leads back. The punch machine decides about the punch that
//! follows.
//!
//! A wanted peer stays wanted until it is forgotten. Its search pauses while no relay can be asked, and begins again with the first
//! relay that can. A search that finds nothing for long is slow: its waits grow with the time that the peer has been away.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::backoff::full_jitter;

use crate::core::{
    dialer::{CIRCUIT_WAIT, REFUSALS},
    event::Pause,
};

/// The first wait after every way has failed once.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// The shortest wait, whatever the jitter.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// The longest wait between two rounds, as a share of the time that the peer has been away: a search costs little, and finds a
/// peer that returns in a small part of the time that it was away.
const SHARE: u32 = 8;

/// The bounds of that: how long a wait may be at least and at most.
const BACKOFF_MAX: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));

/// A connection that lives this long ends the search that led to it. A connection that is lost earlier does not end the search.
/// So a peer that takes connections and drops them is dialed ever less often.
const STABLE: Duration = Duration::from_secs(60);

/// After this time without success, a search counts as paused: its dials are minutes apart.
const SLOW: Duration = Duration::from_secs(300);

/// A search that waits for a relay counts as paused after this time: a relay that restarts is back earlier.
const NO_RELAY: Duration = Duration::from_secs(5);

/// How long a peer that has closed its last path is left alone at least. Either it has ended, or it does not want the path.
const LEFT_ALONE: Duration = Duration::from_secs(15);

/// The most peers that are remembered. For a further one, the peer that has been away for longest is forgotten.
const MAX_PEERS: usize = 4096;

/// What the node is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial the peer through this relay.
    DialCircuit {
        /// The peer.
        peer: PeerId,
        /// The relay.
        relay: PeerId,
    },
    /// Dial the peer at the addresses that its dial was given.
    DialDirect {
        /// The peer.
        peer: PeerId,
        /// Its addresses.
        addrs: Vec<Multiaddr>,
    },
}

/// What has become of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It pauses, for this reason.
    Paused(PeerId, Pause),
    /// It goes on.
    Resumed(PeerId),
}

/// A peer that is wanted and has no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The peer.
    pub(crate) peer: PeerId,
    /// When it was lost.
    pub(crate) since: Instant,
    /// Why its search pauses, if it does.
    pub(crate) pause: Option<Pause>,
    /// When it is dialed next, if that is known.
    pub(crate) next: Option<Instant>,
    /// Whether it closes connections before it has answered anything.
    pub(crate) refuses: bool,
}

/// The peers to dial again when they are lost.
#[derive(Debug, Default)]
pub(crate) struct Reconnector {
    peers: BTreeMap<PeerId, Peer>,
    actions: VecDeque<Action>,
    changes: VecDeque<Change>,
}

#[derive(Debug)]
struct Peer {
    addrs: Vec<Multiaddr>,
    /// The one that led to the peer last is the first.
    relays: Vec<PeerId>,
    /// Where its host has answered that it does not know the connection.
    answered: Option<Multiaddr>,
    /// The search after the last loss, also after it was found.
    search: Option<Search>,
    /// Whether a dial is under way, which looks for the peer by itself.
    is_dialed: bool,
}

/// The dials after a loss.
#[derive(Debug)]
struct Search {
    /// When the peer was lost.
    since: Instant,
    /// When it was lost before the last connection to it.
    lost_before: Instant,
    /// Since when the ways to the peer can be tried: the loss, or the return of a relay.
    begun: Instant,
    /// Rounds in which every way has failed.
    rounds: u32,
    /// When the next dial is due.
    at: Instant,
    /// Whether the addresses were dialed in this round.
    addrs_dialed: bool,
    /// The relays that were asked in this round.
    asked: Vec<PeerId>,
    /// Since when no relay can be asked, if none can.
    without_relay: Option<Instant>,
    /// Whether nothing can be done before a relay is ready.
    stuck: bool,
    pause: Option<Pause>,
    /// How many connections in a row the peer has closed before it answered anything.
    refusals: u32,
    /// Whether it has begun at once after a reset.
    was_reset: bool,
    /// When the peer was found.
    found: Option<Instant>,
}

impl Reconnector {
    /// A dial has reached the peer: it is wanted from now on. `relays` are those that may lead to it.
    pub(crate) fn want(
        &mut self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        relays: impl IntoIterator<Item = PeerId>,
        last: Option<PeerId>,
    ) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) && !self.make_room() {
            tracing::debug!(%peer, "not dialed again when it is lost: {MAX_PEERS} others are");
            return;
        }
        let wanted = self.peers.entry(peer).or_insert(Peer {
            addrs: Vec::new(),
            relays: Vec::new(),
            answered: None,
            search: None,
            is_dialed: false,
        });
        wanted.addrs = addrs;
        wanted.search = None;
        wanted.is_dialed = false;
        for relay in relays {
            if !wanted.relays.contains(&relay) {
                wanted.relays.push(relay);
            }
        }
        wanted.prefer(last);
    }

    /// Forgets the peer that has been away for longest. Returns whether there was one.
    fn make_room(&mut self) -> bool {
        let longest = self.lost().min_by_key(|lost| lost.since);
        longest.is_some_and(|lost| self.peers.remove(&lost.peer).is_some())
    }

    /// Whether the peer is to be dialed again when it is lost.
    pub(crate) fn is_wanted(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Whether the peer was lost and is not found yet.
    pub(crate) fn is_searched(&self, peer: &PeerId) -> bool {
        let search = self.peers.get(peer).and_then(|peer| peer.search.as_ref());
        search.is_some_and(|search| search.found.is_none())
    }

    /// The peers that are wanted and have no path.
    pub(crate) fn lost(&self) -> impl Iterator<Item = Lost> + '_ {
        self.peers.iter().filter_map(|(id, peer)| {
            let search = peer
                .search
                .as_ref()
                .filter(|search| search.found.is_none())?;
            Some(Lost {
                peer: *id,
                since: search.since,
                pause: search.pause.filter(|_| !peer.is_dialed),
                next: (!search.stuck && !peer.is_dialed).then_some(search.at),
                refuses: search.refusals >= REFUSALS,
            })
        })
    }

    /// The peer is not wanted any longer: this node has closed its last connection, or was asked to forget the peer. Returns
    /// whether it was wanted.
    pub(crate) fn forget(&mut self, peer: &PeerId) -> bool {
        self.peers.remove(peer).is_some()
    }

    /// A dial of the peer begins, and takes over.
    pub(crate) fn handle_dial(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.is_dialed = true;
        }
    }

    /// The dial has ended without a path: a peer that was wanted before is wanted still.
    pub(crate) fn handle_dial_failed(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.is_dialed = false;
            if let Some(search) = &mut peer.search {
                search.next_round(now, jitter);
            }
        }
    }

    /// A connection to the peer is open, over that relay if over any.
    pub(crate) fn handle_connected(&mut self, peer: &PeerId, relay: Option<PeerId>, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            if let Some(search) = &mut peer.search {
                search.found.get_or_insert(now);
                search.pause = None;
            }
            peer.prefer(relay);
        }
    }

    /// The last connection to the peer was lost: neither side had closed it.
    pub(crate) fn handle_lost(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        let Some(peer) = self.peers.get_mut(peer) else {
            return;
        };
        match &mut peer.search {
            Some(search) if search.found.is_none_or(|found| now < found + STABLE) => {
                if search.found.take().is_some() {
                    search.lost_before = std::mem::replace(&mut search.since, now);
                }
                search.next_round(now, jitter);
            }
            search => *search = Some(Search::new(now)),
        }
    }

    /// The peer's host has answered at this address that it does not know the last connection. The host is there, and so is the peer
    /// if it was restarted. The peer is dialed at once, there as well, also if its search waits. The next reset brings a backoff.
    pub(crate) fn handle_reset(
        &mut self,
        peer: &PeerId,
        at: Option<Multiaddr>,
        now: Instant,
        jitter: f64,
    ) {
        if !self.is_searched(peer) {
            self.handle_lost(peer, now, jitter);
        }
        let Some(peer) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(search) = peer.search.as_mut().filter(|search| !search.was_reset) else {
            return;
        };
        search.next_round(now, jitter);
        (search.at, search.was_reset) = (now, true);
        peer.answered = at;
    }

    /// A connection to a lost peer has ended. `refuses`: the peer closed it before it had answered anything.
    pub(crate) fn handle_refusal(&mut self, peer: &PeerId, refuses: bool) {
        let peer = self.peers.get_mut(peer);
        if let Some(search) = peer.and_then(|peer| peer.search.as_mut()) {
            search.refusals = if refuses { search.refusals + 1 } else { 0 };
            if refuses {
                // It was not back.
                search.since = search.lost_before;
            }
        }
    }

    /// The peer has closed the last connection. It may be back, but not at once.
    pub(crate) fn handle_left(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        self.handle_lost(peer, now, jitter);
        if let Some(search) = self
            .peers
            .get_mut(peer)
            .and_then(|peer| peer.search.as_mut())
        {
            let wait = LEFT_ALONE.mul_f64(1.0 + jitter.clamp(0.0, 1.0));
            search.at = search.at.max(now + wait);
        }
    }

    /// The circuit that was asked for last could not be made: the next relay is asked at once.
    pub(crate) fn handle_failed(&mut self, peer: &PeerId, relay: &PeerId, now: Instant) {
        if let Some(search) = self
            .peers
            .get_mut(peer)
            .and_then(|peer| peer.search.as_mut())
            && search.asked.last() == Some(relay)
        {
            search.at = search.at.min(now);
        }
    }

    /// The next thing to do, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to report, until there is none.
    pub(crate) fn poll_event(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Dials the lost peers whose turn it is. `is_ready` returns whether circuits can be asked of a relay.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        is_ready: impl Fn(&PeerId) -> bool,
        mut jitter: impl FnMut() -> f64,
    ) {
        for (id, peer) in &mut self.peers {
            let can_ask = peer.relays.iter().any(&is_ready);
            let Some(search) = peer.searching() else {
                continue;
            };
            search.handle_relays(can_ask, now);
            while peer.searching().is_some_and(|search| search.at <= now) {
                let Some(action) = peer.next(*id, now, &is_ready, &mut jitter) else {
                    break;
                };
                self.actions.push_back(action);
            }
            let change = peer.searching().and_then(|search| search.update_pause(now));
            self.changes.extend(change.map(|pause| match pause {
                Some(pause) => Change::Paused(*id, pause),
                None => Change::Resumed(*id),
            }));
        }
    }

    /// When [`Reconnector::handle_timeout`] may have something to do, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.peers.values().filter(|peer| !peer.is_dialed);
        let searches = peers.filter_map(|peer| peer.search.as_ref());
        searches
            .filter(|search| search.found.is_none())
            .flat_map(|search| [search.pauses_at(), (!search.stuck).then_some(search.at)])
            .flatten()
            .min()
    }
}

impl Peer {
    /// The search, if it is under way.
    fn searching(&mut self) -> Option<&mut Search> {
        let search = self.search.as_mut().filter(|_| !self.is_dialed)?;
        search.found.is_none().then_some(search)
    }

    fn prefer(&mut self, relay: Option<PeerId>) {
        let Some(relay) = relay else { return };
        self.relays.retain(|other| *other != relay);
        self.relays.insert(0, relay);
    }

    fn next(
        &mut self,
        id: PeerId,
        now: Instant,
        is_ready: impl Fn(&PeerId) -> bool,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Action> {
        let search = self.search.as_mut()?;
        if !search.addrs_dialed {
            search.addrs_dialed = true;
            let mut addrs = self.addrs.clone();
            addrs.extend(self.answered.take().filter(|at| !self.addrs.contains(at)));
            if !addrs.is_empty() {
                return Some(Action::DialDirect { peer: id, addrs });
            }
        }
        let next = self
            .relays
            .iter()
            .find(|relay| !search.asked.contains(relay) && is_ready(relay));
        search.stuck = next.is_none() && search.asked.is_empty() && self.addrs.is_empty();
        if let Some(relay) = next {
            search.asked.push(*relay);
            search.at = now + CIRCUIT_WAIT;
            return Some(Action::DialCircuit {
                peer: id,
                relay: *relay,
            });
        }
        if search.stuck {
            return None;
        }
        search.next_round(now, jitter());
        None
    }
}

impl Search {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            lost_before: now,
            begun: now,
            rounds: 0,
            at: now,
            addrs_dialed: false,
            asked: Vec::new(),
            without_relay: None,
            stuck: false,
            pause: None,
            refusals: 0,
            was_reset: false,
            found: None,
        }
    }

    /// With the first relay that can be asked again, the search begins again: what failed before says nothing about the peer.
    fn handle_relays(&mut self, can_ask: bool, now: Instant) {
        if !can_ask {
            self.without_relay.get_or_insert(now);
        } else if self.without_relay.take().is_some() {
            self.begun = now;
            self.rounds = 0;
            self.at = self.at.min(now);
            self.asked.clear();
            self.stuck = false;
        }
    }

    fn next_round(&mut self, now: Instant, jitter: f64) {
        let (least, most) = BACKOFF_MAX;
        let longest = (now.saturating_duration_since(self.begun) / SHARE).clamp(least, most);
        self.rounds = self.rounds.saturating_add(1);
        let wait = full_jitter(BACKOFF_MIN, longest, self.rounds, jitter);
        self.at = now + wait.max(WAIT_MIN);
        self.asked.clear();
        self.addrs_dialed = false;
        self.stuck = false;
    }

    /// The pause that is to be reported, if it has changed.
    fn update_pause(&mut self, now: Instant) -> Option<Option<Pause>> {
        let waits = |since: &Instant| *since + NO_RELAY <= now;
        let pause = if self.stuck && self.without_relay.as_ref().is_some_and(waits) {
            Some(Pause::NoRelay)
        } else if !self.stuck && self.begun + SLOW <= now {
            Some(Pause::NoAnswer)
        } else if self.stuck {
            self.pause
        } else {
            None
        };
        (std::mem::replace(&mut self.pause, pause) != pause).then_some(pause)
    }

    /// When the search begins to count as paused.
    fn pauses_at(&self) -> Option<Instant> {
        let at = match self.stuck {
            true => self.without_relay? + NO_RELAY,
            false => self.begun + SLOW,
        };
        let next = match self.stuck {
            true => Pause::NoRelay,
            false => Pause::NoAnswer,
        };
        (self.pause != Some(next)).then_some(at)
    }
}

#[cfg(test)]
mod tests;
