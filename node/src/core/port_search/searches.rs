//! With whom this node searches, and when.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::port_search::{Key, Nonce, Offer, Part, Ports, Side};

use super::{
    plan::{Begin, Plan},
    rests::{HOUR, RESTS, Rest},
    search::{Counts, Ended},
    side::{Sample, confidence, fresh, next_side, side},
};
use crate::core::search_report::{NoSearch, PortClass, SearchClass, SearchOutcome, SearchReport};

/// The most searches of a node in an hour, for all peers together: 36,000 packets.
const PER_HOUR: usize = 12;

/// The most of these that peers may ask for: the others are for what this node wants itself.
const ASKED_PER_HOUR: usize = 8;

/// A relay has seen the range within this, and the peer has answered within that.
pub(super) const SAMPLED: Duration = Duration::from_secs(5);
const ANSWERED: Duration = Duration::from_secs(8);

/// The same for a move, whose offer may have gone over a leg that has died of age and is not missed yet. The next try, 3 s after the
/// last, is not to find this one under way.
const MOVE_ANSWERED: Duration = Duration::from_millis(2_500);

/// The most peers of which a rest is remembered.
const PEERS: usize = 512;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Have this relay look at the range; [`Searches::handle_sample`] follows.
    Sample(PeerId),
    /// Have this relay look at so many ports that have not been used; [`Searches::handle_sample`] follows, too.
    SampleNext(PeerId, usize),
    /// Ask the relay to pass an offer on.
    Ask(Ask),
    /// Begin a search; [`Searches::handle_ended`] follows.
    Begin(Begin),
    /// End the search that runs, or the look at the range.
    Stop,
    /// A search is over.
    Report(SearchReport),
}

/// An offer to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) relay: PeerId,
    pub(crate) peer: PeerId,
    pub(crate) offer: Offer,
}

/// The searches of a node: one at a time.
#[derive(Debug)]
pub(crate) struct Searches {
    local: PeerId,
    pub(super) enabled: bool,
    rng: fastrand::Rng,
    pub(super) active: Option<Active>,
    rests: BTreeMap<PeerId, Rest>,
    begun: VecDeque<Instant>,
    /// Those between known ports, of a few packets.
    pub(super) small: VecDeque<Instant>,
    /// The last look at the range, by this relay.
    pub(super) sample: Option<(PeerId, Sample)>,
    pub(super) look: Look,
    pub(super) steps: VecDeque<Step>,
}

/// A look at the range before anybody wants a search.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The relay that looks, and until when.
    pub(super) by: Option<(PeerId, Instant)>,
    /// How many have failed in a row, and when the next one may begin.
    pub(super) failures: u32,
    pub(super) next: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Active {
    peer: PeerId,
    pub(super) relay: PeerId,
    /// Whether this node has made the first offer.
    asks: bool,
    /// Whether the peer is direct, and its path is to move before a mapping dies of age.
    pub(super) moves: bool,
    /// This side, if its offer waits for fresh ports.
    pub(super) easy: Option<Side>,
    began: Instant,
    pub(super) until: Instant,
    pub(super) phase: Phase,
    sides: Option<(Side, Side)>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// A relay looks at the range. The peer's offer, if it has made one.
    Sampling(Option<Offer>),
    /// The peer has this offer.
    Offered(Offer),
    /// A search runs.
    Running,
}

impl Searches {
    pub(crate) const fn new(local: PeerId, enabled: bool, rng: fastrand::Rng) -> Self {
        Self {
            local,
            enabled,
            rng,
            active: None,
            rests: BTreeMap::new(),
            begun: VecDeque::new(),
            small: VecDeque::new(),
            sample: None,
            look: Look {
                by: None,
                failures: 0,
                next: None,
            },
            steps: VecDeque::new(),
        }
    }

