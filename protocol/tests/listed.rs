//! Nothing of ours is proposed to a peer whose identify does not list it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one event among many"
)]

mod party;

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, identify,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use p2pnode_protocol::{
    directory, draining,
    exchange::{Handler, Reply, Report},
    introduction::{Introduce, Notify, Request},
};
use tracing::{Event, Metadata, Subscriber, field::Visit, span};

use party::{MAX_CONCURRENT, Party, listens, swarm};

/// Proposals of ours that a listener has rejected.
static REJECTED: AtomicUsize = AtomicUsize::new(0);

/// Counts them by what multistream-select logs.
struct Rejections;

impl Subscriber for Rejections {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("multistream_select")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        if text.0.contains("rejecting protocol") && text.0.contains("/p2pnode/") {
            REJECTED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{value:?} ");
    }
}

#[derive(NetworkBehaviour)]
struct Ours {
    identify: identify::Behaviour,
    directory: directory::Behaviour,
    draining: draining::Behaviour,
    asks: Party<Notify, Introduce>,
}

fn identify(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), key.public()))
}

/// A peer that supports nothing of ours.
async fn foreign() -> (PeerId, Multiaddr) {
    let mut foreign = swarm(identify);
    let peer = *foreign.local_peer_id();
    let addr = listens(&mut foreign).await;
    tokio::spawn(foreign.for_each(|_| std::future::ready(())));
    (peer, addr)
}

/// Asks for everything right after the handshake; returns once each question has ended.
async fn ask_all(eager: bool) -> usize {
    let (peer, addr) = foreign().await;
    let before = REJECTED.load(Ordering::Relaxed);
    let mut ours = swarm(|key| Ours {
        identify: identify(key),
        directory: directory::Behaviour::client(key.public().to_peer_id(), [(peer, addr.clone())]),
        draining: draining::Behaviour::default(),
        asks: Party::new(match eager {
            true => || Handler::new(MAX_CONCURRENT).eager(),
            false => || Handler::new(MAX_CONCURRENT),
        }),
    });
    ours.dial(addr).unwrap();
    let local = *ours.local_peer_id();
    let (mut looked_up, mut registered, mut introduced) = (false, false, false);
    while !(looked_up && registered && introduced) {
        match ours.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => {
                let behaviour = ours.behaviour_mut();
                behaviour.directory.look_up(&PeerId::random());
                behaviour.directory.register(peer, &local, vec![7; 32]);
                behaviour.draining.announce(Duration::from_secs(1));
                let request = Request {
                    peer: PeerId::random(),
                    addrs: Vec::new(),
                    search: None,
                };
                behaviour.asks.ask(peer, request);
            }
            SwarmEvent::Behaviour(OursEvent::Identify(identify::Event::Received {
                peer_id,
                connection_id,
                info,
            })) => {
                let behaviour = ours.behaviour_mut();
                let protocols = &info.protocols;
                behaviour.directory.identified(connection_id, protocols);
                behaviour
                    .draining
                    .identified(peer_id, connection_id, protocols);
            }
            SwarmEvent::Behaviour(OursEvent::Directory(event)) => match event {
                directory::Event::LookedUp { .. } => looked_up = true,
                directory::Event::Sent { arrived, .. } => {
                    assert!(!arrived);
                    registered = true;
                }
                other => panic!("{other:?}"),
            },
            SwarmEvent::Behaviour(OursEvent::Asks(Report::Replied(_, reply))) => {
                assert!(matches!(reply, Reply::Unsupported), "{reply:?}");
                introduced = true;
            }
            _ => {}
        }
    }
    REJECTED.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn a_peer_that_lists_nothing_of_ours_is_asked_for_nothing() {
    tracing::subscriber::set_global_default(Rejections).unwrap();
    assert_eq!(ask_all(false).await, 0);
    assert_eq!(ask_all(true).await, 1, "a proposal is counted");
}
