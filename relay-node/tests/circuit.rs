//! The circuit relay's protocol, byte by byte: what is answered to what, and what goes over a circuit.

#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod harness;
mod peer;
mod raw;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::join_all};
use harness::{Relay, config, free_port, get, start};
use libp2p::{Multiaddr, PeerId, Stream};
use raw::{Answer, Field, RESERVE, Raw, answer, connect, in_time};
use relay_node::Config;

const OK: u64 = 100;
const RESERVATION_REFUSED: u64 = 200;
const RESOURCE_LIMIT_EXCEEDED: u64 = 201;
const CONNECTION_FAILED: u64 = 203;
const NO_RESERVATION: u64 = 204;
const MALFORMED_MESSAGE: u64 = 400;
const UNEXPECTED_MESSAGE: u64 = 401;

/// A relay, and where its metrics are.
async fn relay(limit: impl FnOnce(&mut Config)) -> (Relay, SocketAddr) {
    let mut config = config(free_port());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    config.admin = Some(admin);
    limit(&mut config);
    (start(config).await, admin)
}

/// Waits until the relay's metrics have this line.
async fn until_metric(admin: SocketAddr, line: &str) {
    let line = format!("{line}\n");
    let mut metrics = String::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        metrics = get(admin, "/metrics").await;
        if metrics.contains(&line) {
            return;
        }
    }
    panic!("{line} is not in\n{metrics}");
}

fn denied(reason: &str, times: usize) -> String {
    format!("relay_denied_total{{reason=\"{reason}\"}} {times}")
}

fn carried(direction: &str, bytes: usize) -> String {
    format!("relay_circuit_bytes_total{{direction=\"{direction}\"}} {bytes}")
}

/// Everything up to the end of the stream, or up to where it breaks off.
async fn drain(stream: &mut Stream) -> usize {
    let (mut bytes, mut buffer) = (0, vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = in_time(stream.read(&mut buffer)).await {
        bytes += read;
    }
    bytes
}

fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is later than 1970").as_secs()
}

#[tokio::test]
async fn a_reservation_names_its_end_the_relays_addresses_and_no_limit_where_there_is_none() {
    let (relay, _) = relay(|_| {}).await;
    let before = seconds_since_1970();
    let granted = Raw::connect(relay.quic()).await.ask(RESERVE).await;
    let after = seconds_since_1970();
    let (first, addresses) = granted.reservation.split_first().expect("a reservation");
    let (1, Field::Number(expires)) = first else {
        panic!("{first:?} is no time");
    };
    assert!((before + 3600..=after + 3600).contains(expires));
    let addresses: Vec<_> = addresses
        .iter()
        .map(|(_, address)| match address {
            Field::Bytes(bytes) => Multiaddr::try_from(bytes.clone()).expect("an address"),
            Field::Number(number) => panic!("{number} is no address"),
        })
        .collect();
    assert!(addresses.contains(relay.quic()), "{addresses:?}");
    assert!(addresses.contains(relay.tcp()), "{addresses:?}");
    assert_eq!(granted.limit, []);
    relay.stop().await;
}

#[tokio::test]
async fn both_peers_of_a_circuit_are_told_its_limits() {
    let (relay, _) = relay(|config| {
        config.limits.circuit_bytes = 77;
        config.limits.circuit_duration = Duration::from_secs(50);
    })
    .await;
    let limit = vec![(1, Field::Number(50)), (2, Field::Number(77))];
    let mut destination = Raw::connect(relay.quic()).await;
    assert_eq!(destination.ask(RESERVE).await.limit, limit);
    let mut source = Raw::connect(relay.tcp()).await;
    let mut asked = source.say(&connect(destination.id)).await;
    let (mut offer, message) = destination.offered().await;
    assert!(
        message.ends_with(&[26, 4, 8, 50, 16, 77]),
        "limit: {message:?}"
    );
    let id = source.id.to_bytes();
    assert!(message.windows(id.len()).any(|part| part == id));
    offer.write_all(raw::TAKEN).await.expect("sent");
    let granted = answer(&mut asked).await;
    assert_eq!((granted.status, granted.limit), (OK, limit));
    relay.stop().await;
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let (relay, admin) = relay(|config| {
        config.limits.reservations = 1;
        config.limits.circuits = 1;
        config.drain_timeout = Duration::from_secs(30);
    })
    .await;
    let mut destination = Raw::reserved(relay.quic()).await;
    let mut source = Raw::connect(relay.tcp()).await;
    let full = source.ask(RESERVE).await;
    assert_eq!(full.status, RESERVATION_REFUSED);
    until_metric(admin, &denied("reservation_limit", 1)).await;
    let absent = source.ask(&connect(PeerId::random())).await;
    assert_eq!(absent.status, NO_RESERVATION);
    until_metric(admin, &denied("no_reservation", 1)).await;
    let _circuit = source.circuit(&mut destination).await;
    let full = source.ask(&connect(destination.id)).await;
    assert_eq!(full.status, RESOURCE_LIMIT_EXCEEDED);
    until_metric(admin, &denied("circuit_limit", 1)).await;
    let renewed = destination.ask(RESERVE).await;
    assert_eq!(renewed.status, OK, "a full relay renews");
    // The page of the admin server, and what it reads.
    assert!(get(admin, "/").await.contains("text/html"));
    let status = get(admin, "/status.json").await;
    assert!(status.contains("\"circuits\":1,"), "{status}");

    let ended = relay.ask_to_end();
    until_metric(admin, "relay_draining 1").await;
    let renewal = destination.ask(RESERVE).await;
    assert_eq!(renewal.status, RESERVATION_REFUSED);
    let circuit = source.ask(&connect(destination.id)).await;
    assert_eq!(circuit.status, RESOURCE_LIMIT_EXCEEDED);
    until_metric(admin, &denied("draining", 2)).await;
    source.vanish();
    destination.vanish();
    in_time(ended)
        .await
        .expect("no panic")
        .expect("a clean end");
}

