//! A node without a swarm: a transport that is polled, and dials alongside it.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "it is a module of several crates")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{io, net::SocketAddr, pin::Pin, task::Poll, time::Duration};

use futures::{StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, tcp, yamux,
};
use p2pnode_transports::{
    Config, Congestion, FamilyPolicy, Handle, PortRange, build, server, tokio_runtime,
};
use tokio::sync::{mpsc, oneshot};

pub type Connection = (PeerId, StreamMuxerBox);
pub type DialResult = Result<Connection, TransportError<io::Error>>;

pub const ORDINARY: DialOpts = DialOpts {
    role: Endpoint::Dialer,
    port_use: PortUse::Reuse,
};
pub const NEW: DialOpts = DialOpts {
    role: Endpoint::Dialer,
    port_use: PortUse::New,
};
pub const AS_LISTENER: DialOpts = DialOpts {
    role: Endpoint::Listener,
    port_use: PortUse::Reuse,
};

/// Longer than anything here takes, shorter than a test runner's patience.
pub const LONG: Duration = Duration::from_secs(30);

pub type Transport = Boxed<Connection>;

enum Command {
    Listen(
        Multiaddr,
        oneshot::Sender<Result<(), TransportError<io::Error>>>,
    ),
    Dial(Multiaddr, DialOpts, oneshot::Sender<DialResult>),
}

/// A connection that came in, authenticated.
pub struct Accepted {
    pub from: SocketAddr,
    pub local: Multiaddr,
    pub peer: PeerId,
    pub muxer: StreamMuxerBox,
}

pub struct Node {
    pub peer: PeerId,
    commands: mpsc::Sender<Command>,
    pub listening: mpsc::Receiver<Multiaddr>,
    pub accepted: mpsc::Receiver<io::Result<Accepted>>,
}

pub fn range(text: &str) -> PortRange {
    text.parse().unwrap()
}

pub fn config(text: &str) -> Config {
    Config {
        range: range(text),
        quic: true,
        tcp: true,
        family: FamilyPolicy::Auto,
        congestion: Congestion::Cubic,
    }
}

/// A node that dials from a range.
pub fn node(config: Config) -> (Node, Handle) {
    let keypair = Keypair::generate_ed25519();
    let (transport, handle) = build(&keypair, config).unwrap();
    (Node::run(&keypair, transport), handle)
}

/// A peer with libp2p's own TCP, Noise and yamux.
pub fn noise_only() -> Node {
    let keypair = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::new(tcp::Config::new())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    Node::run(&keypair, transport)
}

/// A node that only listens, on a port that the kernel chose.
pub async fn listener(addr: &str) -> (Node, Multiaddr) {
    let keypair = Keypair::generate_ed25519();
    let mut node = Node::run(&keypair, server(&keypair, tokio_runtime()).unwrap());
    let addr = node.listen(addr).await;
    (node, addr)
}

impl Node {
    pub fn run(keypair: &Keypair, transport: Transport) -> Self {
        let (commands, received) = mpsc::channel(16);
        let (listen_tx, listening) = mpsc::channel(64);
        let (accept_tx, accepted) = mpsc::channel(64);
        tokio::spawn(drive(transport, received, listen_tx, accept_tx));
        Self {
            peer: keypair.public().to_peer_id(),
            commands,
            listening,
            accepted,
        }
    }

    /// Listens, and returns the address with this node's peer id.
    pub async fn listen(&mut self, addr: &str) -> Multiaddr {
        self.try_listen(addr).await.unwrap();
        let addr = tokio::time::timeout(LONG, self.listening.recv())
            .await
            .unwrap()
            .unwrap();
        addr.with(Protocol::P2p(self.peer))
    }

    pub async fn try_listen(&self, addr: &str) -> Result<(), TransportError<io::Error>> {
        let (reply, done) = oneshot::channel();
        self.commands
            .send(Command::Listen(addr.parse().unwrap(), reply))
            .await
            .ok()
            .unwrap();
        done.await.unwrap()
    }

