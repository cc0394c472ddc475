//! Flows that go on on another stream.

use super::*;

#[test]
fn a_flow_outlives_its_stream_and_keeps_the_newest_datagrams() {
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    pair.run();
    pair.lose_streams();
    pair.path = false;
    for byte in 0..100 {
        pair.client(1, &[byte]);
    }
    pair.run();
    assert_eq!(pair.flows[0].dropped().displaced, 36);
    pair.path = true;
    pair.now += SECOND;
    pair.client(1, b"z");
    pair.run();
    let got = pair.payloads(1);
    assert_eq!((got.len(), got[1], got[64]), (65, &[37][..], &b"z"[..]));
    assert_eq!(pair.flows[1].len(), 1, "the same flow");
    assert_eq!(pair.carried, [[Some(SECOND)], [Some(SECOND)]]);
}

#[test]
fn a_move_to_a_better_path_changes_the_stream_only() {
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    pair.run();
    let keys: Vec<_> = pair.flows[0].flows.keys().copied().collect();
    pair.flows[0].handle_better_path(keys[0]);
    pair.client(1, b"b");
    pair.run();
    assert_eq!(pair.payloads(1), [b"a", b"b"]);
    assert_eq!((pair.streams.len(), pair.flows[1].len()), (1, 1));
    assert_eq!(pair.carried, [[None], [None]]);
}

#[test]
fn a_flow_that_may_not_move_yet_asks_again_with_its_next_datagram() {
    let mut pair = Pair::new(&Settings::default());
    pair.path(Some(1200));
    pair.client(1, b"a");
    pair.run();
    pair.later = 2;
    let key = *pair.flows[0].flows.keys().next().unwrap();
    pair.flows[0].handle_better_path(key);
    pair.run();
    assert_eq!((pair.later, pair.streams.len()), (1, 1), "it is on the old");
    for payload in [b"b", b"c"] {
        pair.client(1, payload);
        pair.run();
    }
    assert_eq!(pair.payloads(1), [b"a", b"b", b"c"]);
    assert_eq!((pair.streams.len(), pair.flows[1].len()), (1, 1));
    assert_eq!(
        pair.carried,
        [[None], [None]],
        "it had a stream all the time"
    );
    assert_eq!(pair.ended, [[], []]);
}

#[test]
fn a_flow_that_was_opened_by_another_stream_leaves_the_one_before() {
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    let (key, now) = (*pair.flows[0].flows.keys().next().unwrap(), pair.now);
    let accept = || Frame::Accept(Accept::default());
    for stream in [98, 99] {
        pair.flows[0].handle_better_path(key);
        pair.flows[0].handle_stream(key, StreamId(stream), now);
    }
    pair.flows[0].handle_frame(key, StreamId(99), accept(), now);
    let actions: Vec<_> = std::iter::from_fn(|| pair.flows[0].poll_action()).collect();
    assert!(actions.contains(&Action::CloseStream(key, StreamId(98), None)));
    assert!(actions.contains(&Action::Opened(key)));
}

#[test]
fn a_pause_that_a_peer_claims_is_no_longer_than_a_flow_lives() {
    let mut pair = Pair::new(&Settings::default());
    pair.client(1, b"a");
    pair.run();
    let resume = Resume {
        session: SessionId(1u128.to_be_bytes()),
        instance: 1,
        attempt: 9,
        progress: Accept {
            paused: Some(Duration::MAX),
            ..Accept::default()
        },
    };
    let (peer, now) = (pair.peers[0], pair.now);
    pair.flows[1].handle_resume(peer, &resume, StreamId(99), now);
    let carried = std::iter::from_fn(|| pair.flows[1].poll_action());
    let carried = carried.filter_map(|action| match action {
        Action::Carried(_, paused) => Some(paused),
        _ => None,
    });
    assert_eq!(carried.collect::<Vec<_>>(), [Some(60 * SECOND)]);
}

#[test]
fn a_loss_that_one_side_alone_has_noticed_is_one_for_both() {
    for notices in 0..2 {
        let mut pair = Pair::new(&Settings::default());
        pair.client(1, b"a");
        pair.run();
        let (stream, keys) = pair.streams.pop_first().unwrap();
        let (key, now) = (keys[notices].unwrap(), pair.now);
        pair.flows[notices].handle_stream_lost(key, StreamId(stream), now);
        pair.now += SECOND;
        pair.flows[0].handle_better_path(keys[0].unwrap());
        pair.run();
        assert_eq!(pair.carried, [[Some(SECOND)], [Some(SECOND)]], "{notices}");
    }
}
