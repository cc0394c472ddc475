//! `p2pnode netcheck`: a look at the network, from the running node's sockets or from those of a node of its own.

use std::{io, time::Duration};

use anyhow::Context as _;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use p2pnode_daemon::{command::print, exit::Exit, identity, terminal};
use p2pnode_protocol::to_json;
use p2pnode_transports::{Handle, Interfaces};

use crate::{
    config::Config,
    control::Client,
    core::netcheck::{Reaches, Report},
    observe::output,
    swarm::netcheck::{Known, Plan},
};

/// The time between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Also the lifetime of mappings.
    pub(crate) lifetime: bool,
    /// Again and again.
    pub(crate) watch: bool,
    pub(crate) json: bool,
}

/// Prints what a node at the control socket sees.
pub(crate) async fn through(client: &Client, wish: Wish) -> anyhow::Result<Exit> {
    repeat(wish, async || Ok(client.netcheck(wish.lifetime).await?)).await
}

/// Prints what a node with this configuration would see.
pub(crate) async fn alone(config: &Config, wish: Wish) -> anyhow::Result<Exit> {
    let mut node: Option<Alone> = None;
    let look = async || {
        // Ports may have become free since.
        drop(node.take_if(|node| node.sockets.unbound().is_some()));
        let sockets = match &node {
            Some(node) => node.sockets.clone(),
            None => node.insert(Alone::new(config)?).sockets.clone(),
        };
        let plan = Plan::new(config, sockets);
        Ok(plan.look(Known::default(), wish.lifetime).await)
    };
    repeat(wish, look).await
}

/// The sockets of a node of its own.
struct Alone {
    _transport: Boxed<(PeerId, StreamMuxerBox)>,
    sockets: Handle,
}

impl Alone {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let dial = &config.dial;
        let settings = p2pnode_transports::Config {
            range: dial.port_range,
            quic: dial.quic,
            tcp: dial.tcp,
            family: dial.family,
            congestion: dial.congestion,
        };
        let (transport, sockets) = p2pnode_transports::build(&keypair(config), settings)
            .context("cannot set up the transports")?;
        Ok(Self {
            _transport: transport,
            sockets,
        })
    }
}

async fn repeat(
    wish: Wish,
    mut look: impl AsyncFnMut() -> anyhow::Result<Report>,
) -> anyhow::Result<Exit> {
    loop {
        let report = look().await?;
        let text = if wish.json {
            to_json(&report)? + "\n"
        } else {
            output::netcheck(&report, terminal::has_colour(&io::stdout()))
        };
        print(&text)?;
        if !wish.watch {
            return Ok(match report.reaches() {
                Reaches::Directly => Exit::Success,
                Reaches::Relayed => Exit::RelayedOnly,
                Reaches::Nobody => Exit::Unreachable,
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The node's key if there is one, because the punch ports follow from it. Otherwise one that follows from the addresses of the
/// host: each look begins at the same port, so no port is looked at as a fresh one that an earlier look has used otherwise.
fn keypair(config: &Config) -> Keypair {
    if let Some(Ok(key)) = config.key.file().map(identity::load) {
        return key;
    }
    let mut seed = [0x6e_u8; 32];
    if let Ok(interfaces) = Interfaces::watch() {
        let ips = interfaces.addresses().iter().map(|address| address.ip);
        let bytes = ips.flat_map(|ip| ip.to_string().into_bytes());
        for (at, byte) in bytes.enumerate() {
            let seed = &mut seed[at % 32];
            *seed = seed.rotate_left(3) ^ byte;
        }
    }
    Keypair::ed25519_from_bytes(seed).unwrap_or_else(|_| Keypair::generate_ed25519())
}
