//! With whom a node searches, and when.

use libp2p::PeerId;
use p2pnode_protocol::port_search::Part;

use super::*;
use crate::core::port_search::{
    SearchOutcome,
    search::Counts,
    searches::{Ask, Searches, Step},
};

/// Who has begun in which part, and whose search has ended how.
type Begun = Vec<(usize, Part)>;
type Reported = Vec<(usize, SearchOutcome)>;

/// A node.
struct Node {
    id: PeerId,
    searches: Searches,
    sample: Sample,
    /// Whether a relay sees fresh ports of it.
    has_fresh: bool,
}

/// Two of them, the one with the smaller id first, and a relay.
struct Both {
    nodes: [Node; 2],
    relay: PeerId,
    now: Instant,
}

fn sample(last: u8, is_hard: bool) -> Sample {
    let at = |port| SocketAddr::from(([203, 0, 113, last], port));
    Sample {
        punch: vec![at(7), at(if is_hard { 9_000 } else { 7 })],
        ports: (0..50)
            .map(|nth| (PUNCH + nth, 1_024 + nth * 1_234))
            .collect(),
        free: 48,
    }
}

impl Both {
    fn new(hard: [bool; 2]) -> Self {
        let mut ids = [PeerId::random(), PeerId::random()];
        ids.sort();
        let node = |at: usize| Node {
            id: ids[at],
            searches: Searches::new(ids[at], true, fastrand::Rng::with_seed(at as u64)),
            sample: sample(at as u8 + 1, hard[at]),
            has_fresh: true,
        };
        Self {
            nodes: [node(0), node(1)],
            relay: PeerId::random(),
            now: Instant::now(),
        }
    }

    fn want(&mut self, who: usize) {
        let peer = self.nodes[1 - who].id;
        self.nodes[who]
            .searches
            .handle_wanted(peer, self.relay, self.now);
    }

    /// Carries everything between the two, and returns what begins and what is reported.
    fn settle(&mut self) -> (Begun, Reported) {
        let (mut begun, mut reported) = (Vec::new(), Vec::new());
        let mut steps: Vec<(usize, Step)>;
        loop {
            steps = Vec::new();
            for (who, node) in self.nodes.iter_mut().enumerate() {
                steps.extend(
                    std::iter::from_fn(|| node.searches.poll_step()).map(|step| (who, step)),
                );
            }
            if steps.is_empty() {
                return (begun, reported);
            }
            for (who, step) in steps {
                let now = self.now;
                match step {
                    Step::Sample(_) => {
                        let sample = self.nodes[who].sample.clone();
                        self.nodes[who].searches.handle_sample(Some(sample), now);
                    }
                    Step::SampleNext(_, count) => {
                        let node = &mut self.nodes[who];
                        let mut sample = node.sample.clone();
                        sample.ports.truncate(count);
                        let sample = Some(sample).filter(|_| node.has_fresh);
                        node.searches.handle_sample(sample, now);
                    }
                    Step::Ask(Ask { relay, peer, offer }) => {
                        let from = self.nodes[who].id;
                        let to = &mut self.nodes[1 - who];
                        assert_eq!(to.id, peer);
                        to.searches.handle_offer(from, relay, offer, false, now);
                    }
                    Step::Begin(begin) => begun.push((who, begin.part)),
                    Step::Report(report) => reported.push((who, report.outcome)),
                    Step::Stop => {}
                }
            }
        }
    }

