//! A second leg for the punch port.

use super::{id, poll, relay, settle};
use crate::core::relays::{
    leg::LOST_MAX,
    seconds::{AGAIN, SOON},
    *,
};

#[test]
fn a_second_leg_is_dialed_until_one_has_the_punch_port() {
    let mut now = Instant::now();
    let mut keeper = RelayKeeper::new(&[relay(PeerId::random())], 1, FamilyPolicy::Auto, now);
    let mut next = 0;
    settle(&mut keeper, &mut next, now);
    let first = id(1);
    assert!(!keeper.handle_port(first, false, now));
    assert!(!keeper.handle_port(first, false, now), "one is enough");
    for wait in [SOON, AGAIN] {
        assert!(settle(&mut keeper, &mut next, now + wait / 2).is_empty());
        assert_eq!(keeper.connections().collect::<Vec<_>>(), [first]);
        now += wait;
        settle(&mut keeper, &mut next, now);
        assert!(keeper.handle_port(id(next), false, now), "of no use");
        assert!(keeper.handle_closed(id(next), now, 0.5).is_none());
    }
    now += AGAIN;
    settle(&mut keeper, &mut next, now);
    let second = id(next);
    assert!(!keeper.handle_port(second, true, now));
    assert_eq!(
        keeper.connections().collect::<Vec<_>>(),
        [first, second],
        "the first carries circuits"
    );
    // The second ends, and the first comes back from the punch port: one is enough again.
    keeper.handle_closed(second, now, 0.5).unwrap();
    keeper.handle_closed(first, now, 0.5).unwrap();
    let Some(Action::Dial { leg: 0, .. }) = poll(&mut keeper, now + LOST_MAX) else {
        panic!("the first is dialed first");
    };
    keeper.handle_dialing(0, id(90));
    keeper.handle_established(id(90), now);
    assert!(!keeper.handle_port(id(90), true, now));
    assert_eq!(keeper.connections().count(), 1);
}
