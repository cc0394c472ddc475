//! Pings between swarms on loopback: ours with ours, and with libp2p's own.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, noise,
    swarm::{ConnectionId, NetworkBehaviour, SwarmEvent, dummy},
    tcp, yamux,
};
use p2pnode_protocol::ping::{Behaviour, Event, Failure, Pace, Signs};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const NEVER: Duration = Duration::from_secs(3600);

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_quic()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(NEVER))
        .build()
}

fn ours(interval: Duration, timeout: Duration) -> Behaviour {
    Behaviour::new(move |_, _| Pace { interval, timeout })
}

/// Our swarm, with a connection to a remote that does not run yet.
async fn connected<B: NetworkBehaviour>(
    local: Behaviour,
    remote: B,
    address: &str,
) -> (Swarm<Behaviour>, Swarm<B>, PeerId, ConnectionId) {
    let (mut local, mut remote) = (swarm(local), swarm(remote));
    remote.listen_on(address.parse().unwrap()).unwrap();
    let address: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = remote.select_next_some().await {
            break address;
        }
    };
    local.dial(address).unwrap();
    let (mut id, mut accepted) = (None, false);
    while id.is_none() || !accepted {
        tokio::select! {
            event = local.select_next_some() => if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                id = Some(connection_id);
            },
            event = remote.select_next_some() => accepted |= matches!(event, SwarmEvent::ConnectionEstablished { .. }),
        }
    }
    let peer = *remote.local_peer_id();
    (local, remote, peer, id.unwrap())
}

fn run<B>(swarm: Swarm<B>)
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: Send,
{
    tokio::spawn(swarm.for_each(|_| std::future::ready(())));
}

async fn next(swarm: &mut Swarm<Behaviour>) -> Event {
    let event = async {
        loop {
            if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), event)
        .await
        .unwrap()
}

/// All of `count` pings are answered soon.
async fn answers<B>(local: Behaviour, remote: B, address: &str, count: usize)
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: Send,
{
    let (mut local, remote, ..) = connected(local, remote, address).await;
    run(remote);
    for number in 0..count {
        let event = next(&mut local).await;
        let rtt = event
            .result
            .unwrap_or_else(|error| panic!("ping {number}: {error}"));
        assert!(
            rtt < Duration::from_millis(500),
            "ping {number} took {rtt:?}"
        );
        assert_eq!((event.missed, event.asked), (0, false));
    }
}

#[tokio::test]
async fn our_own_answer_every_ping_over_quic_and_tcp() {
    let fast = || ours(Duration::from_millis(5), Duration::from_secs(5));
    let slow = || ours(NEVER, Duration::from_secs(5));
    answers(fast(), slow(), QUIC, 50).await;
    answers(fast(), slow(), TCP, 50).await;
}

/// libp2p's own answers the second ping on a stream when it pings by itself, here after an hour.
#[tokio::test]
async fn pings_to_libp2ps_own_are_answered_over_quic_though_it_forgets_to_wait() {
    let remote = libp2p::ping::Config::new().with_interval(NEVER);
    let local = ours(Duration::from_millis(20), Duration::from_secs(2));
    answers(local, libp2p::ping::Behaviour::new(remote), QUIC, 20).await;
}

#[tokio::test]
async fn libp2ps_own_is_answered_whenever_it_pings() {
    let often = libp2p::ping::Config::new()
        .with_interval(Duration::from_millis(5))
        .with_timeout(Duration::from_secs(2));
    let remote = ours(NEVER, Duration::from_secs(5));
    let (local, mut theirs, ..) =
        connected(remote, libp2p::ping::Behaviour::new(often), QUIC).await;
    run(local);
    let mut answered = 0;
    while answered < 50 {
        if let SwarmEvent::Behaviour(event) = theirs.select_next_some().await {
            event.result.unwrap();
            answered += 1;
        }
    }
}

#[tokio::test]
async fn a_ping_that_is_asked_for_does_not_wait_for_its_turn() {
    let local = ours(NEVER, Duration::from_secs(5));
    let remote = ours(NEVER, Duration::from_secs(5));
    let (mut local, remote, peer, id) = connected(local, remote, QUIC).await;
    run(remote);
    assert!(
        !next(&mut local).await.asked,
        "the first one comes by itself"
    );
    for _ in 0..3 {
        local.behaviour_mut().now(peer, id);
        let event = next(&mut local).await;
        assert!(event.result.is_ok() && event.asked, "{event:?}");
    }
}

