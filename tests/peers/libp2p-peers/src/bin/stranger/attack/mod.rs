//! Attacks that last: each runs for so many seconds and prints what it has done, once a second and at its end.

mod fairness;
mod frames;
mod local;
mod memory;
mod raw;
mod relay;
mod requests;
mod text;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use libp2p::{Multiaddr, PeerId};
use libp2p_peers::tell;
use rustix::process::{Resource, getrlimit, setpriority_process, setrlimit};
use serde_json::json;
use tokio::time::{Instant, sleep};

use raw::{Identity, Wire};

/// What is done, to whom and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    what: What,
    /// Who is attacked, or the relays over which; taken in turn.
    #[arg(long = "at", value_name = "MULTIADDR")]
    at: Vec<Multiaddr>,
    /// The peer to which circuits, requests or introductions go.
    #[arg(long)]
    to: Option<PeerId>,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Streams on each connection, or circuits.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Addresses of this host to connect from; taken in turn.
    #[arg(long)]
    source: Vec<IpAddr>,
    /// Negotiated on each stream first; without it nothing is.
    #[arg(long)]
    protocol: Option<String>,
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Of addresses that are named to others.
    #[arg(long = "names", value_name = "MULTIADDR")]
    names: Vec<Multiaddr>,
    /// At most so many a second; without it as many as there can be.
    #[arg(long)]
    per_second: Option<u32>,
    /// Reserve on the relay before.
    #[arg(long)]
    reserve: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Streams that are written to as far as the remote allows, and never read.
    Unread,
    /// The same over circuits through the relays to a peer.
    UnreadInCircuits,
    /// Circuits between two peers of the attacker, written to at one end and not read at the other.
    CircuitsNobodyReads,
    /// TCP connections on which nothing is said, opened again whenever they end.
    Silent,
    /// QUIC connections of which only the first packet comes.
    Initial,
    /// Connections of as many peers, on which nothing is asked.
    Idle,
    /// Circuits on which nothing is said, opened again whenever they end.
    SilentCircuits,
    /// Introductions to a peer, of one that names addresses.
    Introductions,
    Reserve,
    Connect,
    Hop,
    Ping,
    Identify,
    IdentifyPush,
    Join,
    /// Streams that are opened and dropped before anything is said.
    OpenClose,
    /// Streams that are opened and reset, in frames that no multiplexer writes.
    Reopen,
    /// Pings of yamux whose answers nobody reads.
    Pings,
    /// Frames for streams that are not there.
    Updates,
    /// Protocols that nobody speaks are proposed without end.
    Propose,
    /// Handshakes of which a byte comes each second.
    Drip,
    /// QUIC packets of versions and connections that are not there.
    StrayPackets,
    /// Requests to an admin server whose answers are not read.
    Pipelined,
    /// Records of many peers, each over a connection of its own.
    Put,
    /// Questions for the record of a peer.
    Get,
    /// Half a request to an admin server.
    HalfHttp,
    /// Requests to an admin server under a name that is not its own, as from a web page whose name resolves to it.
    WrongHost,
    /// Half a request to a control socket.
    HalfControl,
    /// Be a relay that closes what it has accepted.
    CloseRelay,
    /// Be a relay that refuses reservations.
    RefuseRelay,
    /// Be a relay that says nothing.
    SilentRelay,
    /// Be a relay that says nothing that means anything.
    GarbageRelay,
    /// Names, agents and close reasons with control characters.
    Text,
}

/// What has been done.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, i64>>>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &str, by: i64) {
        let mut counts = self.counts();
        // Errors of remotes are many.
        if counts.len() < 64 || counts.contains_key(name) {
            *counts.entry(name.to_owned()).or_default() += by;
        }
    }

    fn outcome<T>(&self, name: &str, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.add(name, 1),
            // Its causes name connections and streams by number.
            Err(error) => self.add(&format!("not {name}: {error}"), 1),
        }
    }

    fn tell(&self, event: &str) {
        tell(&json!({"event": event, "counts": *self.counts()}));
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    // Its sockets are many; a limit that cannot be raised shows as connections that are not opened.
    let mut open_files = getrlimit(Resource::Nofile);
    open_files.current = open_files.maximum;
    let _as_is = setrlimit(Resource::Nofile, open_files);
    // The attacker shares the processors with those whom it attacks, which on the internet it would not.
    let _as_is = setpriority_process(None, 10);
    let tally = Tally::default();
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let attack = tokio::spawn(begin(Arc::new(args), tally.clone()));
    tally.tell("begun");
    while Instant::now() < until && !attack.is_finished() {
        sleep(Duration::from_secs(1)).await;
        tally.tell("counts");
    }
    if attack.is_finished() {
        attack.await??;
        tokio::time::sleep_until(until).await;
    }
    tally.tell("done");
    Ok(())
}

async fn begin(args: Arc<Args>, tally: Tally) -> Result<()> {
    match args.what {
        What::Unread => memory::unread(args, tally).await,
        What::UnreadInCircuits => memory::unread_in_circuits(args, tally).await,
        What::CircuitsNobodyReads => memory::circuits_nobody_reads(args, tally).await,
        What::Silent => fairness::silent(args, tally).await,
        What::Initial => fairness::initial(args, tally).await,
        What::Idle => fairness::idle(args, tally).await,
        What::SilentCircuits => fairness::silent_circuits(args, tally).await,
        What::Introductions => requests::introductions(args, tally).await,
        What::Put => requests::put(args, tally).await,
        What::Reserve
        | What::Connect
        | What::Hop
        | What::Ping
        | What::Identify
        | What::IdentifyPush
        | What::Join
        | What::OpenClose
        | What::Get => requests::flood(args, tally).await,
        What::Reopen | What::Pings | What::Updates => frames::flood(args, tally).await,
        What::Propose => frames::propose(args, tally).await,
        What::Drip => fairness::drip(args, tally).await,
        What::StrayPackets => fairness::stray_packets(args, tally).await,
        What::Pipelined => local::pipelined(args, tally).await,
        What::HalfHttp => local::half_http(args, tally).await,
        What::WrongHost => local::wrong_host(args, tally).await,
        What::HalfControl => local::half_control(args, tally).await,
        What::CloseRelay | What::RefuseRelay => relay::polite(args, tally).await,
        What::SilentRelay | What::GarbageRelay => relay::rude(args, tally).await,
        What::Text => text::run(args, tally).await,
    }
}

impl Args {
    fn at(&self, number: usize) -> Result<&Multiaddr> {
        let at = self.at.get(number % self.at.len().max(1));
        at.context("give --at")
    }

    fn source(&self, number: usize) -> Option<IpAddr> {
        self.source.get(number % self.source.len().max(1)).copied()
    }

    fn to(&self) -> Result<PeerId> {
        self.to.context("give --to")
    }

    /// A connection of a peer of its own.
    async fn connect(&self, number: usize, identity: &Identity) -> Result<Wire> {
        Wire::connect(self.at(number)?, identity, self.source(number)).await
    }
}

/// What runs until the attack ends.
async fn forever() -> Result<()> {
    std::future::pending().await
}
