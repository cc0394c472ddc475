//! A libp2p peer of other make that does as it is told: a plain relay, a peer that looks, or one that abuses DCUtR.
//!
//! `stranger relay` is a relay without our protocols. `stranger wait` reserves on a relay; `stranger dial PEER` makes a circuit
//! to a peer. Both print what identify tells them, and treat every circuit that there is as `--abuse` says. One JSON object a
//! line.

mod abuse;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle, dial_opts::DialOpts},
    tcp, tls, yamux,
};
use serde_json::{Value, json};

use abuse::Abuse;

const DCUTR: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

#[derive(Parser)]
struct Cli {
    /// Where to listen.
    #[arg(long, global = true)]
    listen: Vec<Multiaddr>,
    /// The relay, with its peer id at the end.
    #[arg(long, global = true)]
    relay: Option<Multiaddr>,
    /// How the peers at the other end of circuits are treated.
    #[arg(long, global = true, default_value = "none")]
    abuse: Abuse,
    /// What is offered in handshakes that are well-formed.
    #[arg(long, global = true)]
    candidate: Vec<Multiaddr>,
    /// How often.
    #[arg(long, global = true, default_value_t = 1)]
    times: u32,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be a relay.
    Relay,
    /// Reserve on the relay.
    Wait,
    /// Make a circuit to this peer.
    Dial { peer: PeerId },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: Toggle<relay::Behaviour>,
    client: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    stream: libp2p_stream::Behaviour,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let relays = matches!(cli.command, Command::Relay);
    let mut swarm = SwarmBuilder::with_new_identity()
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
            Behaviour {
                relay: relays
                    .then(|| relay::Behaviour::new(id, relay::Config::default()))
                    .into(),
                client,
                identify: identify::Behaviour::new(identify::Config::new(
                    "/stranger/1".to_owned(),
                    key.public(),
                )),
                ping: ping::Behaviour::default(),
                stream: libp2p_stream::Behaviour::new(),
            }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    for address in &cli.listen {
        swarm.listen_on(address.clone())?;
        if relays {
            swarm.add_external_address(address.clone());
        }
    }
    tell(&json!({"event": "started", "peer_id": swarm.local_peer_id().to_string()}));
    if !relays {
        let relay = cli.relay.clone().context("give --relay")?;
        swarm.dial(relay.clone())?;
        identified(&mut swarm, &relay).await?;
        let circuit = relay.with(Protocol::P2pCircuit);
        match cli.command {
            Command::Dial { peer } => {
                let circuit = circuit.with(Protocol::P2p(peer));
                swarm.dial(DialOpts::peer_id(peer).addresses(vec![circuit]).build())?;
            }
            Command::Wait | Command::Relay => {
                swarm.listen_on(circuit)?;
            }
        }
        let mut control = swarm.behaviour().stream.new_control();
        let incoming = control.accept(DCUTR)?;
        tokio::spawn(abuse::answer(incoming, cli.abuse, cli.candidate.clone()));
    }
    loop {
        let event = swarm.select_next_some().await;
        report(&event);
        if let SwarmEvent::ConnectionEstablished {
            peer_id, endpoint, ..
        } = event
            && endpoint.is_relayed()
        {
            let control = swarm.behaviour().stream.new_control();
            let abuse = abuse::begin(
                control,
                peer_id,
                cli.abuse,
                cli.candidate.clone(),
                cli.times,
            );
            tokio::spawn(abuse);
        }
    }
}

/// Circuits can be asked for once the relay has told who it is, and has been told.
async fn identified(swarm: &mut Swarm<Behaviour>, relay: &Multiaddr) -> Result<()> {
    let (mut told, mut learned) = (false, false);
    while !(told && learned) {
        let event = swarm.select_next_some().await;
        report(&event);
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Sent { .. })) => {
                told = true;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                ..
            })) => learned = true,
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(error).with_context(|| format!("cannot reach {relay}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn report(event: &SwarmEvent<BehaviourEvent>) {
    let kind = |relayed| if relayed { "relayed" } else { "direct" };
    match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            tell(&json!({"event": "listening", "address": address}));
        }
        SwarmEvent::Behaviour(BehaviourEvent::Client(
            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. },
        )) => tell(&json!({"event": "reserved", "relay": relay_peer_id.to_string()})),
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id,
            info,
            ..
        })) => {
            tell(
                &json!({"event": "identified", "peer": peer_id.to_string(), "listen": info.listen_addrs, "observed": info.observed_addr}),
            );
        }
        SwarmEvent::ConnectionEstablished {
            peer_id, endpoint, ..
        } => {
            tell(
                &json!({"event": "connected", "peer": peer_id.to_string(), "path": {"kind": kind(endpoint.is_relayed())}}),
            );
        }
        SwarmEvent::ConnectionClosed {
            peer_id, endpoint, ..
        } => {
            tell(
                &json!({"event": "disconnected", "peer": peer_id.to_string(), "kind": kind(endpoint.is_relayed())}),
            );
        }
        SwarmEvent::OutgoingConnectionError { error, .. } => {
            tell(&json!({"event": "error", "reason": error.to_string()}));
        }
        _ => {}
    }
}

fn tell(event: &Value) {
    println!("{event}");
}