/// A remote in a thread of its own, which stands still from the moment that the sender is dropped: its sockets are open, and
/// nobody serves them. The thread ends when the receiver is dropped as well.
fn remote_that_can_stand_still(
    listen: &'static str,
) -> (Multiaddr, oneshot::Sender<()>, mpsc::Receiver<()>) {
    let (bound, address) = mpsc::channel();
    let (go_on, stopped) = oneshot::channel::<()>();
    let (alive, held) = mpsc::sync_channel::<()>(0);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let remote = runtime.block_on(async {
            let mut remote = swarm(ours(NEVER, NEVER));
            remote.listen_on(listen.parse().unwrap()).unwrap();
            let serve = async {
                loop {
                    if let SwarmEvent::NewListenAddr { address, .. } =
                        remote.select_next_some().await
                    {
                        bound.send(address).unwrap();
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                _ = stopped => {}
            }
            remote
        });
        // Blocks until the receiver is gone.
        let _ = alive.send(());
        drop(remote);
    });
    (address.recv().unwrap(), go_on, held)
}

#[tokio::test]
async fn a_remote_that_falls_silent_is_missed_after_the_timeout_again_and_again() {
    let timeout = Duration::from_millis(500);
    let (address, go_on, _held) = remote_that_can_stand_still(TCP);
    let mut local = swarm(ours(Duration::from_millis(10), timeout));
    local.dial(address).unwrap();
    next(&mut local).await.result.unwrap();
    let silent = Instant::now();
    drop(go_on);
    let mut missed = 0;
    while missed < 3 {
        let event = next(&mut local).await;
        assert!(
            missed == 0 || event.result.is_err(),
            "it answers from the grave"
        );
        if event.result.is_err() {
            missed += 1;
            assert!(matches!(event.result, Err(Failure::Timeout)), "{event:?}");
            assert_eq!(event.missed, missed);
            assert!(silent.elapsed() >= timeout * missed);
        }
    }
}

/// The remote answers no ping, and at each of the first looks there is another sign of life.
#[tokio::test]
async fn signs_of_life_in_the_meantime_put_off_the_miss_of_a_ping() {
    let timeout = Duration::from_millis(500);
    let (address, go_on, _held) = remote_that_can_stand_still(TCP);
    let looks = Arc::new(AtomicU64::new(0));
    let signs: Signs = {
        let looks = Arc::clone(&looks);
        Arc::new(move || looks.fetch_add(1, Relaxed).min(8))
    };
    let behaviour = ours(NEVER, timeout).with_signs(move |_, _| Arc::clone(&signs));
    let mut local = swarm(behaviour);
    local.dial(address).unwrap();
    let first = next(&mut local).await;
    drop(go_on);
    looks.store(0, Relaxed);
    local.behaviour_mut().now(first.peer, first.connection);
    let missed = next(&mut local).await;
    assert!(matches!(missed.result, Err(Failure::Timeout)), "{missed:?}");
    let looks = looks.load(Relaxed);
    assert!(looks > 8, "missed after {looks} looks");
}

#[tokio::test]
async fn a_process_that_did_not_run_misses_nobody() {
    let timeout = Duration::from_millis(500);
    for address in [QUIC, TCP] {
        let (address, _go_on, _held) = remote_that_can_stand_still(address);
        let mut local = swarm(ours(NEVER, timeout));
        local.dial(address).unwrap();
        let first = next(&mut local).await;
        for yields in 0..8 {
            local.behaviour_mut().now(first.peer, first.connection);
            // As far as the ping gets: it is asked for, begun, on its way, or answered.
            let mut answer = None;
            for _ in 0..yields {
                if let Poll::Ready(Some(SwarmEvent::Behaviour(event))) =
                    futures::poll!(local.next())
                {
                    answer = Some(event);
                }
                tokio::task::yield_now().await;
            }
            std::thread::sleep(timeout * 2);
            let event = match answer {
                Some(event) => event,
                None => next(&mut local).await,
            };
            assert!(event.result.is_ok(), "after {yields} turns: {event:?}");
        }
    }
}

#[tokio::test]
async fn a_remote_without_ping_is_told_once_and_then_when_asked() {
    let local = ours(Duration::from_millis(10), Duration::from_secs(5));
    let (mut local, remote, peer, id) = connected(local, dummy::Behaviour, QUIC).await;
    run(remote);
    let event = next(&mut local).await;
    assert!(
        matches!(event.result, Err(Failure::Unsupported)),
        "{event:?}"
    );
    local.behaviour_mut().now(peer, id);
    let event = next(&mut local).await;
    assert!(
        matches!(event.result, Err(Failure::Unsupported)) && event.asked && event.missed == 0,
        "{event:?}"
    );
}
