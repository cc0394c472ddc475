//! One peer, as libp2p's documentation builds one.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};

use crate::tally::chain;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) client: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(crate) stream: libp2p_stream::Behaviour,
}

/// A peer that is not connected to anybody. It has no socket before it dials.
pub(crate) fn new(key: Keypair) -> Result<Swarm<Behaviour>> {
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )?
        .with_quic()
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, client| Behaviour {
            client,
            identify: identify::Behaviour::new(identify::Config::new(
                "/fleet/1".to_owned(),
                key.public(),
            )),
            ping: ping::Behaviour::default(),
            stream: libp2p_stream::Behaviour::new(),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    Ok(swarm)
}

/// The peer id at the end of a relay's address.
pub(crate) fn id(relay: &Multiaddr) -> Result<PeerId> {
    match relay.iter().last() {
        Some(Protocol::P2p(peer)) => Ok(peer),
        _ => anyhow::bail!("{relay} names no peer id; append /p2p/<id>"),
    }
}

/// Connects to the relay and waits until each side has told the other who it is.
pub(crate) async fn meet(swarm: &mut Swarm<Behaviour>, relay: &Multiaddr) -> Result<()> {
    swarm.dial(relay.clone())?;
    let (mut told, mut learned) = (false, false);
    while !(told && learned) {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Sent { .. })) => {
                told = true;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                ..
            })) => learned = true,
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

/// Reserves on a relay that was met.
pub(crate) fn reserve(swarm: &mut Swarm<Behaviour>, relay: &Multiaddr) -> Result<()> {
    swarm
        .listen_on(relay.clone().with(Protocol::P2pCircuit))
        .context("reservation")?;
    Ok(())
}

/// Why the relay client's listener closed: what the relay answered, or else what went wrong.
pub(crate) fn refusal(error: &std::io::Error) -> String {
    use relay::outbound::hop::ReserveError;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<ReserveError>() {
            return match error {
                ReserveError::Refused => "refused".to_owned(),
                ReserveError::ResourceLimitExceeded => "resource_limit_exceeded".to_owned(),
                ReserveError::Unsupported => "unsupported".to_owned(),
                other => chain(other),
            };
        }
        let boxed = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match boxed {
            Some(boxed) => Some(boxed as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    chain(error)
}
