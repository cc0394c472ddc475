//! Rules for a router's kernel.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use patchbay::Router;
use tokio::{io::AsyncWriteExt as _, process::Command, runtime::Handle};

use crate::sandbox::tool;

/// Loads nftables rules into a router.
pub(crate) async fn load(router: &Router, rules: &str) -> Result<()> {
    let mut command = Command::new(tool("nft"));
    command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let runtime = Handle::current();
    let mut nft = router.run_sync(move || {
        let _entered = runtime.enter();
        command.spawn().context("nft: cannot be started")
    })?;
    let mut stdin = nft.stdin.take().context("nft has no stdin")?;
    stdin.write_all(rules.as_bytes()).await?;
    drop(stdin);
    let output = nft.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "nft in {} refuses the rules: {}\n{rules}",
        router.name(),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(())
}
