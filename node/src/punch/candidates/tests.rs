#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use proptest::prelude::*;

use super::*;

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn observed(text: &str, by: PeerId, connection: usize) -> Observation {
    let addr = addr(text);
    let transport = Transport::of(&addr).unwrap();
    let family = Family::of(&addr).unwrap();
    Observation {
        addr,
        by,
        connection: ConnectionId::new_unchecked(connection),
        transport,
        family,
    }
}

/// A relay sees the peer and this node behind one NAT.
fn near() -> Vec<Vouch> {
    vec![Vouch {
        same_network: true,
        ..Vouch::default()
    }]
}

fn offered(local: &Local, policy: &Policy, vouches: &[Vouch]) -> Vec<String> {
    local
        .offer(policy, vouches)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn admitted(local: &Local, policy: &Policy, received: &[&str]) -> Vec<String> {
    admitted_near(local, policy, &[], received)
}

fn admitted_near(
    local: &Local,
    policy: &Policy,
    vouches: &[Vouch],
    received: &[&str],
) -> Vec<String> {
    let received: Vec<_> = received.iter().map(|text| addr(text)).collect();
    let (none, peer) = (HashSet::new(), PeerId::random());
    let admitted = local.admit(policy, &none, peer, vouches, &[], &received);
    admitted
        .candidates
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_a_router_maps_is_offered_first_to_peers_and_relays_as_long_as_it_is_proved() {
    let mut local = Local::default();
    let by = PeerId::random();
    local.observe(&observed("/ip4/198.51.100.1/udp/51234/quic-v1", by, 1));
    let mapped = [
        "/ip4/198.51.100.1/udp/40017/quic-v1",
        "/ip4/198.51.100.1/tcp/40017",
    ];
    let addrs = mapped.map(addr);
    assert!(local.set_mapped(&addrs));
    assert!(!local.set_mapped(&addrs), "nothing new");
    let seen = "/ip4/198.51.100.1/udp/51234/quic-v1";
    assert_eq!(
        offered(&local, &Policy::open(), &[]),
        [mapped[0], mapped[1], seen]
    );
    let unseen = local.unseen(&Policy::open());
    assert_eq!(
        unseen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        mapped
    );
    assert_eq!(
        admitted(&local, &Policy::open(), &mapped),
        [""; 0],
        "its own"
    );
    // Filters count for it as for all.
    let denied = Policy {
        permit: Arc::new(|addr| !addr.to_string().contains("/tcp/")),
        ..Policy::open()
    };
    assert_eq!(offered(&local, &denied, &[]), [mapped[0], seen]);
    assert!(local.set_mapped(&[]));
    assert_eq!(offered(&local, &Policy::open(), &[]), [seen]);
}

#[test]
fn advertised_addresses_come_first_then_observed_then_global_ones_of_interfaces() {
    let mut local = Local::default();
    local.observe(&observed(
        "/ip4/198.51.100.1/udp/51234/quic-v1",
        PeerId::random(),
        1,
    ));
    local.observe(&observed(
        "/ip4/198.51.100.1/tcp/51235",
        PeerId::random(),
        2,
    ));
    local.set_interfaces(&[
        addr("/ip6/2001:db8::1/udp/40000/quic-v1"),
        addr("/ip4/10.0.0.2/udp/40000/quic-v1"),
    ]);
    let advertise = Arc::new(|| vec!["/ip4/203.0.113.1/udp/40000/quic-v1".parse().unwrap()]);
    assert_eq!(
        offered(
            &local,
            &Policy {
                advertise,
                ..Policy::open()
            },
            &[]
        ),
        [
            "/ip4/203.0.113.1/udp/40000/quic-v1",
            "/ip4/198.51.100.1/udp/51234/quic-v1",
            "/ip4/198.51.100.1/tcp/51235",
            "/ip6/2001:db8::1/udp/40000/quic-v1",
        ]
    );
}

#[test]
fn private_addresses_go_only_to_a_peer_that_a_relay_sees_in_their_network() {
    let mut local = Local::default();
    local.observe(&observed(
        "/ip4/198.51.100.1/udp/51234/quic-v1",
        PeerId::random(),
        1,
    ));
    local.set_interfaces(&[addr("/ip4/10.0.0.2/udp/40000/quic-v1")]);
    assert_eq!(
        offered(&local, &Policy::open(), &[]),
        ["/ip4/198.51.100.1/udp/51234/quic-v1"]
    );
    assert_eq!(
        offered(&local, &Policy::open(), &near()),
        [
            "/ip4/198.51.100.1/udp/51234/quic-v1",
            "/ip4/10.0.0.2/udp/40000/quic-v1"
        ]
    );
}

#[test]
fn the_first_addresses_of_an_interface_are_offered_over_both_transports_however_many_there_are() {
    let mut local = Local::default();
    for connection in 0..6 {
        let port = 50_000 + connection;
        let text = format!("/ip4/198.51.100.1/udp/{port}/quic-v1");
        local.observe(&observed(&text, PeerId::random(), connection));
        let text = format!("/ip4/198.51.100.1/tcp/{port}");
        local.observe(&observed(&text, PeerId::random(), 100 + connection));
    }
    let ips = [
        "192.168.1.7",
        "172.17.0.1",
        "172.18.0.1",
        "172.19.0.1",
        "172.20.0.1",
    ];
    let both = |ip: &&str| {
        let texts = [
            format!("/ip4/{ip}/udp/40000/quic-v1"),
            format!("/ip4/{ip}/tcp/40000"),
        ];
        texts.map(|text| addr(&text))
    };
    local.set_interfaces(&ips.iter().flat_map(both).collect::<Vec<_>>());
    let advertise = Arc::new(|| {
        let port = |port: u16| format!("/ip4/203.0.113.1/tcp/{port}").parse().unwrap();
        (1..=6).map(port).collect()
    });
    for policy in [
        Policy::open(),
        Policy {
            advertise,
            ..Policy::open()
        },
    ] {
        let offered = offered(&local, &policy, &near());
        assert_eq!(offered.len(), MAX_CANDIDATES);
        for lan in [
            "/ip4/192.168.1.7/udp/40000/quic-v1",
            "/ip4/192.168.1.7/tcp/40000",
        ] {
            assert!(offered.iter().any(|of| of == lan), "{offered:?}");
        }
    }
}

#[test]
fn of_many_global_addresses_the_first_are_offered_over_both_transports() {
    let mut local = Local::default();
    let both = |n: u16| {
        let ip = format!("/ip6/2001:db8::{n:x}");
        [format!("{ip}/udp/40000/quic-v1"), format!("{ip}/tcp/40000")].map(|text| addr(&text))
    };
    // 9 is preferred; the others are deprecated.
    let ranked = std::iter::once(9).chain(1..=8).flat_map(both);
    local.set_interfaces(&ranked.collect::<Vec<_>>());
    let unseen = local
        .unseen(&Policy::open())
        .into_iter()
        .map(|c| c.to_string())
        .collect();
    for offered in [offered(&local, &Policy::open(), &[]), unseen] {
        assert_eq!(offered.len(), MAX_CANDIDATES);
        assert_eq!(offered[0], "/ip6/2001:db8::9/udp/40000/quic-v1");
        assert!(offered.iter().any(|of| of == "/ip6/2001:db8::9/tcp/40000"));
    }
}

#[test]
fn what_a_filter_forbids_is_neither_offered_nor_dialed() {
    let mut local = Local::default();
    local.observe(&observed(
        "/ip4/198.51.100.1/udp/51234/quic-v1",
        PeerId::random(),
        1,
    ));
    local.observe(&observed(
        "/ip4/198.51.100.1/tcp/51234",
        PeerId::random(),
        2,
    ));
    let no_quic = Policy {
        permit: Arc::new(|addr| Transport::of(addr) == Some(Transport::Tcp)),
        ..Policy::open()
    };
    assert_eq!(
        offered(&local, &no_quic, &[]),
        ["/ip4/198.51.100.1/tcp/51234"]
    );
    let received = ["/ip4/203.0.113.1/udp/5/quic-v1", "/ip4/203.0.113.1/tcp/5"];
    assert_eq!(
        admitted(&local, &no_quic, &received),
        ["/ip4/203.0.113.1/tcp/5"]
    );
}

#[test]
fn families_and_transports_that_are_off_are_neither_offered_nor_dialed() {
    let mut local = Local::default();
    local.observe(&observed(
        "/ip4/198.51.100.1/udp/51234/quic-v1",
        PeerId::random(),
        1,
    ));
    local.observe(&observed(
        "/ip6/2001:db8::1/udp/51234/quic-v1",
        PeerId::random(),
        2,
    ));
    let only_v6 = Policy {
        families: FamilyPolicy::OnlyIp6,
        ..Policy::open()
    };
    assert_eq!(
        offered(&local, &only_v6, &[]),
        ["/ip6/2001:db8::1/udp/51234/quic-v1"]
    );
    let only_tcp = Policy {
        transports: vec![Transport::Tcp],
        ..Policy::open()
    };
    assert_eq!(
        admitted(&local, &only_tcp, &["/ip4/203.0.113.1/udp/5/quic-v1"]),
        [""; 0]
    );
}

#[test]
fn a_private_address_comes_first_behind_one_nat_and_last_where_the_configuration_names_it() {
    let local = Local::default();
    let private = "/ip4/192.168.1.7/udp/40000/quic-v1";
    let public = "/ip4/198.51.100.9/tcp/5";
    let both = [public, private];
    assert_eq!(admitted(&local, &Policy::open(), &both), [public]);
    assert_eq!(
        admitted_near(&local, &Policy::open(), &near(), &both),
        [private, public]
    );
    let named = Policy {
        names: Arc::new(|_| true),
        ..Policy::open()
    };
    assert_eq!(admitted(&local, &named, &both), [public, private]);
}

#[test]
fn what_the_networks_of_this_host_give_to_all_is_not_dialed() {
    let mut local = Local::default();
    local.set_networks(vec![
        "192.168.1.7/24".parse().unwrap(),
        "203.0.113.4/31".parse().unwrap(),
        "2001:db8:1::7/64".parse().unwrap(),
    ]);
    let received = [
        "/ip4/192.168.1.0/tcp/1",
        "/ip4/192.168.1.255/tcp/1",
        "/ip6/2001:db8:1::/tcp/1",
        "/ip4/203.0.113.5/tcp/1",
    ];
    assert_eq!(
        admitted_near(&local, &Policy::open(), &near(), &received),
        received[3..]
    );
}

#[test]
fn where_a_relay_has_not_seen_the_peer_is_unvouched_and_comes_last() {
    let local = Local::default();
    let vouch = Vouch {
        theirs: ["203.0.113.1".parse().unwrap()].into(),
        ..Vouch::default()
    };
    let received = ["/ip4/203.0.113.2/udp/5/quic-v1", "/ip4/203.0.113.1/tcp/5"].map(addr);
    let (none, peer) = (HashSet::new(), PeerId::random());
    let admitted = local.admit(&Policy::open(), &none, peer, &[vouch], &[], &received);
    let candidates: Vec<_> = received.iter().filter_map(Candidate::parse).collect();
    assert_eq!(admitted.candidates, [candidates[1], candidates[0]]);
    assert_eq!(admitted.unvouched, HashSet::from([candidates[0]]));
}

#[test]
fn an_address_that_names_another_peer_is_not_dialed() {
    let local = Local::default();
    let other = format!("/ip4/203.0.113.1/tcp/5/p2p/{}", PeerId::random());
    assert_eq!(admitted(&local, &Policy::open(), &[&other]), [""; 0]);
}

#[test]
fn an_observation_counts_only_for_the_transport_and_family_of_its_connection() {
    let mut local = Local::default();
    let observation = observed("/ip4/198.51.100.1/tcp/40000", PeerId::random(), 1);
    assert!(!local.observe(&Observation {
        transport: Transport::Quic,
        ..observation.clone()
    }));
    assert!(local.observe(&observation));
}

#[test]
fn an_observation_is_replaced_by_the_next_on_its_connection_and_goes_with_it() {
    let mut local = Local::default();
    let by = PeerId::random();
    assert!(local.observe(&observed("/ip4/198.51.100.1/tcp/40000", by, 1)));
    assert!(!local.observe(&observed("/ip4/198.51.100.1/tcp/40000", by, 1)));
    assert!(local.observe(&observed("/ip4/198.51.100.2/tcp/40000", by, 1)));
    assert_eq!(
        offered(&local, &Policy::open(), &[]),
        ["/ip4/198.51.100.2/tcp/40000"]
    );
    assert!(local.forget(ConnectionId::new_unchecked(1)));
    assert_eq!(offered(&local, &Policy::open(), &[]), [""; 0]);
}

#[test]
fn two_observers_show_how_the_nat_maps() {
    let mut local = Local::default();
    let (one, two) = (PeerId::random(), PeerId::random());
    local.observe(&observed("/ip4/198.51.100.1/tcp/40000", one, 1));
    assert_eq!(local.mapping(Transport::Tcp, Family::Ip4), Mapping::Unknown);
    local.observe(&observed("/ip4/198.51.100.1/tcp/40000", two, 2));
    assert_eq!(
        local.mapping(Transport::Tcp, Family::Ip4),
        Mapping::Independent
    );
    local.observe(&observed("/ip4/198.51.100.1/tcp/40001", two, 2));
    assert_eq!(
        local.mapping(Transport::Tcp, Family::Ip4),
        Mapping::Dependent
    );
    assert_eq!(
        local.mapping(Transport::Quic, Family::Ip4),
        Mapping::Unknown
    );
}

#[test]
fn the_mappings_of_a_symmetric_nat_do_not_crowd_out_the_rest() {
    let mut local = Local::default();
    for port in 0..20 {
        local.observe(&observed(
            &format!("/ip4/198.51.100.1/udp/{}/quic-v1", 50000 + port),
            PeerId::random(),
            port,
        ));
    }
    local.observe(&observed(
        "/ip4/198.51.100.1/tcp/40000",
        PeerId::random(),
        99,
    ));
    let offer = offered(&local, &Policy::open(), &[]);
    assert_eq!(offer.len(), 3);
    assert!(offer.contains(&"/ip4/198.51.100.1/tcp/40000".to_owned()));
}

proptest! {
    #[test]
    fn what_is_offered_and_dialed_is_bounded_and_without_repetition(
        seen in prop::collection::vec((any::<[u8; 4]>(), 1..4_u16, any::<bool>(), 0..40_usize), 0..60),
        received in prop::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<bool>()), 0..60),
    ) {
        let text = |ip: [u8; 4], port: u16, quic: bool| {
            let ip = std::net::Ipv4Addr::from(ip);
            if quic { format!("/ip4/{ip}/udp/{port}/quic-v1") } else { format!("/ip4/{ip}/tcp/{port}") }
        };
        let mut local = Local::default();
        for (ip, port, quic, connection) in seen {
            local.observe(&observed(&text(ip, port, quic), PeerId::random(), connection));
        }
        let offer = local.offer(&Policy::open(), &[]);
        prop_assert!(offer.len() <= MAX_CANDIDATES);
        prop_assert_eq!(offer.iter().collect::<HashSet<_>>().len(), offer.len());

        let received: Vec<_> = received.into_iter().map(|(ip, port, quic)| addr(&text(ip, port, quic))).collect();
        let admitted = local.admit(&Policy::open(), &HashSet::new(), PeerId::random(), &[], &[], &received).candidates;
        prop_assert!(admitted.len() <= MAX_CANDIDATES);
        prop_assert_eq!(admitted.iter().collect::<HashSet<_>>().len(), admitted.len());
        for candidate in admitted {
            prop_assert!(!offer.contains(&candidate), "our own socket");
            prop_assert!(candidate.scope() == Scope::Global);
        }
    }
}

#[test]
fn a_private_address_at_which_a_relay_sees_both_sides_is_that_of_a_nat_unless_this_host_has_it() {
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let vouches = [Vouch {
        same_network: false,
        theirs: [ip].into(),
        ours: [ip].into(),
    }];
    let mut local = Local::default();
    local.observe(&observed("/ip4/10.0.0.1/tcp/5", PeerId::random(), 1));
    let both = |local: &Local| {
        let theirs = ["/ip4/10.0.0.1/tcp/6"];
        let admitted = admitted_near(local, &Policy::open(), &vouches, &theirs);
        (offered(local, &Policy::open(), &vouches), admitted)
    };
    assert_eq!(both(&local), (Vec::new(), Vec::new()));
    // Two nodes on one host, without a NAT between them and the relay.
    local.set_interfaces(&[addr("/ip4/10.0.0.1/tcp/5")]);
    let texts = |text: &str| vec![text.to_owned()];
    assert_eq!(
        both(&local),
        (texts("/ip4/10.0.0.1/tcp/5"), texts("/ip4/10.0.0.1/tcp/6"))
    );
}
