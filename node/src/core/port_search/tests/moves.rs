//! A path that moves before its mapping dies of age, for an hour.

use libp2p::PeerId;
use p2pnode_protocol::port_search::Offer;

use super::{
    nat::{PUNCH, RELAY},
    *,
};
use crate::{
    config::Rotate,
    core::port_search::{
        Aging, SearchOutcome,
        plan::Begin,
        searches::{Searches, Step},
    },
};

const LIFETIME: Duration = Duration::from_secs(60);

/// The path between A and B: the inside and outside port of each end, and since when it is up.
#[derive(Clone, Copy)]
struct Way {
    ports: [u16; 2],
    outside: [u16; 2],
    since: Duration,
}

struct Hour {
    began: Instant,
    relay: PeerId,
    ids: [PeerId; 2],
    nats: [Nat; 2],
    searches: [Searches; 2],
    aging: [Aging; 2],
    path: Way,
    next: [u16; 2],
    broken: Vec<u64>,
    moved: usize,
    sent: [u32; 2],
}

impl Hour {
    /// `ages`: whose NAT drops mappings by age.
    fn new(rotate: Rotate, ages: [bool; 2]) -> Self {
        let mut ids = [PeerId::random(), PeerId::random()];
        ids.sort();
        let mut nats = [
            Nat::new(1, Kind::Stable(3_000), 1),
            Nat::new(2, Kind::Stable(0), 2),
        ];
        for (nat, ages) in nats.iter_mut().zip(ages) {
            nat.ages = ages.then_some(LIFETIME);
        }
        let searches =
            [0, 1].map(|at| Searches::new(ids[at], true, fastrand::Rng::with_seed(at as u64)));
        Self {
            began: Instant::now(),
            relay: PeerId::random(),
            ids,
            nats,
            searches,
            aging: [Aging::new(rotate), Aging::new(rotate)],
            path: Way {
                ports: [PUNCH; 2],
                outside: [0; 2],
                since: Duration::ZERO,
            },
            next: [PUNCH; 2],
            broken: Vec::new(),
            moved: 0,
            sent: [0, 0],
        }
    }

    /// Where packets over the path come out of each NAT.
    fn outside(&mut self, at: Duration) -> [u16; 2] {
        let ips = self.nats.each_ref().map(|nat| nat.ip);
        let path = self.path;
        [0, 1].map(|who| {
            let to = SocketAddr::new(ips[1 - who], path.outside[1 - who]);
            self.nats[who].out(path.ports[who], to, at).port()
        })
    }

    /// A packet over the path, each way. It breaks if a mapping is another one than before, and is punched again from the punch
    /// sockets.
    fn use_path(&mut self, at: Duration) {
        if self.outside(at) == self.path.outside {
            return;
        }
        if self.path.outside != [0; 2] {
            self.broken.push(at.as_secs());
        }
        self.path.ports = [PUNCH; 2];
        self.path.outside = self.outside(at);
        self.path.outside = self.outside(at);
        self.path.since = at;
    }

    fn second(&mut self, at: Duration) {
        let now = self.began + at;
        self.use_path(at);
        for who in [0, 1] {
            let seen = self.nats[who].out(PUNCH, RELAY[0], at);
            self.aging[who].handle_seen(seen, now);
            let searches = &mut self.searches[who];
            searches.handle_seen(self.relay, seen);
            searches.handle_timeout(now);
            if searches.wants_look() {
                searches.handle_relay(self.relay, now);
            }
            let is_punch_socket = self.path.ports[who] == PUNCH;
            let leave = self.aging[who].leave_at(self.began + self.path.since, is_punch_socket);
            if leave.is_some_and(|leave| leave <= now) {
                searches.handle_aged(self.ids[1 - who], self.relay, now);
            }
        }
        if let [Some(a), Some(b)] = self.settle(at) {
            self.search([a, b], at);
        }
    }

