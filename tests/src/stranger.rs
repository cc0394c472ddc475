//! The peer of other make that does as it is told: `tests/peers/stranger`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{
    args::{PATIENCE, Transport},
    bins,
    lab::{Host, Lab},
    node::{Launch, Process},
    relay::RELAY_PORT,
};

/// Starts strangers on a host.
#[derive(Clone, Debug)]
pub struct Stranger<'a> {
    program: PathBuf,
    host: &'a Host,
    lab: &'a Lab,
}

impl<'a> Stranger<'a> {
    /// On a public host.
    pub fn new(lab: &'a Lab, host: &'a Host) -> Result<Self> {
        Ok(Self {
            program: bins::stranger()?,
            host,
            lab,
        })
    }

    /// Reserves on the relay and waits for peers; returns it with its peer id.
    pub async fn wait(&self, name: &str, relay: &str, args: &[&str]) -> Result<(Process, String)> {
        let launch = self.launch(name).args(["--relay", relay]).args(args);
        let process = self.start(launch.arg("wait"))?;
        let id = id(&process).await?;
        process.event("reserved", PATIENCE).await?;
        Ok((process, id))
    }

    /// Makes a circuit to a peer.
    pub fn dial(&self, name: &str, relay: &str, peer: &str, args: &[&str]) -> Result<Process> {
        let launch = self.launch(name).args(["--relay", relay]).args(args);
        self.start(launch.args(["dial", peer]))
    }

    /// A relay without our protocols; returns it with its address for this transport, over IPv4.
    pub async fn relay(&self, name: &str, transport: Transport) -> Result<(Process, String)> {
        let ip = self.host.ip(false)?;
        let address = match transport {
            Transport::Quic => format!("/ip4/{ip}/udp/{RELAY_PORT}/quic-v1"),
            Transport::Tcp => format!("/ip4/{ip}/tcp/{RELAY_PORT}"),
        };
        let launch = self.launch(name).args(["--listen", &address]);
        let process = self.start(launch.arg("relay"))?;
        let id = id(&process).await?;
        process.event("listening", PATIENCE).await?;
        Ok((process, format!("{address}/p2p/{id}")))
    }

    fn launch(&self, name: &str) -> Launch {
        Launch::new(name, &self.program)
    }

    fn start(&self, launch: Launch) -> Result<Process> {
        launch
            .start(&self.host.device, self.lab.artifacts())
            .context("a stranger")
    }
}

async fn id(process: &Process) -> Result<String> {
    let started = process.event("started", PATIENCE).await?;
    Ok(started.text("/peer_id").to_owned())
}
