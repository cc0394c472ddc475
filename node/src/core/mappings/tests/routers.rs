//! Routers that reboot, fall silent or have given the port away.

use super::*;

#[test]
fn a_router_that_reboots_changes_its_address_or_gives_another_port_is_noticed_within_30_s() {
    for method in ROUTERS {
        let mut world = World::new(&ROUTERS, &[method]);
        world.run(SECOND * 100);
        // It forgets everything.
        (world.router.booted, world.router.entries) = (world.now, BTreeMap::new());
        world.run(SECOND * 30);
        assert_eq!(world.router.entries[&40017], (OWN, 40017), "{method:?}");
        assert_eq!(world.verified(), [world.granted()], "{method:?}");
        world.router.outside = Ipv4Addr::new(203, 0, 113, 8);
        world.run(SECOND * 30);
        let now: SocketAddr = "203.0.113.8:40017".parse().unwrap();
        assert_eq!((world.granted(), world.verified()), (now, vec![now]));
    }
    for method in [Method::Pcp, Method::NatPmp] {
        let mut world = World::new(&ROUTERS, &[method]);
        world.router.gives = Some(41000);
        assert_eq!(world.run(SECOND), granted("203.0.113.7:41000", method));
    }
}

#[test]
fn a_port_that_somebody_else_has_is_left_to_them() {
    let mut world = World::new(&[Method::Upnp], &[Method::Upnp]);
    let other: IpAddr = "192.168.1.9".parse().unwrap();
    world.router.entries = (40017..40020).map(|port| (port, (other, 80))).collect();
    assert_eq!(
        world.run(SECOND),
        granted("203.0.113.7:40020", Method::Upnp)
    );
    assert_eq!(world.router.entries[&40017], (other, 80));
    let mut world = World::new(&[Method::Upnp], &[Method::Upnp]);
    world.router.entries = (40000..40100).map(|port| (port, (other, 80))).collect();
    assert!(matches!(world.run(SECOND)[..], [Event::Refused { .. }]));
    assert!(world.sent < 40, "{}", world.sent);
}

#[test]
fn a_router_that_falls_silent_loses_the_mapping_when_it_ends_and_another_one_at_once() {
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.run(SECOND);
    world.router.is_silent = true;
    world.has_relay = false;
    assert_eq!(world.run(SECOND * 7000), []);
    world.has_relay = true;
    let expired = Event::Lost {
        inside: QUIC,
        reason: Lost::Expired,
    };
    assert_eq!(world.run(SECOND * 300), [expired]);
    world.router.is_silent = false;
    assert_eq!(
        world.run(SECOND * 601),
        granted("203.0.113.7:40017", Method::Pcp)
    );
    world.mappings.handle_gateway(None, world.now);
    let changed = Event::Lost {
        inside: QUIC,
        reason: Lost::GatewayChanged,
    };
    assert_eq!(world.run(SECOND), [changed]);
}
