//! Flows, queues and idle times have bounds, and end with whom they are for.

use super::{silent::SILENT, *};

fn open(number: u32) -> Open {
    Open {
        session: SessionId([number as u8; 16]),
        instance: 1,
        attempt: 1,
        service: "dns".parse().unwrap(),
        carries: crate::wire::Carries::Datagrams(FlowNumber::new(number).unwrap()),
        limit: 0,
        client: None,
        linger: None,
    }
}

#[test]
fn flows_are_bounded_for_each_peer_and_for_all() {
    let settings = Settings {
        flows_per_peer: 3,
        flows: 5,
        ..Settings::default()
    };
    let mut pair = Pair::new(&settings);
    for port in 1..=10 {
        pair.client(port, b"a");
    }
    pair.run();
    assert_eq!(
        (pair.flows[0].len(), pair.flows[0].dropped().refused),
        (3, 7)
    );
    // A hostile caller: the service has its own bounds.
    let mut service = Flows::new(1, settings);
    let (a, b) = (PeerId::random(), PeerId::random());
    let mut opened = |peer, number| {
        let (id, now) = (StreamId(u64::from(number)), Instant::now());
        service
            .handle_open(peer, &open(number), SECOND, id, now)
            .is_ok()
    };
    let results = [1, 2, 3, 4].map(|number| opened(a, number));
    assert_eq!(results, [true, true, true, false]);
    assert_eq!(
        [1, 2, 3].map(|number| opened(b, number)),
        [true, true, false]
    );
}

#[test]
fn a_peer_that_opens_flows_here_takes_no_place_of_the_flows_to_it() {
    let mut pair = Pair::new(&Settings {
        flows_per_peer: 3,
        flows: 3,
        ..Settings::default()
    });
    pair.client(1, b"a");
    pair.run();
    pair.now += 2 * SILENT;
    let (peer, now) = (pair.peers[1], pair.now);
    let opened = (1..=4).filter(|number| {
        let (open, id) = (open(*number), StreamId(100 + u64::from(*number)));
        let flows = &mut pair.flows[0];
        flows.handle_open(peer, &open, SECOND, id, now).is_ok()
    });
    assert_eq!(opened.count(), 3);
    pair.client(2, b"b");
    pair.client(3, b"c");
    assert_eq!(pair.flows[0].dropped().refused, 0);
    assert_eq!(pair.ended[0], [], "no flow of a client gives up its place");
    assert!((1..=3).all(|port| pair.flows[0].knows(&client(port))));
}

#[test]
fn queues_of_a_peer_and_of_all_are_bounded_in_bytes() {
    let settings = Settings {
        bytes_per_peer: 300_000,
        ..Settings::default()
    };
    let mut pair = Pair::new(&settings);
    pair.path = false;
    for port in 1..=10 {
        for _ in 0..5 {
            pair.client(port, &[7; 60_000]);
        }
    }
    assert!(pair.flows[0].held() <= 300_000);
    assert!(pair.flows[0].held() > 200_000);
}

#[test]
fn nobody_reaches_the_flow_of_another_peer() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"a");
    pair.run();
    let (key, stranger) = (pair.delivered[1][0].0, PeerId::random());
    let datagram = datagram::encode(key.number, Opener::Sender, b"forged");
    pair.flows[1].handle_datagram(stranger, datagram.clone(), pair.now);
    let resume = Resume {
        session: SessionId(1u128.to_be_bytes()),
        instance: 9,
        attempt: 9,
        progress: Accept {
            instance: 9,
            ..Accept::default()
        },
    };
    let resumed = pair.flows[1].handle_resume(stranger, &resume, StreamId(99), pair.now);
    assert_eq!(resumed, None);
    // The service did not open it, so the caller may not claim that it did.
    let claimed = datagram::encode(key.number, Opener::Receiver, b"forged");
    pair.flows[1].handle_datagram(pair.peers[0], claimed, pair.now);
    pair.flows[1].handle_datagram(pair.peers[0], Bytes::new(), pair.now);
    pair.run();
    assert_eq!(pair.payloads(1), [b"a"]);
    assert_eq!(pair.flows[1].dropped().unknown, 3);
    pair.flows[1].handle_datagram(pair.peers[0], datagram, pair.now);
    pair.run();
    assert_eq!(pair.delivered[1].len(), 2);
}

#[test]
fn a_target_that_goes_on_sending_keeps_no_flow_whose_caller_is_gone() {
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    pair.run();
    let key = pair.delivered[1][0].0;
    pair.lose_streams();
    for _ in 0..70 {
        pair.now += SECOND;
        pair.flows[1].handle_target(key, Bytes::from_static(b"video"), pair.now);
        pair.flows[1].handle_timeout(pair.now);
    }
    pair.run();
    assert!(matches!(pair.ended[1][..], [(_, End::Idle)]));
    assert_eq!(pair.flows[1].held(), 0);
}

#[test]
fn a_forward_that_is_gone_takes_its_flows_with_it() {
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    pair.client(2, b"a");
    pair.run();
    pair.flows[0].handle_forward_gone(ForwardId(2));
    assert_eq!(pair.flows[0].len(), 2);
    pair.flows[0].handle_forward_gone(ForwardId(1));
    pair.run();
    assert_eq!((pair.flows[0].len(), pair.streams.len()), (0, 0));
}

#[test]
fn a_newcomer_takes_the_place_of_the_flow_that_was_silent_longest() {
    let mut pair = Pair::new(&Settings {
        flows_per_peer: 3,
        ..Settings::default()
    });
    for port in 1..=3 {
        pair.client(port, b"a");
        pair.run();
        pair.now += SECOND;
    }
    pair.client(1, b"again");
    pair.run();
    pair.client(4, b"a");
    pair.run();
    let silent = pair.ended[0][0].0;
    assert_eq!((pair.ended[0].len(), pair.flows[0].len()), (1, 3));
    assert!(
        pair.delivered[1]
            .iter()
            .any(|(key, _)| key.number == silent.number)
    );
    assert!(pair.flows[0].knows(&client(1)) && !pair.flows[0].knows(&client(2)));
    // Those that are in use keep their places.
    for port in [1, 3, 4] {
        pair.client(port, b"b");
    }
    pair.client(5, b"a");
    pair.run();
    assert!(!pair.flows[0].knows(&client(5)));
    assert_eq!(pair.flows[0].dropped().refused, 1);
}

#[test]
fn a_silent_flow_at_a_service_gives_up_its_place_if_its_peer_has_almost_as_many_as_it_may() {
    let mut pair = Pair::new(&Settings::default());
    for port in 1..=3 {
        pair.client(port, b"a");
    }
    pair.run();
    pair.now += 2 * SILENT;
    pair.client(2, b"b");
    pair.run();
    for left in [2, 1, 1] {
        pair.flows[1].handle_crowded(pair.peers[0], pair.now);
        pair.run();
        assert_eq!(pair.flows[1].len(), left);
    }
    assert!(pair.flows[0].knows(&client(2)), "it is in use");
    // The others may have flows again, and are none the worse for it.
    pair.client(1, b"c");
    pair.run();
    assert_eq!((pair.flows[1].len(), pair.delivered[1].len()), (2, 5));
}
