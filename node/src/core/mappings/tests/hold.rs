//! Ports that no router maps.

use super::*;

/// The ways of `auto`.
const AUTO: [Method; 4] = Method::ALL;
const SEEN: &str = "203.0.113.9:51000";

#[test]
fn a_port_that_no_router_maps_is_held_and_offered_once_verified() {
    for methods in [&[Method::Hold][..], &AUTO] {
        let mut world = World::new(methods, &[]);
        world.seen = Some(SEEN.parse().unwrap());
        world.router.outside = Ipv4Addr::new(203, 0, 113, 9);
        world.router.entries.insert(51000, (OWN, 40017));
        assert_eq!(world.run(SECOND * 5), granted(SEEN, Method::Hold));
        assert_eq!(world.run(SECOND * 9000), [], "it is kept up");
        // The NAT gives another port, as after its restart.
        let other: SocketAddr = "203.0.113.9:51001".parse().unwrap();
        world.seen = Some(other);
        world.router.entries = [(51001, (OWN, 40017))].into();
        let events = world.run(SECOND * 30);
        assert!(events.contains(&proved(other)), "{events:?}");
        assert_eq!(world.verified(), [other]);
        world.seen = None;
        world.router.entries.clear();
        world.run(SECOND * 60);
        assert_eq!(world.mappings.claims().count(), 0, "no relay sees it");
    }
}

#[test]
fn a_port_whose_nat_lets_nobody_in_is_held_in_pauses_and_never_offered() {
    let mut world = World::new(&[Method::Hold], &[]);
    world.seen = Some(SEEN.parse().unwrap());
    let events = world.run(SECOND * 600);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Proved { .. }))
    );
    let claims = events
        .iter()
        .filter(|event| matches!(event, Event::Granted { .. }));
    assert!(claims.count() <= 11, "{events:?}");
    assert_eq!(world.verified(), []);
}

#[test]
fn what_a_router_refuses_is_held_and_a_router_that_comes_later_is_found() {
    let mut world = World::new(&AUTO, &[Method::Upnp]);
    let other: IpAddr = "192.168.1.9".parse().unwrap();
    world.router.entries = (40000..40100).map(|port| (port, (other, 80))).collect();
    world.router.entries.insert(51000, (OWN, 40017));
    world.router.outside = Ipv4Addr::new(203, 0, 113, 9);
    world.seen = Some(SEEN.parse().unwrap());
    let events = world.run(SECOND * 5);
    assert!(matches!(events[0], Event::Refused { .. }), "{events:?}");
    assert_eq!(events[1..], granted(SEEN, Method::Hold));
    let mut world = World::new(&AUTO, &[]);
    world.seen = Some(SEEN.parse().unwrap());
    world.router.outside = Ipv4Addr::new(203, 0, 113, 9);
    world.router.entries.insert(51000, (OWN, 40017));
    world.run(SECOND * 10);
    assert_eq!(world.mappings.claims().next().unwrap().method, Method::Hold);
    world.router.knows = vec![Method::Pcp];
    world.run(SECOND * 700);
    assert_eq!(world.mappings.claims().next().unwrap().method, Method::Pcp);
}
