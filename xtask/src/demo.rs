//! `cargo xtask demo`: the main job, live.

use std::{
    env,
    process::{ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{
    nat::{NatKind, RANGE},
    pair::Pair,
};
use tokio::process::Command;

use crate::{
    cargo::{self, Build},
    child::{Node, Relay},
    tools,
};

/// A relay and two nodes on loopback.
///
/// The listening node has no public listener, only its punch sockets, so the way leads over the relay first.
pub(crate) fn on_loopback() -> Result<ExitCode> {
    let bins = cargo::build(Build::Dev)?;
    tools::runtime()?.block_on(async {
        let directory = tempfile::tempdir().context("no directory for keys")?;
        let relay = Relay::start(&bins, directory.path(), &[]).await?;
        println!("relay     {}", relay.quic);
        let mut node = Node::start(&bins, directory.path(), &relay).await?;
        println!("listener  {}, reachable over the relay only", node.peer);
        let dial = ["dial", &node.peer, "--relay", &relay.quic, "--count", "3"];
        println!("dialer    p2pnode {}\n", dial.join(" "));
        let status = Command::new(&bins.p2pnode)
            .args(dial)
            .env("XDG_STATE_HOME", directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .context("p2pnode dial: cannot be started")?;
        println!();
        if status.success() {
            let (listener, dialer) = node.direct_path().await?;
            println!("source ports of the direct path, as the listener sees them: dialer {dialer}, listener {listener}");
        }
        Ok(code(status))
    })
}

/// The same, each node behind a NAT of the lab.
///
/// In a process of its own, which enters the lab's sandbox and cannot leave it.
pub(crate) fn between_nats((a, b): (NatKind, NatKind)) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::build(Build::Dev)?;
    let this = env::current_exe().context("path of this executable")?;
    let status = std::process::Command::new(this)
        .args(["demo-in-lab", a.name(), b.name()])
        .env("P2PNODE_BIN", bins.p2pnode)
        .env("RELAY_NODE_BIN", bins.relay_node)
        .status()
        .context("the lab cannot be started")?;
    Ok(code(status))
}

pub(crate) fn in_lab(a: NatKind, b: NatKind) -> Result<ExitCode> {
    tools::runtime()?.block_on(async {
        println!("building the networks");
        let mut peers = Pair::new(format!("demo-{a}-{b}"), a, b)
            .watched()
            .start()
            .await?;
        println!(
            "listener  {}, behind {b}, reachable over the relay only",
            peers.b_id
        );
        println!("dialer    behind {a}\n");
        let dial = peers.dial().await?;
        println!("\nwhat left the NATs, as captured on their outside:");
        for flow in peers.flows().await? {
            println!("  {flow}");
        }
        peers.verify_range().await?;
        println!(
            "every packet left its node from a port of {}-{}",
            RANGE.start(),
            RANGE.end()
        );
        peers.lab.succeeded();
        Ok(u8::try_from(dial.code).map_or(ExitCode::FAILURE, ExitCode::from))
    })
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

pub(crate) fn nats(text: &str) -> Result<(NatKind, NatKind), String> {
    let (a, b) = text
        .split_once(',')
        .ok_or_else(|| format!("{text:?} names one NAT: give two, as in `eim-apdf,full-cone`"))?;
    Ok((a.parse()?, b.parse()?))
}