    pub(crate) fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let rests = self.rests.values().filter(|rest| rest.relay.is_some());
        let rests = rests.map(|rest| rest.until);
        let look = self.look.by.map(|(_, until)| until).or(self.look.next);
        match &self.active {
            Some(active) => Some(active.until),
            None => rests.chain(look).min(),
        }
    }

    /// Ends what takes too long. Returns the peers whose rest is over and that this node wants: each is to be wanted again or
    /// forgotten.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<PeerId> {
        if let Some(active) = &self.active {
            if now < active.until {
                return Vec::new();
            }
            let outcome = match active.phase {
                Phase::Sampling(_) => SearchOutcome::NoSample,
                Phase::Offered(_) => SearchOutcome::Unanswered,
                // Its task has ended it before.
                Phase::Running => SearchOutcome::NotFound,
            };
            self.end(outcome, None, Counts::default(), now);
            return Vec::new();
        }
        self.look.next.take_if(|next| *next <= now);
        if self.look.by.is_some_and(|(_, until)| until <= now) {
            self.steps.push_back(Step::Stop);
            self.looked(None, now);
        }
        let due = self.rests.iter_mut().filter_map(|(peer, rest)| {
            let is_due = rest.until <= now && rest.relay.take().is_some();
            is_due.then_some(*peer)
        });
        due.collect()
    }

    /// The peer with which a search is being made.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.active.as_ref().map(|active| active.peer)
    }

    /// Whether a search with this peer is being made.
    pub(crate) fn is_with(&self, peer: &PeerId) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.peer == *peer)
    }

    /// A peer is to be direct, and a punch has failed.
    pub(crate) fn handle_wanted(&mut self, peer: PeerId, relay: PeerId, now: Instant) {
        if !self.enabled || self.is_with(&peer) {
            return;
        }
        if let Some(rest) = self.rests.get_mut(&peer)
            && rest.until > now
        {
            rest.relay = Some(relay);
            return;
        }
        if self.active.is_some() || !self.has_budget(PER_HOUR, now) {
            let rung = self.rests.get(&peer).map_or(0, |rest| rest.rung);
            let (until, relay) = (now + RESTS[0], Some(relay));
            self.rests.insert(peer, Rest { until, rung, relay });
            return;
        }
        self.activate(peer, relay, Phase::Sampling(None), false, now);
        self.sample(relay, now);
    }

    /// A peer offers a search over this relay, or answers an offer. `moves`: the peer is direct.
    pub(crate) fn handle_offer(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        offer: Offer,
        moves: bool,
        now: Instant,
    ) {
        if !self.enabled {
            return;
        }
        if let Some(nonce) = offer.answers {
            return self.handle_answer(peer, nonce, offer, now);
        }
        if let Some(active) = &self.active {
            let is_running = matches!(active.phase, Phase::Running);
            // Of two offers that cross, that of the smaller id counts.
            if active.peer != peer || !active.asks || is_running || self.local < peer {
                return;
            }
            self.active = None;
            self.stop();
        }
        // The other side's clock may be a little ahead.
        let rests =
            |rest: &Rest| now + (RESTS[rest.rung.saturating_sub(1).min(2)] / 4) < rest.until;
        let may = match moves {
            true => self.has_packets(now),
            false => {
                !self.rests.get(&peer).is_some_and(rests) && self.has_budget(ASKED_PER_HOUR, now)
            }
        };
        if !may {
            return;
        }
        self.activate(peer, relay, Phase::Sampling(Some(offer)), moves, now);
        match moves {
            true => self.sample_next(relay, 1),
            false => self.sample(relay, now),
        }
    }

    /// The relay does not pass the offer on.
    pub(crate) fn handle_refused(&mut self, peer: PeerId, now: Instant) {
        let is_offered =
            |active: &Active| active.peer == peer && matches!(active.phase, Phase::Offered(_));
        if self.active.as_ref().is_some_and(is_offered) {
            self.end(SearchOutcome::Unanswered, None, Counts::default(), now);
        }
    }

    /// What a relay has seen of the range.
    pub(crate) fn handle_sample(&mut self, sample: Option<Sample>, now: Instant) {
        let is_wanted = |active: &Active| matches!(active.phase, Phase::Sampling(_));
        let Some(relay) = self.active.as_ref().filter(|active| is_wanted(active)) else {
            return self.looked(sample, now);
        };
        if relay.moves {
            return match sample.as_ref().and_then(next_side) {
                Some(side) => self.offer(side, now),
                None => self.end(SearchOutcome::NoSample, None, Counts::default(), now),
            };
        }
        if let Some(easy) = relay.easy {
            let fresh = sample.as_ref().and_then(|sample| fresh(sample, easy));
            return self.offer(Side { fresh, ..easy }, now);
        }
        let relay = relay.relay;
        self.look = Look::default();
        let Some(side) = sample.as_ref().and_then(side) else {
            return self.end(SearchOutcome::NoSample, None, Counts::default(), now);
        };
        self.sample = sample.map(|sample| (relay, sample));
        self.offer(side, now);
    }

    /// A peer is direct, or gone.
    pub(crate) fn handle_needless(&mut self, peer: &PeerId, now: Instant) {
        if let Some(rest) = self.rests.get_mut(peer) {
            rest.relay = None;
        }
        if self.is_with(peer) {
            self.stop();
            self.end(SearchOutcome::Needless, None, Counts::default(), now);
        }
    }

    /// The search of [`Step::Begin`] is over.
    pub(crate) fn handle_ended(
        &mut self,
        peer: PeerId,
        ended: Ended,
        counts: Counts,
        now: Instant,
    ) {
        if !self.is_with(&peer) {
            return;
        }
        let outcome = match ended {
            Ended::Found { .. } => SearchOutcome::Found,
            Ended::NotFound => SearchOutcome::NotFound,
        };
        self.end(outcome, None, counts, now);
    }

    fn has_budget(&mut self, most: usize, now: Instant) -> bool {
        while self.begun.front().is_some_and(|at| *at + HOUR <= now) {
            self.begun.pop_front();
        }
        self.begun.len() < most
    }

    pub(super) fn activate(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        phase: Phase,
        moves: bool,
        now: Instant,
    ) {
        self.active = Some(Active {
            peer,
            relay,
            asks: matches!(phase, Phase::Sampling(None)),
            moves,
            easy: None,
            began: now,
            until: now + SAMPLED,
            phase,
            sides: None,
        });
    }

    fn sample(&mut self, relay: PeerId, now: Instant) {
        let known = self.sample.as_ref().filter(|(by, _)| *by == relay);
        let side = known.and_then(|(_, sample)| side(sample));
        // Where a sequential NAT is changes.
        let side = side.filter(|side| !matches!(side.ports, Some(Ports::Sequential { .. })));
        match side {
            Some(side) => self.offer(side, now),
            // The look that goes on serves.
            None if self.look.by.is_some_and(|(by, _)| by == relay) => {}
            None => {
                self.look.by = None;
                self.steps.push_back(Step::Sample(relay));
            }
        }
    }

    /// Offers, or answers and begins.
    fn offer(&mut self, side: Side, now: Instant) {
        if self.freshens(side, now) {
            return;
        }
        let nonce = Nonce(std::array::from_fn(|_| self.rng.u8(..)));
        let Some(active) = &mut self.active else {
            return;
        };
        let Phase::Sampling(theirs) = active.phase else {
            return;
        };
        let offer = Offer {
            nonce,
            answers: theirs.map(|theirs| theirs.nonce),
            side,
        };
        active.until = now
            + match active.moves {
                true => MOVE_ANSWERED,
                false => ANSWERED,
            };
        active.phase = Phase::Offered(offer);
        self.steps.push_back(Step::Ask(Ask {
            relay: active.relay,
            peer: active.peer,
            offer,
        }));
        if let Some(theirs) = theirs {
            let key = Key::new(theirs.nonce, nonce);
            self.begin(side, theirs.side, key, Part::Answerer, now);
        }
    }

    fn handle_answer(&mut self, peer: PeerId, nonce: Nonce, answer: Offer, now: Instant) {
        let Some(Active {
            phase: Phase::Offered(offer),
            ..
        }) = &self.active
        else {
            return;
        };
        let offer = *offer;
        if !self.is_with(&peer) || offer.nonce != nonce || offer.answers.is_some() {
            return;
        }
        let key = Key::new(nonce, answer.nonce);
        self.begin(offer.side, answer.side, key, Part::Asker, now);
    }

    fn begin(&mut self, own: Side, theirs: Side, key: Key, part: Part, now: Instant) {
        let Some(active) = &mut self.active else {
            return;
        };
        active.sides = Some((own, theirs));
        let moves = active.moves;
        let plan = match Plan::new(&own, &theirs) {
            Ok(plan) if !moves || plan.is_of_pairs() => plan,
            Ok(_) => {
                let why = Some(NoSearch::RandomBoth);
                return self.end(SearchOutcome::NotTried, why, Counts::default(), now);
            }
            Err(why) => {
                return self.end(SearchOutcome::NotTried, Some(why), Counts::default(), now);
            }
        };
        active.phase = Phase::Running;
        // Its task ends it before.
        active.until = now + plan.lasts * 2;
        match plan.is_of_pairs() {
            true => self.small.push_back(now),
            false => self.begun.push_back(now),
        }
        let begin = Begin {
            peer: active.peer,
            own,
            plan,
            key,
            part,
            seed: self.rng.u64(..),
            moves,
        };
        self.steps.push_back(Step::Begin(begin));
    }

    fn end(
        &mut self,
        outcome: SearchOutcome,
        reason: Option<NoSearch>,
        counts: Counts,
        now: Instant,
    ) {
        let Some(active) = self.active.take() else {
            return;
        };
        let peer = active.peer;
        let rung = self.rests.get(&peer).map_or(0, |rest| rest.rung);
        let (rest, next) = Rest::after(outcome, reason, rung);
        let again = next > 0 && active.asks;
        let confidence = self.sample.as_ref().map(|(_, sample)| confidence(sample));
        if outcome == SearchOutcome::NotFound && active.easy.is_none() && !active.moves {
            self.sample = None;
        }
        self.rests.retain(|_, rest| rest.until + HOUR > now);
        if self.rests.len() < PEERS && !active.moves {
            let relay = again.then_some(active.relay);
            let (until, rung) = (now + rest, next);
            self.rests.insert(peer, Rest { until, rung, relay });
        }
        self.steps.push_back(Step::Report(SearchReport {
            peer,
            class: active.sides.map(|(own, theirs)| match active.moves {
                // The block of an offer is the one port to which the path moves.
                true => SearchClass {
                    here: PortClass::Stable,
                    there: PortClass::Stable,
                    confidence,
                },
                false => SearchClass {
                    here: (&own).into(),
                    there: (&theirs).into(),
                    confidence,
                },
            }),
            took: now - active.began,
            sent: counts.sent,
            received: counts.received,
            ignored: counts.ignored,
            outcome,
            moves: active.moves,
            reason,
        }));
    }
}