#[tokio::test]
async fn a_destination_that_does_not_take_a_circuit_is_told_as_such() {
    let (relay, admin) = relay(|_| {}).await;
    let mut destination = Raw::reserved(relay.quic()).await;
    let mut source = Raw::connect(relay.tcp()).await;
    let answers: [&[u8]; 5] = [
        // PERMISSION_DENIED, a status that does not exist, CONNECT, too long, no message at all.
        &[5, 8, 1, 32, 0xca, 1],
        &[4, 8, 1, 32, 7],
        &[2, 8, 0],
        &[0xff, 0xff, 0x7f],
        &[],
    ];
    for said in answers {
        let mut asked = source.say(&connect(destination.id)).await;
        let (mut offer, _) = destination.offered().await;
        offer.write_all(said).await.expect("sent");
        offer.close().await.expect("closed");
        assert_eq!(answer(&mut asked).await.status, CONNECTION_FAILED);
    }
    until_metric(admin, &denied("destination_failed", 5)).await;
    // One that is gone before it has answered.
    let mut asked = source.say(&connect(destination.id)).await;
    let (offer, _) = destination.offered().await;
    destination.vanish();
    drop(offer);
    assert_eq!(answer(&mut asked).await.status, CONNECTION_FAILED);
    until_metric(admin, &denied("destination_failed", 6)).await;
    until_metric(admin, "relay_reservations 0").await;
    relay.stop().await;
}

#[tokio::test]
async fn hostile_messages_are_answered_and_counted_and_the_connection_goes_on() {
    let (relay, admin) = relay(|_| {}).await;
    let mut hostile = Raw::connect(relay.quic()).await;
    let oversized = [&[0x81, 0x20][..], &[0; 4097]].concat();
    let nobody = [8, 8, 1, 18, 4, 10, 2, 1, 2];
    let messages: [(&[u8], u64); 9] = [
        (&oversized, MALFORMED_MESSAGE),
        (&[0xff; 64], MALFORMED_MESSAGE),
        // An empty message, bytes that are no protocol buffer, CONNECT without a peer and to a peer that is none.
        (&[0], MALFORMED_MESSAGE),
        (&[3, 255, 255, 255], MALFORMED_MESSAGE),
        (&[2, 8, 1], MALFORMED_MESSAGE),
        (&nobody, MALFORMED_MESSAGE),
        // STATUS, and types that do not exist.
        (&[2, 8, 2], UNEXPECTED_MESSAGE),
        (&[2, 8, 3], UNEXPECTED_MESSAGE),
        (&[3, 8, 0xe3, 0x7f], UNEXPECTED_MESSAGE),
    ];
    for (message, status) in messages {
        let Answer { status: got, .. } = hostile.ask(message).await;
        assert_eq!(got, status, "{message:?}");
    }
    // Cut off.
    for message in [&[][..], &[9, 8]] {
        let mut stream = hostile.say(message).await;
        stream.close().await.expect("closed");
        assert_eq!(answer(&mut stream).await.status, MALFORMED_MESSAGE);
    }
    until_metric(admin, &denied("malformed", 11)).await;
    assert_eq!(hostile.ask(RESERVE).await.status, OK);
    relay.stop().await;
}