    pub async fn dial(&self, addr: &Multiaddr, opts: DialOpts) -> DialResult {
        let (reply, done) = oneshot::channel();
        self.commands
            .send(Command::Dial(addr.clone(), opts, reply))
            .await
            .ok()
            .unwrap();
        tokio::time::timeout(LONG, done).await.unwrap().unwrap()
    }

    pub async fn accept(&mut self) -> Accepted {
        tokio::time::timeout(LONG, self.accepted.recv())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}

async fn drive(
    mut transport: Transport,
    mut commands: mpsc::Receiver<Command>,
    listening: mpsc::Sender<Multiaddr>,
    accepted: mpsc::Sender<io::Result<Accepted>>,
) {
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Listen(addr, reply)) => {
                    let _ = reply.send(transport.listen_on(ListenerId::next(), addr));
                }
                Some(Command::Dial(addr, opts, reply)) => match transport.dial(addr, opts) {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok(dial) => drop(tokio::spawn(finish(dial, reply))),
                },
            },
            event = transport.select_next_some() => match event {
                TransportEvent::NewAddress { listen_addr, .. } => listening.send(listen_addr).await.unwrap(),
                TransportEvent::Incoming { upgrade, local_addr, send_back_addr, .. } => {
                    let accepted = accepted.clone();
                    tokio::spawn(async move {
                        let from = socket(&send_back_addr);
                        let done = upgrade.await;
                        let done = done.map(|(peer, muxer)| Accepted { from, local: local_addr, peer, muxer });
                        let _ = accepted.send(done).await;
                    });
                }
                TransportEvent::AddressExpired { .. } => {}
                TransportEvent::ListenerClosed { .. } | TransportEvent::ListenerError { .. } => {
                    panic!("listener failed: {event:?}")
                }
            },
        }
    }
}

async fn finish(
    dial: BoxFuture<'static, io::Result<Connection>>,
    reply: oneshot::Sender<DialResult>,
) {
    use libp2p::core::muxing::StreamMuxerExt;

    let mut done = dial.await.map_err(TransportError::Other);
    if let Ok((_, muxer)) = &mut done {
        // A swarm polls its connections. The first poll sends what the lazy negotiation has held back.
        futures::future::poll_fn(|cx| {
            let _ = muxer.poll_unpin(cx);
            Poll::Ready(())
        })
        .await;
    }
    let _ = reply.send(done);
}

pub fn socket(addr: &Multiaddr) -> SocketAddr {
    let mut parts = addr.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        Some(_) | None => panic!("no ip: {addr}"),
    };
    let Some(Protocol::Tcp(port) | Protocol::Udp(port)) = parts.next() else {
        panic!("no port: {addr}")
    };
    SocketAddr::new(ip, port)
}

/// Drives both ends of a connection and sends a word through a new stream of it, from `from` to `to`.
pub async fn speak(from: &mut StreamMuxerBox, to: &mut StreamMuxerBox) {
    use futures::{AsyncReadExt, AsyncWriteExt, future};
    use libp2p::core::muxing::StreamMuxerExt;

    let opened = future::poll_fn(|cx| {
        let _ = to.poll_unpin(cx);
        let _ = from.poll_unpin(cx);
        from.poll_outbound_unpin(cx)
    });
    let mut outbound = tokio::time::timeout(LONG, opened).await.unwrap().unwrap();
    let writing = tokio::spawn(async move {
        outbound.write_all(b"word").await.unwrap();
        outbound.close().await.unwrap();
        outbound
    });
    let mut inbound = None;
    let mut text = Vec::new();
    let mut buffer = [0; 16];
    let read = future::poll_fn(|cx| {
        let _ = from.poll_unpin(cx);
        let _ = to.poll_unpin(cx);
        loop {
            let Some(stream) = &mut inbound else {
                match to.poll_inbound_unpin(cx) {
                    Poll::Ready(stream) => inbound = Some(stream.unwrap()),
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            };
            match Pin::new(&mut stream.read(&mut buffer)).poll(cx) {
                Poll::Ready(n) => match n.unwrap() {
                    0 => return Poll::Ready(()),
                    n => text.extend_from_slice(&buffer[..n]),
                },
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    tokio::time::timeout(LONG, read).await.unwrap();
    assert_eq!(text, b"word");
    drop(writing);
}
