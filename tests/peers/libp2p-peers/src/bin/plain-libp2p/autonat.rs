//! AutoNAT v2 as libp2p has it: a server, which is a relay too, and a client.

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};
use libp2p_autonat::v2::{client, server};
use libp2p_peers::{chain, tell};
use serde_json::json;

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: Toggle<relay::Behaviour>,
    server: Toggle<server::Behaviour>,
    client: Toggle<client::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn peer(serves: bool) -> anyhow::Result<Swarm<Behaviour>> {
    let swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            (tls::Config::new, noise::Config::new),
            yamux::Config::default,
        )?
        .with_quic()
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let asks = client::Config::default().with_probe_interval(Duration::from_millis(200));
            let random = rand::make_rng::<rand::rngs::StdRng>;
            Behaviour {
                relay: serves
                    .then(|| relay::Behaviour::new(id, relay::Config::default()))
                    .into(),
                server: serves.then(|| server::Behaviour::new(random())).into(),
                client: (!serves)
                    .then(|| client::Behaviour::new(random(), asks))
                    .into(),
                identify: identify::Behaviour::new(identify::Config::new(
                    "/plain/1".to_owned(),
                    key.public(),
                )),
                ping: ping::Behaviour::default(),
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    Ok(swarm)
}

/// Prints each address that a peer had dialed, with the bytes of data that the peer sent for it.
pub async fn serve(listen: Vec<Multiaddr>) -> anyhow::Result<()> {
    let mut swarm = peer(true)?;
    for address in listen {
        swarm.listen_on(address)?;
    }
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                swarm.add_external_address(address.clone());
                let address = address.with(Protocol::P2p(*swarm.local_peer_id()));
                tell(&json!({"event": "listening", "address": address.to_string()}));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Server(event)) => {
                let (address, data) = (event.tested_addr, event.data_amount);
                let error = event.result.err().map(|error| chain(&error));
                tested(&address, data, error, "answered");
            }
            _ => {}
        }
    }
}

/// Asks a server about the address at which it sees this peer, and prints what came of it.
pub async fn ask(server: Multiaddr, listen: Vec<Multiaddr>) -> anyhow::Result<()> {
    let mut swarm = peer(false)?;
    for address in listen {
        swarm.listen_on(address)?;
        // The dial leaves from there, so that the address that the server sees is this one's.
        while !matches!(
            swarm.select_next_some().await,
            SwarmEvent::NewListenAddr { .. }
        ) {}
    }
    swarm.dial(server).context("no dial")?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Client(event)) => {
                let (address, data) = (event.tested_addr, event.bytes_sent);
                let error = event.result.err().map(|error| error.to_string());
                tested(&address, data, error, "reached");
                return Ok(());
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}

fn tested(address: &Multiaddr, data: usize, outcome: Option<String>, else_it: &str) {
    let outcome = outcome.as_deref().unwrap_or(else_it);
    tell(&json!({"event": "tested", "address": address, "data": data, "outcome": outcome}));
}
