//! Swarms of libp2p, which differ in nothing but their transports.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::{
        Config as SwarmConfig, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, tls, yamux,
};
use libp2p_stream::{Behaviour, Control};
use p2pnode_transports::{Config, FamilyPolicy, Handle};
use serde_json::json;

use crate::{
    Engine, Opened, Path, Security, Transport,
    data::{Wire, announce, serve},
    no_connection, tell,
};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/transfer/1");

/// A connection without streams is not given up.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Handshakes at a time: those of a thousand at once would time out on a small machine.
const AT_ONCE: usize = 16;

struct Peer {
    swarm: Swarm<Behaviour>,
    _handle: Option<Handle>,
}

/// The one place where our transports are built.
fn ours(path: Path, keypair: &Keypair) -> Result<(Boxed<(PeerId, StreamMuxerBox)>, Handle)> {
    let config = Config {
        range: path.range,
        quic: path.transport == Transport::Quic,
        tcp: path.transport == Transport::Tcp,
        family: FamilyPolicy::Auto,
        congestion: path.congestion,
    };
    Ok(p2pnode_transports::build(keypair, config)?)
}

impl Peer {
    fn new(path: Path) -> Result<Self> {
        if path.engine == Engine::Ours {
            let keypair = Keypair::generate_ed25519();
            let (transport, handle) = ours(path, &keypair)?;
            let config = SwarmConfig::with_tokio_executor().with_idle_connection_timeout(IDLE);
            let peer = keypair.public().to_peer_id();
            return Ok(Self {
                swarm: Swarm::new(transport, Behaviour::new(), peer, config),
                _handle: Some(handle),
            });
        }
        let builder = SwarmBuilder::with_new_identity().with_tokio();
        let idle = |config: SwarmConfig| config.with_idle_connection_timeout(IDLE);
        let swarm = match path.transport {
            Transport::Quic => builder
                .with_quic()
                .with_behaviour(|_| Behaviour::new())?
                .with_swarm_config(idle)
                .build(),
            Transport::Tcp => {
                let (tcp, yamux) = (tcp::Config::default(), yamux::Config::default);
                // Of types of their own.
                match path.security {
                    Security::Noise => builder
                        .with_tcp(tcp, noise::Config::new, yamux)?
                        .with_behaviour(|_| Behaviour::new())?
                        .with_swarm_config(idle)
                        .build(),
                    Security::Tls => builder
                        .with_tcp(tcp, tls::Config::new, yamux)?
                        .with_behaviour(|_| Behaviour::new())?
                        .with_swarm_config(idle)
                        .build(),
                }
            }
        };
        Ok(Self {
            swarm,
            _handle: None,
        })
    }

    fn control(&self) -> Control {
        self.swarm.behaviour().new_control()
    }

    fn drive(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.swarm.select_next_some().await;
            }
        })
    }
}

pub async fn receive(path: Path, listen: SocketAddr, unread: bool) -> Result<()> {
    let mut peer = Peer::new(path)?;
    let mut incoming = peer.control().accept(PROTOCOL)?;
    let address = Multiaddr::from(listen.ip());
    peer.swarm.listen_on(match path.transport {
        Transport::Quic => address
            .with(Protocol::Udp(listen.port()))
            .with(Protocol::QuicV1),
        Transport::Tcp => address.with(Protocol::Tcp(listen.port())),
    })?;
    loop {
        match peer.swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = address.with(Protocol::P2p(*peer.swarm.local_peer_id()));
                tell(&json!({"event": "listening", "address": address.to_string()}));
                break;
            }
            SwarmEvent::ListenerClosed { reason, .. } => bail!("{listen}: closed: {reason:?}"),
            _ => {}
        }
    }
    let _lives_on = peer.drive();
    while let Some((_, stream)) = incoming.next().await {
        tokio::spawn(async move {
            if let Err(error) = serve(Box::new(stream), unread).await {
                eprintln!("a stream: {error:#}");
            }
        });
    }
    bail!("the swarm has ended")
}

pub async fn open(path: Path, address: &str, parts: &[u64]) -> Result<Opened> {
    let mut peer = Peer::new(path)?;
    let (to, address) = target(address)?;
    let mut control = peer.control();
    peer.swarm.dial(address.clone())?;
    loop {
        match peer.swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(error).with_context(|| no_connection(&address.to_string()));
            }
            _ => {}
        }
    }
    let connection = peer.drive();
    let mut opened = Opened {
        streams: Vec::new(),
        _connection: Box::new(connection),
    };
    for bytes in parts {
        let mut stream: Wire = Box::new(control.open_stream(to, PROTOCOL).await?);
        // One after the other: libp2p-stream drops a stream that comes before its acceptor has taken the last one.
        announce(&mut stream, *bytes).await?;
        opened.streams.push((stream, *bytes));
    }
    Ok(opened)
}

pub async fn hold(path: Path, address: &str, connections: usize) -> Result<()> {
    let mut peer = Peer::new(path)?;
    let (to, address) = target(address)?;
    let (mut begun, mut held) = (0, 0);
    while held < connections {
        while begun < connections && begun - held < AT_ONCE {
            let dial = DialOpts::peer_id(to)
                .condition(PeerCondition::Always)
                .addresses(vec![address.clone()])
                // TCP needs four numbers of its own for each of them.
                .allocate_new_port();
            peer.swarm.dial(dial.build())?;
            begun += 1;
        }
        match peer.swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => held += 1,
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(error).with_context(|| no_connection(&address.to_string()));
            }
            SwarmEvent::ConnectionClosed { cause, .. } => bail!("one was closed: {cause:?}"),
            _ => {}
        }
    }
    tell(&json!({"event": "held", "connections": held}));
    loop {
        if let SwarmEvent::ConnectionClosed { cause, .. } = peer.swarm.select_next_some().await {
            bail!("one was closed: {cause:?}");
        }
    }
}

fn target(address: &str) -> Result<(PeerId, Multiaddr)> {
    let address: Multiaddr = address
        .parse()
        .with_context(|| format!("{address}: no multiaddress"))?;
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Ok((peer, address)),
        _ => bail!("{address}: no peer id at the end"),
    }
}
