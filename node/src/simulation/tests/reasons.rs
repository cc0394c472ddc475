//! Each reason of the punch has a case that causes it and emits no other; the dial and the status give the same one.
//!
//! A reason without a case does not compile.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Transport};
use relay_node::core::Settings;

use super::{met, seconds};
use crate::{
    core::event::{NotDirect, Reached},
    punch::{
        CandidateOutcome, Reason, Role,
        address::Candidate,
        candidates::{Observation, Policy},
        machine::{Action, DialId, Event, HandshakeError, Introduced, Machine, Side, Timing},
    },
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

/// The reasons that the case of a reason emits.
fn caused(reason: Reason) -> BTreeSet<String> {
    let emitted = match reason {
        Reason::Disabled => dialed(|a, _| a.punches = false),
        Reason::RemoteUnsupported => dialed(|_, b| b.punches = false),
        Reason::RemoteSilent => dialed(|_, b| b.transports.clear()),
        Reason::NoCandidates => no_candidates(),
        Reason::NoRemoteCandidates => no_remote_candidates(),
        Reason::Timeout => cut(),
        Reason::SymmetricBoth => symmetric(),
        Reason::HandshakeFailed => handshake(|one| one.fail(HandshakeError::Broken)),
        Reason::HandshakeTimeout => handshake(|one| one.wait(seconds(10))),
        Reason::CircuitLost => {
            handshake(|one| one.machine.handle_closed(one.peer, one.circuit, one.now))
        }
        Reason::Superseded => superseded(),
        Reason::Filtered => answered(false, CandidateOutcome::Timeout),
        Reason::Refused => answered(true, CandidateOutcome::Refused),
        Reason::Unreachable => answered(true, CandidateOutcome::Unreachable),
        Reason::DialFailed => answered(true, CandidateOutcome::Failed),
    };
    emitted.iter().map(ToString::to_string).collect()
}

#[test]
fn each_reason_has_a_case_that_causes_it_and_no_other() {
    let of = |reason: Reason| (reason.to_string(), caused(reason));
    let wrong: Vec<_> = Reason::ALL.map(of).into_iter().collect();
    let is_wrong =
        |(reason, caused): &(String, BTreeSet<String>)| *caused != BTreeSet::from([reason.clone()]);
    let wrong: Vec<_> = wrong.into_iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What the attempts of a node with a peer, the dial and the status of the node say.
fn emitted(world: &World, node: usize, of: usize, dial: usize) -> Vec<Reason> {
    let attempts = world.attempts(node).iter();
    let mut reasons: Vec<Reason> = attempts
        .filter_map(|attempt| attempt.outcome.reason())
        .collect();
    let outcome = world.results(dial).unwrap()[0];
    assert_eq!(outcome.outcome, Reached::Relayed, "{outcome:?}");
    let Some(NotDirect::Punch(reason)) = outcome.reason else {
        panic!("{outcome:?}");
    };
    reasons.push(reason);
    let peer = world.peer(of);
    reasons.extend(world.node_of(node).state.gave_up_for(&peer));
    reasons
}

/// A node dials another one over a relay.
fn dialed(change: impl FnOnce(&mut NodeSetup, &mut NodeSetup)) -> Vec<Reason> {
    let mut world = World::new(1);
    let relay = world.relay(Settings::default());
    let setup = NodeSetup {
        introductions: false,
        ..NodeSetup::behind(Nat::PortRestricted, &[relay])
    };
    let (mut a, mut b) = (setup.clone(), setup);
    change(&mut a, &mut b);
    let [a, b] = [a, b].map(|setup| world.node(setup));
    world.until_reserved();
    let dial = world.dial(a, b);
    world.outcome(dial);
    world.run(seconds(5));
    emitted(&world, a, b, dial)
}

fn no_remote_candidates() -> Vec<Reason> {
    let mut world = World::new(1);
    let relay = world.relay(Settings::default());
    let setup = NodeSetup {
        introductions: false,
        ..NodeSetup::behind(Nat::PortRestricted, &[relay])
    };
    let b = world.node(setup.clone());
    let a = world.node(NodeSetup {
        transports: Vec::new(),
        ..setup
    });
    world.until_reserved();
    let dial = world.dial(a, b);
    world.outcome(dial);
    let attempts = world.attempts(b).iter();
    attempts
        .filter_map(|attempt| attempt.outcome.reason())
        .collect()
}

/// Two nodes that nobody introduces, behind these NATs, with two relays.
fn alone(nat: Nat) -> (World, [usize; 2]) {
    let mut world = World::new(4);
    let relays: [usize; 2] = world.relays(&Settings::default());
    let setup = NodeSetup {
        introductions: false,
        ..NodeSetup::behind(nat, &relays)
    };
    let nodes = [(); 2].map(|()| world.node(setup.clone()));
    world.until_reserved();
    (world, nodes)
}

fn cut() -> Vec<Reason> {
    let (mut world, [a, b]) = alone(Nat::PortRestricted);
    world.network().cut(a, b, true);
    let dial = world.dial(a, b);
    world.outcome(dial);
    emitted(&world, a, b, dial)
}

fn symmetric() -> Vec<Reason> {
    let (mut world, [a, b]) = alone(Nat::Symmetric);
    let dial = world.dial(a, b);
    world.outcome(dial);
    emitted(&world, a, b, dial)
}

/// The machine of one side, with the other side in the hands of the test.
pub(super) struct OneSide {
    pub(super) machine: Machine,
    pub(super) peer: PeerId,
    pub(super) circuit: ConnectionId,
    pub(super) now: Instant,
}

pub(super) fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

const OURS: &str = "/ip4/198.51.100.7/udp/40000/quic-v1";
pub(super) const THEIRS: &str = "/ip4/203.0.113.7/udp/5000/quic-v1";

impl OneSide {
    pub(super) fn new(permits: bool) -> Self {
        let mut one = Self::unobserved(permits);
        let observation = Observation {
            addr: addr(OURS),
            by: PeerId::random(),
            connection: ConnectionId::new_unchecked(1),
            transport: Transport::Quic,
            family: Family::Ip4,
        };
        one.machine.handle_observed(&observation, one.now);
        one
    }

    /// No relay has seen this side.
    fn unobserved(permits: bool) -> Self {
        let policy = Policy {
            transports: vec![Transport::Quic],
            permit: Arc::new(move |candidate| permits || *candidate == addr(OURS)),
            ..Policy::open()
        };
        Self {
            machine: Machine::new(PeerId::random(), true, policy, Timing::default(), 1),
            peer: PeerId::random(),
            circuit: ConnectionId::new_unchecked(2),
            now: Instant::now(),
        }
    }

    /// A circuit opens, of which this side is that end.
    pub(super) fn relayed(&mut self, side: Side) {
        self.relayed_with(side, 100_000);
    }

    /// The peer has sent so many bytes over it.
    pub(super) fn relayed_with(&mut self, side: Side, bytes: u64) {
        let (peer, circuit, now) = (self.peer, self.circuit, self.now);
        self.machine.handle_relayed(peer, circuit, side, None, now);
        self.machine.handle_received(peer, circuit, bytes, now);
    }

    fn fail(&mut self, error: HandshakeError) {
        let (peer, circuit, now) = (self.peer, self.circuit, self.now);
        self.machine
            .handle_handshake_failed(peer, circuit, Role::Initiator, error, now);
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
    }

    /// The peer answers with its one address, and the time has come to dial it.
    pub(super) fn answered(&mut self) -> Option<DialId> {
        let rtt = Duration::from_millis(20);
        let (peer, circuit, answer) = (self.peer, self.circuit, vec![addr(THEIRS)]);
        self.machine
            .handle_answer(peer, circuit, answer.into(), rtt, self.now, self.now);
        self.wait(rtt);
        let mut actions = std::iter::from_fn(|| self.machine.poll_action());
        actions.find_map(|action| {
            let Action::Dial { dial, .. } = action else {
                return None;
            };
            Some(dial)
        })
    }

    /// That became of the address.
    pub(super) fn failed(&mut self, dial: DialId, outcome: CandidateOutcome) {
        let failed = [(Candidate::parse(&addr(THEIRS)).unwrap(), outcome)];
        self.machine
            .handle_dial_failed(self.peer, dial, &failed, self.now);
    }

    /// The reason of the first attempt or series that has ended.
    fn first(&mut self) -> Vec<Reason> {
        let events = std::iter::from_fn(|| self.machine.poll_event());
        let mut reasons = events.filter_map(|event| match event {
            Event::Attempt(record) => record.outcome.reason(),
            Event::GaveUp { reason, .. } => Some(reason),
            Event::Direct { .. } | Event::Unvouched { .. } | Event::Listed { .. } => None,
        });
        reasons.next().into_iter().collect()
    }
}

/// This side has sent CONNECT.
fn handshake(then: impl FnOnce(&mut OneSide)) -> Vec<Reason> {
    let mut one = OneSide::new(true);
    one.relayed(Side::Listener);
    then(&mut one);
    one.first()
}

/// It is this side's part to begin a handshake, and no relay has seen it.
fn no_candidates() -> Vec<Reason> {
    let mut one = OneSide::unobserved(true);
    one.relayed(Side::Listener);
    one.wait(seconds(3));
    one.first()
}

/// A handshake comes while the punch of an introduction runs.
fn superseded() -> Vec<Reason> {
    let mut one = OneSide::new(true);
    let introduced = Introduced {
        relay: PeerId::random(),
        peer: one.peer,
        asked: true,
        addrs: vec![addr(THEIRS)],
        own_addrs: vec![addr(OURS)],
    };
    one.machine.handle_introduced(&introduced, one.now);
    one.relayed(Side::Dialer);
    let connect = vec![addr(THEIRS)].into();
    one.machine
        .handle_connect(one.peer, one.circuit, connect, one.now);
    one.first()
}

/// The handshake succeeds, and the one address of the peer may not be dialed, or has this outcome.
fn answered(permits: bool, outcome: CandidateOutcome) -> Vec<Reason> {
    let mut one = OneSide::new(permits);
    one.relayed(Side::Listener);
    if let Some(dial) = one.answered() {
        one.failed(dial, outcome);
    }
    one.wait(seconds(6));
    one.first()
}

#[test]
fn a_dial_after_the_direct_path_was_lost_gives_the_reason_of_the_punches_that_failed() {
    // Before, within and after the series that follows the loss, and while its peer rests.
    for wait in [3, 5, 9, 20, 45] {
        let (mut world, _, [a, b]) = met(7, Nat::PortRestricted, Nat::PortRestricted);
        assert!(world.are_direct(a, b));
        world.network().cut(a, b, true);
        world.run(seconds(wait));
        for _ in 0..4 {
            let dial = world.dial(a, b);
            let outcome = world.outcome(dial);
            assert_eq!(outcome.outcome, Reached::Relayed, "{outcome:?}");
            let expected = Some(NotDirect::Punch(Reason::Timeout));
            assert_eq!(outcome.reason, expected, "after {wait} s: {outcome:?}");
            let last = world.attempts(a).last().unwrap();
            assert_eq!(last.outcome.reason(), Some(Reason::Timeout));
        }
    }
}

#[test]
fn no_side_of_a_punch_that_succeeds_calls_its_circuit_lost() {
    let nats = [Nat::FullCone, Nat::PortRestricted, Nat::PortRewriting];
    for seed in 0..12 {
        for (near, far) in nats
            .into_iter()
            .flat_map(|near| nats.map(|far| (near, far)))
        {
            for introductions in [true, false] {
                let mut world = World::new(seed);
                let relay = world.relay(Settings::default());
                let [a, b] = [near, far].map(|nat| {
                    world.node(NodeSetup {
                        introductions,
                        ..NodeSetup::behind(nat, &[relay])
                    })
                });
                world.set_delay(b, Duration::from_millis(7 * seed));
                world.until_reserved();
                let dial = world.dial(a, b);
                assert_eq!(world.outcome(dial).outcome, Reached::Direct);
                world.run(seconds(5));
                let attempts = [a, b].map(|node| world.attempts(node)).concat();
                let lost = Some(Reason::CircuitLost);
                let is_lost = attempts
                    .iter()
                    .any(|attempt| attempt.outcome.reason() == lost);
                assert!(
                    !is_lost,
                    "{seed}, {near:?} x {far:?}, {introductions}: {attempts:?}"
                );
            }
        }
    }
}

#[test]
fn a_ninth_handshake_in_a_minute_waits_a_little_longer_than_the_peer_refuses_it() {
    let mut one = OneSide::new(true);
    one.relayed(Side::Listener);
    let (began, mut times) = (one.now, Vec::new());
    while times.len() < 9 {
        let mut actions = std::iter::from_fn(|| one.machine.poll_action());
        if actions.any(|action| matches!(action, Action::Connect { .. })) {
            times.push(one.now - began);
            one.fail(HandshakeError::Broken);
        }
        one.machine.handle_wanted(one.peer, one.now);
        one.wait(Duration::from_millis(100));
        assert!(one.now < began + seconds(90), "{times:?}");
    }
    assert!(times[7] < seconds(60), "{times:?}");
    let ninth = times[8] - times[0];
    assert!(seconds(61) <= ninth && ninth < seconds(62), "{times:?}");
}
