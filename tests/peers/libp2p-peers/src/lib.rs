//! What the plain libp2p peers of this package share: a peer as libp2p's documentation builds one, the events that it prints, and
//! the framing of its protocols.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, SwarmBuilder, dcutr, identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};
use serde_json::{Value, json};

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    dcutr: Toggle<dcutr::Behaviour>,
    pub stream: libp2p_stream::Behaviour,
}

pub enum Role {
    Client,
    Punches,
    Relay(relay::Config),
}

/// A peer that is not connected to anybody. It has no socket before it dials or listens.
pub fn peer(key: Keypair, role: Role) -> Result<Swarm<Behaviour>> {
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )?
        .with_quic()
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, client| {
            let id = key.public().to_peer_id();
            let identify = identify::Config::new("/plain/1".to_owned(), key.public());
            let punches = matches!(role, Role::Punches);
            Behaviour {
                client,
                relay: match role {
                    Role::Relay(config) => {
                        let mut relay = relay::Behaviour::new(id, config);
                        // Also one that announces no address.
                        relay.set_status(Some(relay::Status::Enable));
                        Some(relay).into()
                    }
                    Role::Client | Role::Punches => None.into(),
                },
                identify: identify::Behaviour::new(identify),
                ping: ping::Behaviour::default(),
                dcutr: punches.then(|| dcutr::Behaviour::new(id)).into(),
                stream: libp2p_stream::Behaviour::new(),
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    Ok(swarm)
}

pub fn id(relay: &Multiaddr) -> Result<PeerId> {
    match relay.iter().last() {
        Some(Protocol::P2p(peer)) => Ok(peer),
        _ => anyhow::bail!("{relay} names no peer id; append /p2p/<id>"),
    }
}

pub fn circuit(relay: &Multiaddr, to: PeerId) -> Multiaddr {
    let circuit = relay.clone().with(Protocol::P2pCircuit);
    circuit.with(Protocol::P2p(to))
}

/// Connects to the relay and waits until each side knows what the other observed, as DCUtR's example does.
pub async fn meet(
    swarm: &mut Swarm<Behaviour>,
    relay: &Multiaddr,
    mut report: impl FnMut(&SwarmEvent<BehaviourEvent>),
) -> Result<()> {
    swarm.dial(relay.clone())?;
    let (mut told, mut learned) = (false, false);
    while !(told && learned) {
        let event = swarm.select_next_some().await;
        report(&event);
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => {
                told |= matches!(event, identify::Event::Sent { .. });
                learned |= matches!(event, identify::Event::Received { .. });
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                anyhow::bail!("not connected: {}", chain(&error));
            }
            SwarmEvent::ConnectionClosed { cause, .. } => {
                let cause = cause.map_or_else(|| "closed".to_owned(), |cause| chain(&cause));
                anyhow::bail!("closed at once: {cause}");
            }
            _ => {}
        }
    }
    Ok(())
}

pub fn reserve(swarm: &mut Swarm<Behaviour>, relay: &Multiaddr) -> Result<()> {
    let listened = swarm.listen_on(relay.clone().with(Protocol::P2pCircuit));
    listened.map(drop).context("reservation")
}

pub async fn reserved(swarm: &mut Swarm<Behaviour>) -> Result<()> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Client(
                relay::client::Event::ReservationReqAccepted { .. },
            )) => return Ok(()),
            SwarmEvent::ListenerClosed { reason, .. } => {
                let reason = reason.err().map(|error| chain(&error));
                anyhow::bail!("no reservation: {}", reason.unwrap_or_default());
            }
            _ => {}
        }
    }
}

pub async fn connected(swarm: &mut Swarm<Behaviour>, peer: PeerId) -> Result<()> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                anyhow::bail!("no circuit: {}", chain(&error));
            }
            _ => {}
        }
    }
}

/// An error and its causes in one line, each once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !cause_text.is_empty() && !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

pub fn tell(event: &Value) {
    println!("{event}");
}

pub fn t_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub fn report(event: &SwarmEvent<BehaviourEvent>, started: Instant) {
    let kind = |relayed| if relayed { "relayed" } else { "direct" };
    let t_ms = t_ms(started);
    tell(&match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            json!({"event": "listening", "t_ms": t_ms, "address": address})
        }
        SwarmEvent::Behaviour(BehaviourEvent::Client(
            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. },
        )) => json!({"event": "reserved", "t_ms": t_ms, "relay": relay_peer_id.to_string()}),
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id,
            info,
            ..
        })) => {
            json!({"event": "identified", "t_ms": t_ms, "peer": peer_id.to_string(), "listen": info.listen_addrs, "observed": info.observed_addr})
        }
        SwarmEvent::ConnectionEstablished {
            peer_id, endpoint, ..
        } => {
            let path = json!({"kind": kind(endpoint.is_relayed())});
            json!({"event": "connected", "t_ms": t_ms, "peer": peer_id.to_string(), "path": path})
        }
        SwarmEvent::ConnectionClosed {
            peer_id, endpoint, ..
        } => {
            let kind = kind(endpoint.is_relayed());
            json!({"event": "disconnected", "t_ms": t_ms, "peer": peer_id.to_string(), "kind": kind})
        }
        SwarmEvent::Behaviour(BehaviourEvent::Dcutr(dcutr::Event {
            remote_peer_id,
            result,
        })) => {
            let outcome = if result.is_ok() { "direct" } else { "failed" };
            json!({"event": "punch", "t_ms": t_ms, "peer": remote_peer_id.to_string(), "outcome": outcome})
        }
        SwarmEvent::OutgoingConnectionError { error, .. } => {
            json!({"event": "error", "t_ms": t_ms, "reason": error.to_string()})
        }
        _ => return,
    });
}

/// A number as protobuf and the framing of libp2p have it.
pub fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

pub fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().context("half a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number of more than 64 bits")
}

/// Reads one message with its length before it, of at most 4096 bytes.
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut length = Vec::new();
    while length.last().is_none_or(|byte| byte & 0x80 != 0) {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.context("no message")?;
        length.push(byte[0]);
        ensure!(length.len() < 10, "a length that does not end");
    }
    let length = usize::try_from(take_varint(&mut length.as_slice())?)?;
    ensure!(length <= 4096, "a message of {length} bytes");
    let mut body = vec![0; length];
    stream
        .read_exact(&mut body)
        .await
        .context("half a message")?;
    Ok(body)
}

pub async fn write(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}
