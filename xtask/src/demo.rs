//! `cargo xtask demo`: the main job, live.

use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use p2pnode_tests::nat::NatKind;
use tokio::process::Command;

use crate::{
    cargo::{self, Build},
    child::{Node, Relay},
};

/// A relay and two nodes on loopback.
///
/// The listening node has no public listener, only its punch sockets, so the way leads over the relay first.
pub(crate) fn on_loopback() -> Result<ExitCode> {
    let bins = cargo::build(Build::Dev)?;
    runtime()?.block_on(async {
        let directory = tempfile::tempdir().context("no directory for keys")?;
        let relay = Relay::start(&bins, directory.path()).await?;
        println!("relay     {}", relay.address);
        let mut node = Node::start(&bins, directory.path(), &relay).await?;
        println!("listener  {}, reachable over the relay only", node.peer);
        let dial = ["dial", &node.peer, "--relay", &relay.address, "--count", "3"];
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
pub(crate) fn between_nats(nats: (NatKind, NatKind)) -> Result<ExitCode> {
    todo!("{nats:?}")
}

/// The exit code of the dial is ours.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
}
