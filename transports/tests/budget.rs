//! What a remote can make a process hold, over both transports.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::{
    future::{Future, poll_fn},
    io,
    task::Poll,
    time::Instant,
};

use common::{LONG, Node, ORDINARY, config, node};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, PeerId,
    core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox},
    identity::Keypair,
};
use p2pnode_transports::{
    Budgets, Class, Closed, Overuse, closed, server_within, to_socket_addr, tokio_runtime,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const BOTH: [(&str, &str); 2] = [
    ("/ip4/127.0.0.1/tcp/0", "21340-21349"),
    ("/ip4/127.0.0.1/udp/0/quic-v1", "21350-21359"),
];
const TCP: (&str, &str) = ("/ip4/127.0.0.1/tcp/0", "21360-21369");

struct Pair {
    budgets: Budgets,
    /// Signs of life that the victim has seen.
    signs: Box<dyn Fn() -> u64>,
    peer: PeerId,
    /// The end of the attacker, and the end that has a budget.
    attacker: StreamMuxerBox,
    victim: StreamMuxerBox,
    _nodes: (Node, Node),
}

async fn pair((addr, range): (&str, &str)) -> Pair {
    let keypair = Keypair::generate_ed25519();
    let budgets = Budgets::new(Class::Stranger);
    let transport = server_within(&keypair, tokio_runtime(), budgets.clone(), None).unwrap();
    let mut server = Node::run(&keypair, transport);
    let addr: Multiaddr = server.listen(addr).await;
    let (client, _) = node(config(range));
    let (_, attacker) = client.dial(&addr, ORDINARY).await.unwrap();
    let accepted = server.accept().await;
    let [ip, port] = [
        accepted.from.ip().to_string(),
        accepted.from.port().to_string(),
    ];
    let remote = match addr.to_string().contains("/tcp/") {
        true => format!("/ip4/{ip}/tcp/{port}"),
        false => format!("/ip4/{ip}/udp/{port}/quic-v1"),
    };
    let signs = budgets.signs_of_life(&accepted.peer, &remote.parse().unwrap());
    Pair {
        signs: Box::new(move || signs()),
        budgets,
        peer: accepted.peer,
        attacker,
        victim: accepted.muxer,
        _nodes: (server, client),
    }
}

/// Opens so many streams and writes so much on each, for as long as the connection takes it.
async fn flood(mut muxer: StreamMuxerBox, streams: usize, bytes: usize) {
    let mut writing = JoinSet::new();
    while writing.len() < streams {
        let open = poll_fn(|cx| {
            let _ = muxer.poll_unpin(cx);
            muxer.poll_outbound_unpin(cx)
        });
        let Ok(mut stream) = open.await else { return };
        writing.spawn(async move {
            let _ = stream.write_all(&vec![7; bytes]).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
    }
    poll_fn(|cx| {
        let _ = muxer.poll_unpin(cx);
        Poll::<()>::Pending
    })
    .await;
}

/// Takes the next stream while the connection goes on.
async fn next(muxer: &mut StreamMuxerBox) -> io::Result<SubstreamBox> {
    let next = poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
            return Poll::Ready(Err(error));
        }
        muxer.poll_inbound_unpin(cx)
    });
    tokio::time::timeout(LONG, next).await.unwrap()
}

#[tokio::test]
async fn a_stranger_has_sixteen_streams_at_once_and_the_others_come_when_its_class_rises() {
    for transport in BOTH {
        let mut pair = pair(transport).await;
        let before = (pair.signs)();
        let flood = tokio::spawn(flood(pair.attacker, 100, 1));
        let mut streams = Vec::new();
        for _ in 0..Class::Stranger.streams() {
            let mut stream = next(&mut pair.victim).await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            streams.push(stream);
        }
        assert!((pair.signs)() > before, "{transport:?}");
        // Whatever else arrives comes before the byte of a stream that is let go of.
        let more = poll_fn(|cx| {
            let _ = pair.victim.poll_unpin(cx);
            Poll::Ready(pair.victim.poll_inbound_unpin(cx).is_ready())
        });
        assert!(!more.await, "{transport:?}");
        pair.budgets.set_class(pair.peer, Class::Known);
        while streams.len() < 100 {
            streams.push(next(&mut pair.victim).await.unwrap());
        }
        flood.abort();
    }
}

