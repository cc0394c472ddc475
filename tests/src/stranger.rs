//! The peer of other make that does as it is told: `stranger` of `tests/peers`.

use anyhow::Result;

use crate::{
    args::{PATIENCE, Transport},
    bins,
    host::Host,
    node::{Launch, Process},
    relay::RELAY_PORT,
};

pub async fn wait(
    host: &Host,
    name: &str,
    relay: &str,
    args: &[&str],
) -> Result<(Process, String)> {
    let process = launch(name)?.args(["--relay", relay]).args(args);
    let process = process.arg("wait").on(host)?;
    let id = id(&process).await?;
    process.event("reserved", PATIENCE).await?;
    Ok((process, id))
}

pub fn dial(host: &Host, name: &str, relay: &str, peer: &str, args: &[&str]) -> Result<Process> {
    let launch = launch(name)?.args(["--relay", relay]).args(args);
    launch.args(["dial", peer]).on(host)
}

/// Runs `stranger attack` with these words.
pub fn attack(host: &Host, name: &str, words: &[&str]) -> Result<Process> {
    launch(name)?.arg("attack").args(words).on(host)
}

/// A relay without our protocols; returns it with its address for this transport, over IPv4.
pub async fn relay(
    host: &Host,
    name: &str,
    transport: Transport,
    args: &[&str],
) -> Result<(Process, String)> {
    let address = transport.addr(host.ip(false)?, RELAY_PORT);
    let process = launch(name)?
        .args(["--listen", &address, "relay"])
        .args(args)
        .on(host)?;
    let id = id(&process).await?;
    process.event("listening", PATIENCE).await?;
    Ok((process, format!("{address}/p2p/{id}")))
}

pub fn launch(name: &str) -> Result<Launch> {
    Ok(Launch::new(name, bins::stranger()?))
}

pub async fn id(process: &Process) -> Result<String> {
    let started = process.event("started", PATIENCE).await?;
    Ok(started.text("/peer_id").to_owned())
}