    fn end(&mut self, ended: Ended) {
        for who in [0, 1] {
            let peer = self.nodes[1 - who].id;
            let node = &mut self.nodes[who].searches;
            node.handle_ended(peer, ended, Counts::default(), self.now);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// What each wants again by now.
    fn due(&mut self) -> [usize; 2] {
        let now = self.now;
        [0, 1].map(|who| self.nodes[who].searches.handle_timeout(now).len())
    }
}

#[test]
fn one_offer_and_its_answer_begin_the_search_on_both_sides() {
    let mut both = Both::new([true, false]);
    both.want(1);
    let (mut begun, _) = both.settle();
    begun.sort_by_key(|(who, _)| *who);
    assert_eq!(begun, [(0, Part::Answerer), (1, Part::Asker)]);
}

#[test]
fn of_two_sides_that_are_not_symmetric_both_name_fresh_ports_and_rest_after_them() {
    let mut both = Both::new([false, false]);
    let found = Ended::Found {
        socket: Socket::Opened(0),
        remote: nat::RELAY[0],
    };
    for ended in [found, Ended::NotFound] {
        both.want(0);
        let (mut begun, reported) = both.settle();
        begun.sort_by_key(|(who, _)| *who);
        assert_eq!(begun, [(0, Part::Asker), (1, Part::Answerer)]);
        assert_eq!(reported, []);
        both.end(ended);
        both.settle();
    }
    both.pass(59);
    assert_eq!(both.due(), [0, 0]);
    both.pass(1);
    assert_eq!(both.due(), [1, 0]);
}

#[test]
fn with_a_peer_that_names_no_fresh_ports_nothing_is_sent() {
    for old in [0, 1] {
        let mut both = Both::new([false, false]);
        both.nodes[old].has_fresh = false;
        both.want(0);
        let not_tried = |who| (who, SearchOutcome::NotTried);
        let (begun, mut reported) = both.settle();
        reported.sort_by_key(|(who, _)| *who);
        assert_eq!(
            (begun, reported),
            (vec![], vec![not_tried(0), not_tried(1)])
        );
    }
}

#[test]
fn of_two_offers_that_cross_one_counts() {
    let mut both = Both::new([true, false]);
    both.want(0);
    both.want(1);
    let (mut begun, _) = both.settle();
    begun.sort_by_key(|(who, _)| *who);
    assert_eq!(begun, [(0, Part::Asker), (1, Part::Answerer)]);
}

#[test]
fn after_a_series_in_vain_the_side_that_asked_asks_again_after_60_s_10_min_and_1_h() {
    let mut both = Both::new([true, false]);
    both.want(0);
    for rest in [60, 600, 3_600, 3_600] {
        assert_eq!(both.settle().0.len(), 2, "before a rest of {rest} s");
        both.end(Ended::NotFound);
        both.settle();
        both.pass(rest - 1);
        assert_eq!(both.due(), [0, 0]);
        both.want(0);
        assert_eq!(both.settle().0, [], "it rests");
        both.pass(1);
        assert_eq!(both.due(), [1, 0], "the other side waits");
        both.want(0);
    }
}

#[test]
fn a_peer_that_asks_all_day_gets_what_its_rests_allow() {
    let mut both = Both::new([false, true]);
    let mut searches = 0;
    for _ in 0..24 * 60 {
        // It forgets its own rests.
        both.nodes[0].searches = Searches::new(both.nodes[0].id, true, fastrand::Rng::with_seed(1));
        both.want(0);
        let (begun, _) = both.settle();
        searches += begun.iter().filter(|(who, _)| *who == 1).count();
        both.end(Ended::NotFound);
        both.settle();
        both.pass(60);
    }
    assert!((20..=35).contains(&searches), "{searches} in a day");
}

#[test]
fn peers_without_end_get_8_searches_an_hour_and_leave_the_others_to_this_node() {
    let mut both = Both::new([false, true]);
    let mut searches = 0;
    let newcomer = |both: &mut Both| {
        let id = PeerId::random();
        both.nodes[0].id = id;
        both.nodes[0].searches = Searches::new(id, true, fastrand::Rng::with_seed(1));
    };
    for _ in 0..100 {
        newcomer(&mut both);
        both.want(0);
        let (begun, _) = both.settle();
        searches += begun.iter().filter(|(who, _)| *who == 1).count();
        both.end(Ended::NotFound);
        both.settle();
        both.pass(30);
    }
    assert_eq!(searches, 8);
    newcomer(&mut both);
    both.want(1);
    let (begun, _) = both.settle();
    assert!(begun.iter().any(|(who, _)| *who == 1), "this node's own");
}

#[test]
fn one_search_at_a_time_and_a_second_one_waits() {
    let mut both = Both::new([true, false]);
    both.want(0);
    both.settle();
    let other = PeerId::random();
    both.nodes[0]
        .searches
        .handle_wanted(other, both.relay, both.now);
    assert_eq!(both.settle().0, []);
    both.end(Ended::NotFound);
    both.settle();
    both.pass(61);
    assert_eq!(both.due()[0], 2, "both are due");
}

#[test]
fn what_cannot_be_found_is_reported_on_both_sides_without_a_search() {
    let mut both = Both::new([true, true]);
    both.want(1);
    let (begun, mut reported) = both.settle();
    reported.sort_by_key(|(who, _)| *who);
    assert_eq!(begun, []);
    assert_eq!(
        reported,
        [(0, SearchOutcome::NotTried), (1, SearchOutcome::NotTried)]
    );
}

#[test]
fn without_an_answer_and_without_a_sample_it_ends() {
    for (samples, outcome) in [
        (true, SearchOutcome::Unanswered),
        (false, SearchOutcome::NoSample),
    ] {
        let mut both = Both::new([true, false]);
        both.want(0);
        let relay = both.relay;
        let node = &mut both.nodes[0];
        assert_eq!(node.searches.poll_step(), Some(Step::Sample(relay)));
        if samples {
            node.searches
                .handle_sample(Some(node.sample.clone()), both.now);
            assert!(matches!(node.searches.poll_step(), Some(Step::Ask(_))));
        }
        both.pass(8);
        assert_eq!(both.due(), [0, 0]);
        let (_, reported) = both.settle();
        assert_eq!(reported, [(0, outcome)]);
    }
}

#[test]
fn the_range_is_looked_at_once_before_anybody_wants_a_search() {
    let mut both = Both::new([true, false]);
    let (relay, now) = (both.relay, both.now);
    let node = &mut both.nodes[0].searches;
    assert!(node.wants_look());
    node.handle_relay(relay, now);
    assert!(!node.wants_look() && node.poll_timeout().is_some());
    both.settle();
    let node = &mut both.nodes[0].searches;
    assert!(!node.wants_look() && node.poll_timeout().is_none());
    node.handle_wanted(both.nodes[1].id, relay, now);
    let node = &mut both.nodes[0].searches;
    assert!(matches!(node.poll_step(), Some(Step::Ask(_))), "no look");
}

#[test]
fn a_search_waits_for_the_look_that_goes_on() {
    let mut both = Both::new([true, false]);
    let (relay, now) = (both.relay, both.now);
    both.nodes[0].searches.handle_relay(relay, now);
    both.want(0);
    let node = &mut both.nodes[0];
    assert_eq!(node.searches.poll_step(), Some(Step::Sample(relay)));
    assert_eq!(node.searches.poll_step(), None);
    let sample = Some(node.sample.clone());
    node.searches.handle_sample(sample, now);
    assert_eq!(both.settle().0.len(), 2);
}

#[test]
fn another_address_here_has_the_range_looked_at_again_and_a_failed_look_rests() {
    let mut both = Both::new([true, false]);
    let (relay, mut now) = (both.relay, both.now);
    both.nodes[0].searches.handle_relay(relay, now);
    both.settle();
    let node = &mut both.nodes[0].searches;
    let at = |last, port| SocketAddr::from(([203, 0, 113, last], port));
    node.handle_seen(relay, at(1, 5_555));
    node.handle_seen(PeerId::random(), at(9, 7));
    assert!(!node.wants_look(), "a hard side has many ports");
    node.handle_seen(relay, at(9, 7));
    assert!(node.wants_look());
    for rest in [30, 60, 120] {
        node.handle_relay(relay, now);
        node.handle_sample(None, now);
        now += Duration::from_secs(rest - 1);
        node.handle_timeout(now);
        assert!(!node.wants_look(), "{rest}");
        now += Duration::from_secs(1);
        assert_eq!(node.poll_timeout(), Some(now));
        node.handle_timeout(now);
        assert!(node.wants_look(), "{rest}");
    }
    node.handle_network_changed();
    assert!(node.wants_look());
    while node.poll_step().is_some() {}
    node.handle_relay(relay, now);
    node.handle_timeout(now + Duration::from_secs(5));
    assert_eq!(node.poll_step(), Some(Step::Sample(relay)));
    assert_eq!(node.poll_step(), Some(Step::Stop));
}

#[test]
fn a_peer_that_becomes_direct_ends_the_search() {
    let mut both = Both::new([true, false]);
    both.want(0);
    both.settle();
    let peer = both.nodes[1].id;
    both.nodes[0].searches.handle_needless(&peer, both.now);
    let node = &mut both.nodes[0].searches;
    assert_eq!(node.poll_step(), Some(Step::Stop));
    assert!(matches!(node.poll_step(), Some(Step::Report(_))));
    both.pass(100);
    assert_eq!(both.due()[0], 0);
}
