//! What ports wait for.

use super::*;

fn waits(world: &mut World, time: Duration) -> Vec<Wait> {
    world.run(time);
    std::iter::from_fn(|| world.mappings.poll_wait())
        .map(|(inside, wait)| {
            assert_eq!(inside, QUIC);
            wait
        })
        .collect()
}

#[test]
fn what_keeps_a_port_from_being_mapped_is_reported_once() {
    let mut world = World::new(&[Method::Pcp], &[]);
    assert_eq!(waits(&mut world, SECOND * 5), [Wait::Router]);
    assert_eq!(waits(&mut world, SECOND * 2000), []);
    world.mappings.handle_gateway(None, world.now);
    for _ in 0..3 {
        world.mappings.handle_missing(Wait::Route);
    }
    assert_eq!(waits(&mut world, SECOND), [Wait::Route]);
    // A relay is looked for by the port that is held.
    let mut world = World::new(&Method::ALL, &[]);
    assert_eq!(waits(&mut world, SECOND * 30), [Wait::Relay, Wait::Router]);
    world.seen = Some("203.0.113.9:51000".parse().unwrap());
    world.has_relay = false;
    let unchecked = Wait::Check(Unchecked::NotConnected);
    assert_eq!(waits(&mut world, SECOND * 100), [unchecked]);
    world.has_relay = true;
    let open = Wait::Open(Method::Hold);
    assert_eq!(waits(&mut world, SECOND * 30), [open]);
}

#[test]
fn a_relay_that_is_late_by_a_moment_is_not_reported_and_progress_makes_a_reason_new() {
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.has_relay = false;
    assert_eq!(waits(&mut world, SECOND), []);
    world.has_relay = true;
    assert_eq!(waits(&mut world, SECOND * 10), []);
    assert_eq!(world.verified(), [world.granted()]);
    // What was proved stays: nothing is waited for.
    world.has_relay = false;
    assert_eq!(waits(&mut world, SECOND * 100), []);
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.router.drops = true;
    // It is asked again after a minute, and drops again.
    for seconds in [30, 60] {
        let waits = waits(&mut world, SECOND * seconds);
        assert_eq!(waits, [Wait::Open(Method::Pcp)]);
    }
}

#[test]
fn each_reason_names_a_remedy() {
    let unchecked = [
        Unchecked::NotConnected,
        Unchecked::Unsupported,
        Unchecked::NoAnswer,
        Unchecked::Hidden,
        Unchecked::Refused,
    ];
    let others = [Wait::Route, Wait::Port, Wait::Router, Wait::Relay];
    let open = Method::ALL.map(Wait::Open);
    let waits = others.into_iter().chain(open);
    for wait in waits.chain(unchecked.map(Wait::Check)) {
        let text = wait.to_string();
        assert!(text.contains(": "), "{text}");
        assert!(
            text.ends_with("asked again") || wait == Wait::Route,
            "{text}"
        );
    }
}
