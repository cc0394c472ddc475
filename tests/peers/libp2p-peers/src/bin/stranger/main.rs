//! A libp2p peer of other make that does as it is told: a plain relay, a peer that looks, or one that abuses DCUtR.
//!
//! `stranger relay` is a relay without our protocols. `stranger wait` reserves on a relay; `stranger dial PEER` makes a circuit
//! to a peer. Both print what identify tells them, and treat every circuit that there is as `--abuse` says. One JSON object a
//! line. `stranger services` breaks the protocol of services. `stranger attack` is an attack that lasts; `stranger hosts` and `stranger steady` are peers that mean well.

mod abuse;
mod attack;
mod honest;
mod services;

use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    identity::Keypair,
    relay,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use libp2p_peers::{Role, circuit, meet, peer, report, reserve, tell};
use serde_json::json;

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
    /// A relay does not announce where it is.
    #[arg(long, global = true)]
    unannounced: bool,
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
    /// Break the protocol of services at this peer in all ways, and open so many sessions as `--times` says.
    Services {
        peer: PeerId,
        service: String,
        path: services::Path,
    },
    /// Attack for so many seconds.
    Attack(attack::Args),
    /// Be so many peers with a reservation each.
    Hosts { count: u8 },
    /// Print the ids of so many hosts, and of the two that keep a circuit.
    Identities { count: u8 },
    /// Keep a circuit through which bytes go at a steady pace.
    Steady,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let relay = || cli.relay.clone().context("give --relay");
    match cli.command {
        Command::Attack(args) => return attack::run(args).await,
        Command::Hosts { count } => return honest::hosts(relay()?, count).await,
        Command::Identities { count } => return honest::identities(count),
        Command::Steady => return honest::steady(relay()?).await,
        Command::Services {
            peer,
            service,
            path,
        } => {
            let relay = relay()?;
            return services::run(relay, &cli.listen, peer, &service, path, cli.times).await;
        }
        Command::Relay | Command::Wait | Command::Dial { .. } => {}
    }
    let relays = matches!(cli.command, Command::Relay);
    let started = Instant::now();
    let role = if relays {
        Role::Relay(relay::Config::default())
    } else {
        Role::Client
    };
    let mut swarm = peer(Keypair::generate_ed25519(), role)?;
    for address in &cli.listen {
        swarm.listen_on(address.clone())?;
        if relays && !cli.unannounced {
            swarm.add_external_address(address.clone());
        }
    }
    tell(&json!({"event": "started", "peer_id": swarm.local_peer_id().to_string()}));
    if !relays {
        let relay = relay()?;
        // Circuits can be asked for once the relay has told who it is, and has been told.
        meet(&mut swarm, &relay, |event| report(event, started)).await?;
        match cli.command {
            Command::Dial { peer } => {
                let dial = DialOpts::peer_id(peer).addresses(vec![circuit(&relay, peer)]);
                swarm.dial(dial.build())?;
            }
            _ => reserve(&mut swarm, &relay)?,
        }
        let mut control = swarm.behaviour().stream.new_control();
        let incoming = control.accept(DCUTR)?;
        tokio::spawn(abuse::answer(incoming, cli.abuse, cli.candidate.clone()));
    }
    loop {
        let event = swarm.select_next_some().await;
        report(&event, started);
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