    fn settle(&mut self, at: Duration) -> [Option<Begin>; 2] {
        let now = self.began + at;
        let mut begun = [None, None];
        // A look at the range is over when nothing else is to be done, if it was not stopped.
        let mut looks = [None, None];
        loop {
            let step = [0, 1].into_iter().find_map(|who| {
                let step = self.searches[who].poll_step()?;
                Some((who, step))
            });
            let Some((who, step)) = step else {
                let who = looks.iter().position(Option::is_some);
                let Some((who, is_next)) = who.and_then(|who| Some((who, looks[who].take()?)))
                else {
                    return begun;
                };
                let sample = self.look(who, is_next, at);
                self.searches[who].handle_sample(Some(sample), now);
                continue;
            };
            match step {
                Step::Sample(_) => looks[who] = Some(false),
                Step::SampleNext(..) => looks[who] = Some(true),
                Step::Stop => looks[who] = None,
                Step::Ask(ask) => self.pass_on(who, ask.offer, now),
                Step::Begin(begin) => begun[who] = Some(begin),
                Step::Report(report) => {
                    assert_eq!(report.outcome, SearchOutcome::Found);
                    assert!(report.moves);
                }
            }
        }
    }

    /// What the relay sees of the punch socket, and of the next port if that is asked for.
    fn look(&mut self, who: usize, is_next: bool, at: Duration) -> Sample {
        let punch = RELAY.map(|relay| self.nats[who].out(PUNCH, relay, at));
        if !is_next {
            return sample(punch.to_vec(), Vec::new());
        }
        let port = PUNCH + 1 + (self.next[who] - PUNCH) % 50;
        self.next[who] = port;
        let next = self.nats[who].out(port, RELAY[0], at);
        sample(vec![punch[0]], vec![(port, next.port())])
    }

    fn pass_on(&mut self, from: usize, offer: Offer, now: Instant) {
        let (ids, relay) = (self.ids, self.relay);
        self.searches[1 - from].handle_offer(ids[from], relay, offer, true, now);
    }

    fn search(&mut self, begun: [Begin; 2], at: Duration) {
        let now = self.began + at;
        let nats = std::mem::replace(
            &mut self.nats,
            [Nat::new(8, Kind::Random, 0), Nat::new(9, Kind::Random, 0)],
        );
        let mut world = World::of(nats, self.began);
        // The kept port is the only one that is opened.
        world.opens_at = self.next;
        for (who, begin) in begun.iter().enumerate() {
            assert!(begin.moves);
            let (plan, key) = (begin.plan.clone(), begin.key.clone());
            world.searches[who] = Some(Search::new(plan, key, begin.part, begin.seed, now));
        }
        world.drive();
        let ended = world.run.ended;
        for who in [0, 1] {
            self.sent[who] += world.run.sent[who];
            let (ended, _) = ended[who].unwrap();
            let counts = world.searches[who].as_ref().unwrap().counts();
            let peer = self.ids[1 - who];
            self.searches[who].handle_ended(peer, ended, counts, now);
        }
        self.nats = world.nats;
        let found = ended.map(|ended| match ended {
            Some((Ended::Found { remote, .. }, end)) => (remote.port(), end),
            other => panic!("{other:?}"),
        });
        let [(theirs, end), (ours, _)] = found;
        assert!(end - at < Duration::from_secs(1), "{:?}", end - at);
        self.path = Way {
            ports: self.next,
            outside: [ours, theirs],
            since: end,
        };
        self.moved += 1;
        self.settle(at);
    }
}

fn sample(punch: Vec<SocketAddr>, ports: Vec<(u16, u16)>) -> Sample {
    Sample {
        punch,
        ports,
        free: 48,
    }
}

fn hour(rotate: Rotate, ages: [bool; 2]) -> Hour {
    let mut hour = Hour::new(rotate, ages);
    for second in 0..3_600 {
        hour.second(Duration::from_secs(second));
    }
    hour
}

#[test]
fn in_an_hour_behind_nats_that_drop_mappings_after_60_s_no_path_breaks() {
    for ages in [[true, false], [false, true], [true, true]] {
        let known = hour(Rotate::After(LIFETIME), ages);
        assert_eq!(known.broken, [0; 0], "{ages:?}");
        assert!((110..=121).contains(&known.moved), "{} moves", known.moved);
        let most = known.sent.into_iter().max().unwrap();
        assert!(most <= 8 * 121, "{most} packets");
        let measured = hour(Rotate::Auto, ages);
        assert_eq!(measured.broken, [60], "the first end shows the lifetime");
        assert_eq!(hour(Rotate::Off, ages).broken.len(), 59);
    }
}
