//! A relay on loopback, and peers with a reservation on it.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Swarm, identity::Keypair, multiaddr::Protocol, relay, swarm::SwarmEvent,
};
use p2pnode_daemon::config::{self, Flags, Sources};
use relay_node::{
    Format,
    command::cli::RunArgs,
    config::{Config, PROGRAM},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use crate::peer::{self, BehaviourEvent, until};

pub struct Relay {
    pub peer: PeerId,
    quic: Option<Multiaddr>,
    tcp: Option<Multiaddr>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

/// A port that is free for UDP and TCP.
pub fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = udp.local_addr().expect("bound").port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub fn config(port: u16) -> Config {
    let args = RunArgs {
        listen: vec![
            format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
            format!("/ip4/127.0.0.1/tcp/{port}"),
        ],
        key: Some("unused: a test gives its key".to_owned()),
        ..RunArgs::default()
    };
    let sources = Sources {
        flags: args.flags(Flags::default()),
        ..Sources::default()
    };
    let mut config = config::load(&PROGRAM, &sources, Config::read)
        .expect("a valid configuration")
        .config;
    // A test that drains says so.
    config.drain_timeout = Duration::ZERO;
    // So does one that asks over the control socket, of which there is one per host by default.
    config.control = None;
    config
}

/// The relay is bound when this returns: its first poll binds, and on one thread it is polled before we go on.
pub async fn start(config: Config) -> Relay {
    start_as(Keypair::generate_ed25519(), config).await
}

/// The same with that key.
pub async fn start_as(key: Keypair, config: Config) -> Relay {
    let peer = key.public().to_peer_id();
    let [quic, tcp] = ["quic-v1", "tcp"].map(|transport| {
        let mut addresses = config.listen.addrs.iter();
        let address = addresses.find(|address| address.to_string().contains(transport));
        address.map(|address| address.clone().with(Protocol::P2p(peer)))
    });
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        relay_node::run(&key, &config, Format::Text, stopped).await
    });
    tokio::task::yield_now().await;
    Relay {
        peer,
        quic,
        tcp,
        stop,
        running,
    }
}

impl Relay {
    pub fn quic(&self) -> &Multiaddr {
        self.quic.as_ref().expect("it listens over QUIC")
    }

    pub fn tcp(&self) -> &Multiaddr {
        self.tcp.as_ref().expect("it listens over TCP")
    }

    pub async fn stop(self) {
        self.ask_to_end()
            .await
            .expect("no panic")
            .expect("a clean end");
    }

    /// Asks it to end, as a signal does; what is returned is ready when it has.
    pub fn ask_to_end(self) -> JoinHandle<anyhow::Result<()>> {
        self.stop.send(()).expect("the relay runs");
        self.running
    }
}

/// What its admin server at `admin` answers to a request for `path`.
pub async fn get(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.expect("the admin server");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

pub async fn reserve(relay: PeerId, address: &Multiaddr) -> (Swarm<peer::Behaviour>, Multiaddr) {
    let mut swarm = peer::swarm(Keypair::generate_ed25519());
    swarm
        .listen_on(address.clone().with(Protocol::P2pCircuit))
        .expect("a circuit address");
    until(&mut swarm, |event| match event {
        SwarmEvent::Behaviour(BehaviourEvent::Relay(
            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. },
        )) => (*relay_peer_id == relay).then_some(()),
        _ => None,
    })
    .await;
    let circuit = address
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(*swarm.local_peer_id()));
    (swarm, circuit)
}