#[tokio::test]
async fn who_says_nothing_is_answered_when_its_time_is_up_on_either_side() {
    let (relay, admin) = relay(|_| {}).await;
    let mut destination = Raw::reserved(relay.quic()).await;
    let mut source = Raw::connect(relay.quic()).await;
    let mut silent = source.say(&[9]).await;
    let mut asked = source.say(&connect(destination.id)).await;
    let (_unanswered, _) = destination.offered().await;
    assert_eq!(answer(&mut silent).await.status, MALFORMED_MESSAGE);
    assert_eq!(answer(&mut asked).await.status, CONNECTION_FAILED);
    until_metric(admin, &denied("malformed", 1)).await;
    until_metric(admin, &denied("destination_failed", 1)).await;
    relay.stop().await;
}

#[tokio::test]
async fn fifty_circuits_that_are_asked_for_in_one_moment_all_come_about() {
    const CIRCUITS: usize = 50;
    let (relay, admin) = relay(|_| {}).await;
    let mut destination = Raw::reserved(relay.quic()).await;
    let mut source = Raw::connect(relay.tcp()).await;
    let mut asked = Vec::new();
    for _ in 0..CIRCUITS {
        asked.push(source.say(&connect(destination.id)).await);
    }
    let mut taken = Vec::new();
    for _ in 0..CIRCUITS {
        taken.push(destination.take().await);
    }
    for answer in join_all(asked.iter_mut().map(answer)).await {
        assert_eq!(answer.status, OK);
    }
    until_metric(admin, &format!("relay_circuits {CIRCUITS}")).await;
    // Each carries its own.
    for (number, stream) in asked.iter_mut().enumerate() {
        stream.write_all(&[number as u8]).await.expect("sent");
        stream.close().await.expect("closed");
    }
    let mut got = Vec::new();
    for stream in &mut taken {
        let mut bytes = Vec::new();
        in_time(stream.read_to_end(&mut bytes)).await.expect("read");
        got.extend(bytes);
    }
    got.sort_unstable();
    assert_eq!(got, (0..CIRCUITS as u8).collect::<Vec<_>>());
    relay.stop().await;
}

#[tokio::test]
async fn handshakes_beyond_the_bound_of_a_connection_are_refused_and_not_dropped() {
    let (relay, admin) = relay(|_| {}).await;
    // A stranger has 16 streams at once, and those beyond wait.
    let mut crowd = Raw::reserved(relay.tcp()).await;
    let mut silent = Vec::new();
    for _ in 0..150 {
        silent.push(crowd.hop().await);
    }
    let answers = join_all(silent.iter_mut().map(answer)).await;
    let refused = |answer: &&Answer| answer.status == RESOURCE_LIMIT_EXCEEDED;
    let refused = answers.iter().filter(refused).count();
    assert!(refused > 0);
    let late = answers
        .iter()
        .filter(|answer| answer.status == MALFORMED_MESSAGE);
    assert_eq!(late.count(), answers.len() - refused);
    until_metric(admin, &denied("handshake_limit", refused)).await;
    assert_eq!(crowd.ask(RESERVE).await.status, OK);
    relay.stop().await;
}

/// A circuit over QUIC from a source over TCP.
async fn circuit(relay: &Relay) -> (Raw, Raw, Stream, Stream) {
    let mut destination = Raw::reserved(relay.quic()).await;
    let mut source = Raw::connect(relay.tcp()).await;
    let (near, far) = source.circuit(&mut destination).await;
    (source, destination, near, far)
}

#[tokio::test]
async fn every_byte_is_counted_in_its_direction() {
    const THERE: usize = 1_234_567;
    const BACK: usize = 89;
    let (relay, admin) = relay(|_| {}).await;
    let (_source, _destination, mut near, mut far) = circuit(&relay).await;
    let send = async {
        near.write_all(&vec![1; THERE]).await.expect("sent");
        near.close().await.expect("closed");
        drain(&mut near).await
    };
    let receive = async {
        let received = drain(&mut far).await;
        far.write_all(&[2; BACK]).await.expect("sent");
        far.close().await.expect("closed");
        received
    };
    let (back, there) = tokio::join!(send, receive);
    assert_eq!((there, back), (THERE, BACK));
    until_metric(admin, "relay_circuits 0").await;
    until_metric(admin, "relay_circuit_seconds_count 1").await;
    until_metric(admin, &carried("to_destination", THERE)).await;
    until_metric(admin, &carried("to_source", BACK)).await;
    relay.stop().await;
}

