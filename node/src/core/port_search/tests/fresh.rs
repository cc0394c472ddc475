//! Fresh sockets of both sides, after routers have taken the packets of a punch.

use p2pnode_protocol::port_search::{FRESH, Side};

use super::{nat::RELAY, *};

/// A side of which the relay sees two fresh sockets.
fn fresh(nat: &mut Nat) -> Side {
    let at = |port: u16, nat: &mut Nat| nat.out(port, RELAY[0], Duration::ZERO).port();
    Side {
        fresh: Some(std::array::from_fn(|nth| at(PUNCH + 1 + nth as u16, nat))),
        ..nat.side(51)
    }
}

/// Two sides of which routers have taken the packets of a punch. `arriving` are the openings that reach the other's NAT.
fn world(accepts: [bool; 2], moved: u16, arriving: &'static [Hop], way: Way, seed: u64) -> World {
    let kinds = [Kind::Stable(0), Kind::Stable(moved)];
    let mut nats = [1, 2].map(|last| Nat::new(last, kinds[usize::from(last) - 1], seed));
    let [one, other] = nats.each_mut().map(fresh);
    for (nat, accepts) in nats.iter_mut().zip(accepts) {
        nat.accepts = accepts;
    }
    nats[0].refuses(PUNCH, other.mapped);
    nats[1].refuses(PUNCH + moved, one.mapped);
    let mut world = World::of(nats, Instant::now());
    let key = Key::new(Nonce([1; 16]), Nonce([seed as u8; 16]));
    let search = |own, theirs, part, at| {
        let plan = Plan::new(own, theirs).unwrap();
        assert_eq!(plan.sockets, FRESH as u16);
        Some(Search::new(plan, key.clone(), part, seed, at))
    };
    world.searches = [
        search(&one, &other, Part::Asker, world.begun + way.delay * 2),
        search(&other, &one, Part::Answerer, world.begun),
    ];
    world.way = way;
    world.rng = fastrand::Rng::with_seed(seed);
    world.arriving = arriving;
    world
}

#[test]
fn where_routers_have_taken_the_packets_of_a_punch_fresh_sockets_get_through_with_a_handful() {
    let far: &[Hop] = &[];
    for (accepts, arriving) in [
        ([true, true], far),
        ([true, false], far),
        ([false, true], far),
        ([false, false], far),
        // One router between the two.
        ([true, true], &[Hop::Near]),
        ([true, false], &[Hop::Near]),
        ([false, true], &[Hop::Near]),
        // None.
        ([true, false], &[Hop::Near, Hop::Next]),
        ([false, true], &[Hop::Near, Hop::Next]),
    ] {
        for (way, moved) in [(NEAR, 0), (FAR, 9_000)] {
            for seed in 0..100 {
                let run = world(accepts, moved, arriving, way, seed).run();
                let case = format!("{accepts:?} {arriving:?} {seed}: {run:?}");
                assert!(run.is_found(), "{case}");
                assert!(run.took() < Duration::from_millis(1_500), "{case}");
                assert!(run.sent.iter().all(|sent| *sent <= 24), "{case}");
            }
        }
    }
}

#[test]
fn fresh_sockets_that_do_not_get_through_cost_16_packets_and_4_s() {
    let mut world = world([false, false], 0, &[], NEAR, 1);
    world.way.lost = 1_000;
    let run = world.run();
    assert_eq!(run.sent, [16, 16]);
    for (ended, at) in run.ended.map(Option::unwrap) {
        assert!(ended == Ended::NotFound && at < Duration::from_secs(4));
    }
}