/// Opens streams and drops them, for as long as the connection takes it.
async fn reopen(mut muxer: StreamMuxerBox) {
    loop {
        let open = poll_fn(|cx| {
            let _ = muxer.poll_unpin(cx);
            muxer.poll_outbound_unpin(cx)
        });
        let Ok(mut stream) = open.await else { return };
        let _ = stream.write_all(&[7]).await;
        drop(stream);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_that_are_opened_and_dropped_without_end_are_taken_at_a_pace() {
    for transport in BOTH {
        let start = Instant::now();
        let mut pair = pair(transport).await;
        let flood = tokio::spawn(reopen(pair.attacker));
        let mut taken = 0;
        let ended = loop {
            match next(&mut pair.victim).await {
                Ok(_) if taken == 300 => break None,
                Ok(_) => taken += 1,
                Err(error) => break closed(&error),
            }
        };
        let paced = 257 + start.elapsed().as_millis() / 50;
        assert!(taken <= paced, "{transport:?}: {taken} of {paced}");
        let over = Some(Closed::Overuse(Overuse::Stranger));
        assert!(ended.is_none() || ended == over, "{transport:?}: {ended:?}");
        flood.abort();
    }
}

#[tokio::test]
async fn a_stranger_that_sends_more_than_its_bytes_is_closed_however_it_spreads_them() {
    for (streams, bytes) in [(255, 256 << 10), (8, 256 << 10), (255, 8 << 10)] {
        let mut pair = pair(TCP).await;
        let flood = tokio::spawn(flood(pair.attacker, streams, bytes));
        let mut unread = Vec::new();
        let error = loop {
            match next(&mut pair.victim).await {
                Ok(stream) if unread.len() < 16 => unread.push(stream),
                Ok(_) => panic!("a stranger has more than 16 streams"),
                Err(error) => break error,
            }
            assert!(pair.budgets.held() <= u64::from(Class::Stranger.bytes()) + (17 << 10));
        };
        let over = Closed::Overuse(Overuse::Stranger);
        assert_eq!(closed(&error), Some(over), "{error:?}");
        flood.abort();
    }
}

#[tokio::test]
async fn of_a_known_peer_no_more_is_read_than_its_bytes_until_they_are_and_none_are_lost() {
    const STREAMS: usize = 40;
    const BYTES: usize = 200 << 10;
    let mut pair = pair(TCP).await;
    pair.budgets.set_class(pair.peer, Class::Known);
    let flood = tokio::spawn(flood(pair.attacker, STREAMS, BYTES));
    let most = u64::from(Class::Known.bytes()) + (17 << 10);
    let mut streams = Vec::new();
    let full = poll_fn(|cx| {
        if let Poll::Ready(Ok(stream)) = pair.victim.poll_inbound_unpin(cx) {
            streams.push(stream);
            cx.waker().wake_by_ref();
        }
        if let Poll::Ready(Err(error)) = pair.victim.poll_unpin(cx) {
            panic!("{error}");
        }
        let held = pair.budgets.held();
        assert!(held <= most, "{held} bytes are held");
        match held > most - (40 << 10) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    tokio::time::timeout(LONG, full).await.unwrap();
    while streams.len() < STREAMS {
        // The streams that have not arrived come behind what is read now.
        let mut first = vec![0; BYTES];
        let mut stream = streams.remove(0);
        let read = async { stream.read_exact(&mut first).await };
        drive(&mut pair.victim, read, |stream| streams.push(stream))
            .await
            .unwrap();
        streams.push(stream);
    }
    assert!(pair.budgets.held() <= most);
    flood.abort();
}

/// Drives a connection while `work` goes on.
async fn drive<T>(
    muxer: &mut StreamMuxerBox,
    work: impl Future<Output = T>,
    mut arrived: impl FnMut(SubstreamBox),
) -> T {
    let mut work = std::pin::pin!(work);
    let both = poll_fn(|cx| {
        while let Poll::Ready(Ok(stream)) = muxer.poll_inbound_unpin(cx) {
            arrived(stream);
        }
        let _ = muxer.poll_unpin(cx);
        work.as_mut().poll(cx)
    });
    tokio::time::timeout(LONG, both).await.unwrap()
}

#[tokio::test]
async fn the_connection_that_holds_the_most_is_closed_for_want_of_memory_and_says_so() {
    for transport in BOTH {
        let mut pair = pair(transport).await;
        pair.budgets.set_class(pair.peer, Class::Carrying);
        let flood = tokio::spawn(flood(pair.attacker, 4, 200 << 10));
        let mut streams = vec![next(&mut pair.victim).await.unwrap()];
        let filled = poll_fn(|cx| {
            while let Poll::Ready(Ok(stream)) = pair.victim.poll_inbound_unpin(cx) {
                streams.push(stream);
            }
            let _ = pair.victim.poll_unpin(cx);
            cx.waker().wake_by_ref();
            match pair.budgets.held() > 700 << 10 {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        tokio::time::timeout(LONG, filled).await.unwrap();
        let closed_here = pair.budgets.close(1, 1);
        let [largest] = closed_here[..] else {
            panic!("{closed_here:?}")
        };
        assert_eq!((largest.peer, largest.class), (pair.peer, Class::Carrying));
        assert!(largest.held > 700 << 10);
        assert_eq!(pair.budgets.close(1, 1), []);
        let error = loop {
            if let Err(error) = next(&mut pair.victim).await {
                break error;
            }
        };
        let over = Closed::Overuse(Overuse::Memory);
        assert_eq!(closed(&error), Some(over), "{transport:?}: {error:?}");
        flood.abort();
    }
}

#[tokio::test]
async fn while_memory_is_short_no_more_comes_over_quic_than_a_small_part_and_what_is_read_goes_on()
{
    const BYTES: usize = 300 << 10;
    let (addr, _) = BOTH[1];
    let keypair = Keypair::generate_ed25519();
    let budgets = Budgets::new(Class::Known);
    let transport = server_within(&keypair, tokio_runtime(), budgets.clone(), None).unwrap();
    let mut server = Node::run(&keypair, transport);
    let addr: Multiaddr = server.listen(addr).await;
    let (mut nodes, mut floods, mut ends) = (Vec::new(), JoinSet::new(), Vec::new());
    budgets.set_room(0);
    for range in ["21370-21374", "21375-21379"] {
        let (client, _) = node(config(range));
        let (_, muxer) = client.dial(&addr, ORDINARY).await.unwrap();
        floods.spawn(flood(muxer, 1, BYTES));
        let mut end = server.accept().await.muxer;
        let stream = next(&mut end).await.unwrap();
        ends.push((end, stream));
        nodes.push(client);
    }
    let (mut honest, mut stream) = ends.pop().unwrap();
    let mut most = 0;
    let read = async {
        let mut chunk = [0; 1000];
        for _ in 0..BYTES / chunk.len() {
            stream.read_exact(&mut chunk).await.unwrap();
            most = most.max(budgets.held());
        }
    };
    drive(&mut honest, read, drop).await;
    // The other one was sent as much, and nobody has read it.
    assert!(most < 200 << 10, "{most} bytes were held");
}

#[tokio::test]
async fn of_proposals_without_end_in_a_handshake_a_few_are_answered() {
    const REFUSAL: &[u8] = b"\x03na\n";
    let keypair = Keypair::generate_ed25519();
    let budgets = Budgets::new(Class::Stranger);
    let transport = server_within(&keypair, tokio_runtime(), budgets, None).unwrap();
    let mut server = Node::run(&keypair, transport);
    let addr: Multiaddr = server.listen(TCP.0).await;
    let mut stream = TcpStream::connect(to_socket_addr(&addr).unwrap())
        .await
        .unwrap();
    let proposals = b"\x05/x/1\n".repeat(32);
    let proposals = [b"\x13/multistream/1.0.0\n", &proposals[..]].concat();
    stream.write_all(&proposals).await.unwrap();
    let mut answers = Vec::new();
    let read = stream.read_to_end(&mut answers);
    tokio::time::timeout(LONG, read).await.unwrap().unwrap();
    let refusals = answers
        .windows(REFUSAL.len())
        .filter(|part| *part == REFUSAL);
    assert_eq!(refusals.count(), 32);
}
