//! A plain libp2p 0.57 peer, as its documentation builds one: its own transports, relay client, identify, ping and DCUtR.
//!
//! `plain-libp2p listen` reserves on a relay and waits; `plain-libp2p dial` reaches a peer through it and waits for a
//! direct connection. Both print one JSON object per line on stdout. The other commands are the load of a benchmark.

mod autonat;
mod load;

use std::{
    io::BufRead as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    identity::Keypair,
    ping,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use libp2p_peers::{
    Behaviour, BehaviourEvent, Role, circuit, meet, peer, report, reserve, t_ms, tell,
};
use serde_json::json;

#[derive(Parser)]
struct Cli {
    /// The relay, with its peer id at the end.
    #[arg(long, global = true)]
    relay: Option<Multiaddr>,
    /// Where to listen.
    #[arg(long, global = true)]
    listen: Vec<Multiaddr>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reserve on the relay and wait for peers until killed.
    Listen,
    /// Be a relay without limits until killed.
    Relay,
    /// Dial peers back by AutoNAT v2, as a relay with the default limits, until killed.
    AutonatServe,
    /// Have a server of AutoNAT v2 dial this peer back.
    AutonatAsk {
        /// The server.
        server: Multiaddr,
    },
    /// Reserve on the relay and count what comes over circuits, until killed.
    Receive {
        /// How many peers to be.
        #[arg(long, default_value_t = 1)]
        peers: usize,
        /// The bytes that each of them gets.
        #[arg(long)]
        bytes: u64,
    },
    /// Open a circuit to each peer, and once a line comes on stdin send bytes over all of them.
    Send {
        /// The bytes that each of them gets.
        #[arg(long)]
        bytes: u64,
        /// The peers.
        #[arg(required = true)]
        to: Vec<PeerId>,
    },
    /// Reach a peer through the relay and wait for a direct connection.
    Dial {
        /// The peer. Without it: get to the relay first, say so, and read the peer from stdin.
        peer: Option<PeerId>,
        /// How long to wait for it, in seconds.
        #[arg(long, default_value_t = 30)]
        timeout: u64,
    },
}

struct Peer {
    swarm: Swarm<Behaviour>,
    relay: Multiaddr,
    started: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let relay = || cli.relay.clone().context("give --relay");
    match cli.command {
        Command::Relay => return load::relay(cli.listen).await,
        Command::Receive { peers, bytes } => return load::receive(relay()?, peers, bytes).await,
        Command::Send { bytes, to } => return load::send(relay()?, to, bytes).await,
        Command::AutonatServe => return autonat::serve(cli.listen).await,
        Command::AutonatAsk { server } => return autonat::ask(server, cli.listen).await,
        Command::Listen | Command::Dial { .. } => {}
    }
    let started = Instant::now();
    let mut swarm = peer(Keypair::generate_ed25519(), Role::Punches)?;
    for address in cli.listen {
        swarm.listen_on(address)?;
    }
    let relay = cli.relay.context("give --relay")?;
    let mut peer = Peer {
        swarm,
        relay,
        started,
    };
    tell(&json!({"event": "started", "peer_id": peer.swarm.local_peer_id().to_string()}));
    meet(&mut peer.swarm, &peer.relay, |_| ())
        .await
        .context("cannot reach the relay")?;
    match cli.command {
        Command::Listen => peer.listen().await,
        Command::Relay
        | Command::Receive { .. }
        | Command::Send { .. }
        | Command::AutonatServe
        | Command::AutonatAsk { .. } => unreachable!("returned above"),
        Command::Dial {
            peer: target,
            timeout,
        } => {
            let target = match target {
                Some(target) => target,
                None => peer.be_told().await?,
            };
            let reached =
                tokio::time::timeout(Duration::from_secs(timeout), peer.dial(target)).await;
            let direct = matches!(reached, Ok(Ok(())));
            let t = t_ms(peer.started);
            tell(
                &json!({"event": "result", "outcome": if direct { "direct" } else { "relayed" }, "t_ms": t, "time_to_direct_ms": direct.then_some(t)}),
            );
            reached.unwrap_or(Ok(()))
        }
    }
}

impl Peer {
    /// Waits for the name of a peer on stdin; the time counts from there.
    async fn be_told(&mut self) -> anyhow::Result<PeerId> {
        tell(&json!({"event": "ready"}));
        let mut read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let line = loop {
            tokio::select! {
                line = &mut read => break line??,
                _ = self.swarm.select_next_some() => {}
            }
        };
        self.started = Instant::now();
        let peer = line.trim();
        peer.parse()
            .with_context(|| format!("{peer:?} on stdin is no peer id"))
    }

    async fn listen(&mut self) -> anyhow::Result<()> {
        reserve(&mut self.swarm, &self.relay)?;
        loop {
            let event = self.swarm.select_next_some().await;
            report(&event, self.started);
        }
    }

    /// Returns once a direct connection is open and a ping has come back over it.
    async fn dial(&mut self, target: PeerId) -> anyhow::Result<()> {
        let circuit = circuit(&self.relay, target);
        let dial = DialOpts::peer_id(target).addresses(vec![circuit]);
        self.swarm.dial(dial.build())?;
        let mut direct = Vec::new();
        loop {
            let event = self.swarm.select_next_some().await;
            report(&event, self.started);
            match event {
                SwarmEvent::ConnectionEstablished {
                    peer_id,
                    connection_id,
                    endpoint,
                    ..
                } if peer_id == target && !endpoint.is_relayed() => {
                    direct.push(connection_id);
                }
                SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                    connection,
                    result: Ok(_),
                    ..
                })) if direct.contains(&connection) => return Ok(()),
                SwarmEvent::OutgoingConnectionError { peer_id, error, .. }
                    if peer_id == Some(target) && !self.swarm.is_connected(&target) =>
                {
                    return Err(error).context("cannot reach the peer");
                }
                _ => {}
            }
        }
    }
}
