//! Routers that mean no good, and others that pose as the router.

use proptest::prelude::*;

use super::*;

#[test]
fn what_was_not_asked_for_is_no_grant_and_no_flood_makes_the_node_ask_faster() {
    for method in [Method::Pcp, Method::NatPmp] {
        let mut world = World::new(&[method], &[method]);
        world.run(SECOND * 20);
        let (external, nonce) = (world.granted(), world.mappings.leases[&QUIC].nonce());
        let (from, sent) = (SocketAddr::new(ROUTER, ROUTER_PORT), world.sent);
        for turn in 0..1000_u16 {
            let gateway = Gateway {
                router: ROUTER,
                own: OWN,
            };
            let wish = SocketAddr::new([203, 0, 113, 7].into(), 1024 + turn);
            let mut grant = map(gateway, QUIC, nonce, 7200, wish);
            grant[1] |= 0x80;
            // The epoch jumps with each one.
            let epoch = u32::from(turn % 2) * 1_000_000;
            grant[8..12].copy_from_slice(&epoch.to_be_bytes());
            grant[12..24].fill(0);
            let other = (51_000 + turn % 2).to_be_bytes();
            let port = QUIC.port.to_be_bytes();
            let grants = match method {
                Method::Pcp => vec![grant],
                Method::NatPmp | Method::Upnp | Method::Hold => vec![
                    [
                        &[0, 129, 0, 0][..],
                        &epoch.to_be_bytes(),
                        &port,
                        &other,
                        &[0, 0, 28, 32],
                    ]
                    .concat(),
                    [
                        &[0, 128, 0, 0][..],
                        &epoch.to_be_bytes(),
                        &[203, 0, 113, u8::from(turn % 2 == 1)],
                    ]
                    .concat(),
                ],
            };
            for grant in grants {
                world.mappings.handle_datagram(from, &grant, world.now);
            }
            world.now += Duration::from_millis(1);
            world.mappings.handle_timeout(world.now);
            world.exchange();
        }
        assert_eq!(world.granted().port(), external.port(), "{method:?}");
        let asked = world.sent - sent;
        // One request in 250 ms; NAT-PMP asks for the address as well.
        assert!(asked <= 10, "{method:?}: {asked} requests in a second");
    }
}

#[test]
fn a_router_without_an_outside_address_keeps_no_mapping() {
    let mut world = World::new(&[Method::Upnp], &[Method::Upnp]);
    world.router.outside = Ipv4Addr::UNSPECIFIED;
    let events = world.run(SECOND * 5);
    assert!(matches!(events[..], [Event::Refused { .. }]), "{events:?}");
    assert!(world.router.entries.is_empty());
}

#[test]
fn only_the_router_is_listened_to_and_another_nonce_is_no_grant() {
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.run(SECOND * 20);
    let external = world.granted();
    let mut forged = map(
        Gateway {
            router: ROUTER,
            own: OWN,
        },
        QUIC,
        [0; 12],
        7200,
        "198.51.100.1:1".parse().unwrap(),
    );
    forged[1] |= 0x80;
    let from = SocketAddr::new(ROUTER, ROUTER_PORT);
    for from in [
        from,
        SocketAddr::new(OWN, ROUTER_PORT),
        SocketAddr::new(ROUTER, 53),
    ] {
        world.mappings.handle_datagram(from, &forged, world.now);
    }
    world.exchange();
    assert_eq!(world.granted(), external);
}

/// What a hostile router may send: pieces of honest answers, and anything.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let places = [
        "http://192.168.1.1:5000/d.xml",
        "http://203.0.113.66:80/d.xml",
        "http://192.168.1.1@203.0.113.66/",
        "http://[::1]/",
        "//203.0.113.66/c",
    ];
    let text = prop::sample::select(places.to_vec()).prop_map(|place| {
        format!("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLocation: {place}\r\n\r\n<URLBase>{place}</URLBase><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>{place}</controlURL></service>").into_bytes()
    });
    let datagram = (
        prop::sample::select(vec![0u8, 2]),
        prop::collection::vec(any::<u8>(), 0..70),
    );
    prop_oneof![
        text,
        datagram.prop_map(|(version, rest)| [vec![version], rest].concat()),
        prop::collection::vec(any::<u8>(), 0..256),
    ]
}

proptest! {
    #[test]
    fn whatever_a_router_says_nobody_else_is_asked(
        said in prop::collection::vec((0..4usize, hostile()), 1..24),
    ) {
        let now = Instant::now();
        let mut mappings = Mappings::new(&ROUTERS, 7);
        mappings.handle_wanted(&[QUIC], now);
        let gateway = Gateway { router: ROUTER, own: OWN };
        mappings.handle_gateway(Some(gateway), now);
        let mut calls = Vec::new();
        for (turn, (port, bytes)) in said.into_iter().enumerate() {
            let now = now + SECOND * u32::try_from(turn).unwrap();
            let from = [ROUTER_PORT, ssdp::PORT, 80, 5000][port];
            mappings.handle_datagram(SocketAddr::new(ROUTER, from), &bytes, now);
            if let Some(id) = calls.pop() {
                mappings.handle_answer(id, Some(&bytes), now);
            }
            mappings.handle_timeout(now);
            while let Some(action) = mappings.poll_action() {
                match action {
                    Action::Send { to, .. } => prop_assert_eq!(to.ip(), ROUTER),
                    Action::Call { id, to, .. } => {
                        prop_assert_eq!(to.ip(), ROUTER);
                        calls.push(id);
                    }
                    // Relays are asked. One decides where a nonce goes: to the address of this node.
                    Action::Check { .. } | Action::Hold { .. } => {}
                }
            }
            while mappings.poll_event().is_some() {}
        }
    }
}
