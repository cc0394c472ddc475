//! `cargo xtask demo`: the main job, live.

use std::{
    env, fs,
    process::{ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{
    bins::Bins,
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
    between(&bins, &bins, &bins).map(code)
}

/// The relay, the listener and the dialer may be of different builds.
pub(crate) fn between(of_relay: &Bins, listener: &Bins, dialer: &Bins) -> Result<ExitStatus> {
    tools::runtime()?.block_on(async {
        let directory = tempfile::tempdir().context("no directory for keys")?;
        let relay = Relay::start(of_relay, directory.path(), &[]).await?;
        println!("relay     {}", relay.quic);
        let mut node = Node::start(listener, directory.path(), &relay).await?;
        println!("listener  {}, reachable over the relay only", node.peer);
        let dial = ["dial", &node.peer, "--relay", &relay.quic, "--count", "3"];
        println!("dialer    p2pnode {}\n", dial.join(" "));
        let status = Command::new(&dialer.p2pnode)
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
        Ok(status)
    })
}

/// The same, each node behind a NAT of the lab.
///
/// In a process of its own, which enters the lab's sandbox and cannot leave it.
pub(crate) fn between_nats((a, b): (NatKind, NatKind), write: bool) -> Result<ExitCode> {
    tools::provide()?;
    let bins = cargo::build(Build::Dev)?;
    let this = env::current_exe().context("path of this executable")?;
    let mut demo = std::process::Command::new(this);
    demo.args(["demo-in-lab", a.name(), b.name()])
        .env("P2PNODE_BIN", bins.p2pnode)
        .env("RELAY_NODE_BIN", bins.relay_node);
    if !write {
        return Ok(code(demo.status().context("the lab cannot be started")?));
    }
    let seen = cargo::output(&mut demo)?;
    print!("{seen}");
    let page = cargo::workspace().join("README.md");
    let text = fs::read_to_string(&page)?;
    let text = with_transcript(&text, &seen).context("no transcript of a dial that ends direct")?;
    fs::write(&page, text)?;
    Ok(ExitCode::SUCCESS)
}

/// The page with the dial of this output in place of the one that it has.
fn with_transcript(page: &str, seen: &str) -> Option<String> {
    const FIRST: &str = "       0 ms  dialing";
    let dial = &seen[seen.find(FIRST)?..];
    let last = dial.find("\ndirect after ")? + 1;
    let end = last + dial[last..].find('\n')?;
    let (before, old) = page.split_at(page.find(FIRST)?);
    Some(format!(
        "{before}{}{}",
        &dial[..end],
        &old[old.find("\n```")?..]
    ))
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

#[cfg(test)]
mod tests {
    use super::with_transcript;

    #[test]
    fn a_transcript_takes_the_place_of_the_one_in_the_page() {
        let page = "A dial:\n\n```\n       0 ms  dialing   A\nold\n```\n\nMore.\n";
        let seen = "building\n       0 ms  dialing   B\ndirect after 3 ms: quic\n\ncaptured\n";
        let new =
            "A dial:\n\n```\n       0 ms  dialing   B\ndirect after 3 ms: quic\n```\n\nMore.\n";
        assert_eq!(with_transcript(page, seen).as_deref(), Some(new));
        assert_eq!(with_transcript(page, "relayed after 3 ms"), None);
    }
}
