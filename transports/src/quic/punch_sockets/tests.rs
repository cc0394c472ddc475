#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::atomic::{AtomicBool, AtomicU16, Ordering::SeqCst},
};

use libp2p::identity::Keypair;
use tokio::{net::UdpSocket, sync::Notify, task::JoinHandle};

use super::*;
use crate::{
    net::{
        budget::{Budgets, Class},
        kin::Kin,
    },
    quic::{
        congestion::Congestion,
        settings::{Role, tokio_runtime},
    },
    tls::Tls,
};

fn settings() -> Arc<Settings> {
    let keypair = Keypair::generate_ed25519();
    let tls = Tls::new(&keypair, Kin::default()).unwrap();
    let (congestion, runtime) = (Congestion::default(), tokio_runtime());
    let budgets = Budgets::new(Class::Stranger);
    Settings::new(
        &keypair,
        &tls,
        congestion,
        Role::Node,
        runtime,
        budgets,
        None,
    )
    .unwrap()
}

fn sockets(range: &str) -> (Arc<PunchSockets>, u16) {
    let shared = Shared::new(Ports::new(range.parse().unwrap(), b"seed"));
    let sockets = PunchSockets::new(settings(), shared);
    sockets.bind(Family::Ip4).unwrap();
    let port = punch_port(&sockets);
    (sockets, port)
}

fn punch_port(sockets: &PunchSockets) -> u16 {
    let ports = &sockets.shared.ports;
    ports.punch_port(Transport::Quic, Family::Ip4).unwrap()
}

/// A remote, behind something that passes what comes from a port with this connection ID.
async fn remote(passes: impl Fn(u16, &[u8]) -> bool + Send + 'static) -> SocketAddr {
    let at = ([127, 0, 0, 1], 0).into();
    let mut server = Socket::bind(at, &settings(), &Arc::default(), None).unwrap();
    let to = server.local();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Some(accepted) = poll_fn(|cx| server.poll_accept(cx)).await {
            connections.push(tokio::spawn(accepted.handshake()));
        }
    });
    let front = Arc::new(UdpSocket::bind(at).await.unwrap());
    let addr = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut flows = BTreeMap::new();
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = front.recv_from(&mut buffer).await.unwrap();
            if !passes(from.port(), &buffer[6..14]) {
                continue;
            }
            let flow = flows.entry(from).or_insert_with(|| {
                let back = std::net::UdpSocket::bind(at).unwrap();
                back.connect(to).unwrap();
                back.set_nonblocking(true).unwrap();
                let back = Arc::new(UdpSocket::from_std(back).unwrap());
                tokio::spawn(answers(Arc::clone(&back), Arc::clone(&front), from));
                back
            });
            flow.send(&buffer[..len]).await.unwrap();
        }
    });
    addr
}

async fn answers(from: Arc<UdpSocket>, by: Arc<UdpSocket>, to: SocketAddr) {
    let mut buffer = [0; 2048];
    loop {
        let len = from.recv(&mut buffer).await.unwrap();
        by.send_to(&buffer[..len], to).await.unwrap();
    }
}

fn dial(
    sockets: &Arc<PunchSockets>,
    remote: SocketAddr,
) -> JoinHandle<Result<(Connection, u16), Failure>> {
    tokio::spawn(Arc::clone(sockets).dial(remote))
}

#[tokio::test]
async fn a_punch_port_that_gets_a_connection_while_another_port_is_answered_stays() {
    let (sockets, punch) = sockets("23100-23149");
    let (tried, serves) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (on_try, is_serving) = (Arc::clone(&tried), Arc::clone(&serves));
    // What the punch port sends is lost until it is dialed from a third time, behind the first dial and its repetition.
    let from_punch = Mutex::new(BTreeSet::new());
    let silent = remote(move |port, id| {
        if port == punch {
            let mut ids = from_punch.lock().unwrap();
            ids.insert(id.to_vec());
            return ids.len() >= 3;
        }
        on_try.notify_one();
        is_serving.load(SeqCst)
    });
    let dialed = dial(&sockets, silent.await);
    tried.notified().await;
    let relay = remote(|_, _| true).await;
    let (_relay, port) = dial(&sockets, relay).await.unwrap().unwrap();
    assert_eq!(port, punch);
    serves.store(true, SeqCst);
    let (_connection, port) = dialed.await.unwrap().unwrap();
    assert_eq!((port, punch_port(&sockets)), (punch, punch));
}

#[tokio::test]
async fn a_dial_that_is_answered_at_the_port_that_was_left_comes_to_the_punch_port() {
    let (sockets, before) = sockets("23150-23199");
    let ports = &sockets.shared.ports;
    let tcp = ports.open(Transport::Tcp, Family::Ip4, |_| Ok(())).unwrap();
    let moved = Arc::new(AtomicU16::new(0));
    let now = Arc::clone(&moved);
    let late = remote(move |port, _| {
        let now = now.load(SeqCst);
        now != 0 && [before, now].contains(&port)
    });
    let late = dial(&sockets, late.await);
    let silent = remote(move |port, _| port != before).await;
    let (connection, port) = dial(&sockets, silent).await.unwrap().unwrap();
    assert_ne!(port, before);
    assert_eq!(port, punch_port(&sockets));
    moved.store(port, SeqCst);
    let (_late, from) = late.await.unwrap().unwrap();
    assert_eq!(from, port);
    assert!(sockets.open()[&Family::Ip4].socket.serves());
    drop(connection);
    // TCP still has the number, and its lock.
    assert_eq!(tcp.0.port(), before);
    assert!(socket::lock(Family::Ip4, before).is_err());
}
