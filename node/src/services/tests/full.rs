//! A node whose memory has no place for another session.

use p2pnode_services::{
    core::sessions::{Key, Role},
    wire::{Carries, SessionId},
};

use prometheus_client::{encoding::text::encode, registry::Registry};

use super::*;
use crate::{
    observe::metrics::Metrics,
    services::{
        Hub, Socket,
        lines::{Ended, Line},
    },
};

/// A client without a session ends with the reason, whatever brought it: it looked like one whose service had ended.
#[tokio::test]
async fn a_client_that_this_node_has_no_memory_for_is_reported_as_refused() {
    let (metrics, peer) = (Metrics::default(), libp2p::PeerId::random());
    let config = Config::from_yaml("").unwrap();
    let hub = Hub::new(&config.services, 1 << 20, 100, metrics.sessions());
    let service = || "it".parse::<config::ServiceName>().unwrap();
    let fill = |number: u128| {
        let key = Key {
            peer,
            role: Role::Forward,
            session: SessionId(number.to_be_bytes()),
        };
        let (carries, now) = (Carries::Bytes, std::time::Instant::now());
        hub.state().table.handle_open(key, service(), carries, now)
    };
    let _shares: Vec<_> = (0..).map_while(fill).collect();
    let refused = |line: Line| {
        let Report::Session(session) = line.report else {
            panic!("a session was refused");
        };
        assert_eq!(line.ended, Some(Ended::Failed));
        assert_eq!((session.state, session.peer), (State::Refused, peer));
        assert_eq!(session.service, "it");
        let reason = session.reason.unwrap();
        assert!(reason.contains("sessions.memory"), "{reason}");
    };
    let (sink, mut lines) = reports();
    let (_client, socket) = UnixStream::pair().unwrap();
    let place = p2pnode_services::core::sockets::Place::default();
    hub.connect(service(), peer, Socket::Unix(socket, place), sink)
        .await;
    refused(lines.recv().await.unwrap());
    for scheme in ["tcp", "udp"] {
        let (sink, mut lines) = reports();
        let there = forward(&format!("{scheme}://127.0.0.1:0"), &format!("it@{peer}"));
        let _forwarding = hub.forward(there, false, Some(sink)).unwrap();
        let Report::Listening { listen, .. } = lines.recv().await.unwrap().report else {
            panic!("it listens first");
        };
        let at = listen.split_once("://").unwrap().1;
        if scheme == "tcp" {
            drop(TcpStream::connect(at).await.unwrap());
        } else {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(b"?", at).await.unwrap();
        }
        refused(lines.recv().await.unwrap());
    }
    let (mut registry, mut counted) = (Registry::default(), String::new());
    metrics.register(&mut registry);
    encode(&mut counted, &registry).unwrap();
    let opens =
        "p2pnode_session_opens_total{role=\"forward\",service=\"it\",outcome=\"refused\"} 3";
    assert!(counted.contains(opens), "{counted}");
}