#[tokio::test]
async fn an_end_of_one_direction_leaves_the_other_open() {
    let (relay, admin) = relay(|_| {}).await;
    let (_source, _destination, mut near, mut far) = circuit(&relay).await;
    near.close().await.expect("closed");
    assert_eq!(drain(&mut far).await, 0);
    until_metric(admin, "relay_circuits 1").await;
    for _ in 0..3 {
        far.write_all(b"more").await.expect("sent");
        far.flush().await.expect("sent");
        let mut got = [0; 4];
        in_time(near.read_exact(&mut got)).await.expect("read");
        assert_eq!(&got, b"more");
    }
    far.close().await.expect("closed");
    assert_eq!(drain(&mut near).await, 0);
    until_metric(admin, "relay_circuits 0").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_circuit_carries_as_many_bytes_as_it_may_and_ends() {
    const LIMIT: usize = 100_000;
    let (relay, admin) = relay(|config| config.limits.circuit_bytes = LIMIT as u64).await;
    let (_source, _destination, mut near, mut far) = circuit(&relay).await;
    let send = async {
        // It may break off before everything is sent.
        let _ = near.write_all(&vec![1; 2 * LIMIT]).await;
        let _ = near.flush().await;
    };
    let ((), received) = tokio::join!(send, drain(&mut far));
    assert!(received <= LIMIT, "{received} of {LIMIT} bytes");
    assert_eq!(drain(&mut near).await, 0);
    until_metric(admin, "relay_circuits 0").await;
    until_metric(admin, &carried("to_destination", LIMIT)).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_circuit_ends_when_its_time_is_up() {
    let (relay, admin) =
        relay(|config| config.limits.circuit_duration = Duration::from_secs(1)).await;
    let (_source, _destination, mut near, mut far) = circuit(&relay).await;
    assert_eq!(drain(&mut near).await, 0);
    assert_eq!(drain(&mut far).await, 0);
    until_metric(admin, "relay_circuits 0").await;
    relay.stop().await;
}

/// Counts bytes against the time that has in fact passed, so that it holds however slow the machine is; and everything arrives.
#[tokio::test]
async fn a_peer_gets_no_more_than_its_rate_over_all_its_circuits_and_nothing_is_cut() {
    const RATE: usize = 200_000;
    const BYTES: usize = 250_000;
    let (relay, _) = relay(|config| config.limits.bytes_per_second_per_peer = RATE as u64).await;
    let mut destination = Raw::reserved(relay.quic()).await;
    let mut source = Raw::connect(relay.tcp()).await;
    let start = Instant::now();
    let mut ends = Vec::new();
    for _ in 0..2 {
        ends.push(source.circuit(&mut destination).await);
    }
    let moves = ends.into_iter().map(|(mut near, mut far)| async move {
        let send = async {
            near.write_all(&vec![1; BYTES]).await.expect("sent");
            near.close().await.expect("closed");
        };
        tokio::join!(send, drain(&mut far)).1
    });
    assert_eq!(join_all(moves).await, [BYTES; 2]);
    let passed = start.elapsed().as_secs_f64();
    // What the bucket holds at first is one second.
    let allowed = RATE as f64 * (passed + 1.0);
    assert!(2.0 * BYTES as f64 <= allowed, "in {passed} s");
    relay.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_read_stops_its_sender_and_gets_all_when_it_does() {
    /// More than all windows of all connections together.
    const MOST: usize = 256 * 1024 * 1024;
    let (relay, _) = relay(|_| {}).await;
    let (_source, _destination, mut near, mut far) = circuit(&relay).await;
    let chunk = vec![1; 64 * 1024];
    let mut sent = 0;
    // A machine that is too slow for this wait makes the test weaker, never wrong.
    while sent < MOST
        && let Ok(written) = tokio::time::timeout(Duration::from_secs(2), near.write(&chunk)).await
    {
        sent += written.expect("open");
    }
    assert!(sent < MOST, "nothing stops the sender");
    let close = async { near.close().await.expect("closed") };
    let ((), received) = tokio::join!(close, drain(&mut far));
    assert_eq!(received, sent);
    relay.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_gone_ends_its_circuits_for_the_other() {
    let (relay, admin) = relay(|_| {}).await;
    let (source, _destination, near, mut far) = circuit(&relay).await;
    until_metric(admin, "relay_circuits 1").await;
    source.vanish();
    drop(near);
    assert_eq!(drain(&mut far).await, 0);
    until_metric(admin, "relay_circuits 0").await;
    relay.stop().await;
}
