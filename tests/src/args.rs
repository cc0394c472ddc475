//! What the nodes of a lab are started with.

use std::ops::RangeInclusive;

use anyhow::Result;

use crate::{
    artifacts::Artifacts,
    bins::{Bins, bins},
    lab::{Host, Lab},
    nat::RANGE,
    node::{Launch, Process},
    relay::Relay,
};

pub use crate::transport::{PATIENCE, Transport};

pub const DIAL_TIMEOUT: &str = "20s";

pub fn range(ports: &RangeInclusive<u16>) -> String {
    format!("{}-{}", ports.start(), ports.end())
}

#[derive(Clone, Debug)]
pub struct NodeArgs {
    pub relays: Vec<String>,
    pub transports: Vec<Transport>,
    pub range: RangeInclusive<u16>,
}

impl NodeArgs {
    /// For a node in `host`: the relay's addresses of its families, and [`RANGE`].
    pub fn new(relay: &Relay, host: &Host, transports: &[Transport]) -> Self {
        Self {
            relays: relay.addresses(host, transports),
            transports: transports.to_vec(),
            range: RANGE,
        }
    }

    pub fn with_relays(relays: Vec<String>, transports: &[Transport]) -> Self {
        Self {
            relays,
            transports: transports.to_vec(),
            range: RANGE,
        }
    }

    pub fn range(mut self, range: RangeInclusive<u16>) -> Self {
        self.range = range;
        self
    }

    pub fn run(&self, lab: &Lab, bins: &Bins, name: &str) -> Launch {
        self.run_with(lab.artifacts(), bins, name)
    }

    pub fn run_on(&self, host: &Host, name: &str) -> Result<Launch> {
        Ok(self.run_with(&host.artifacts, &bins()?, name))
    }

    fn run_with(&self, artifacts: &Artifacts, bins: &Bins, name: &str) -> Launch {
        Launch::new(name, &bins.p2pnode)
            .args(["run", "--json", "--key"])
            .arg(artifacts.file(&format!("{name}.key")))
            .args(self.list())
    }

    pub fn dial(&self, bins: &Bins, name: &str, peer: &str) -> Launch {
        self.dial_within(bins, name, peer, DIAL_TIMEOUT)
    }

    pub fn dial_within(&self, bins: &Bins, name: &str, peer: &str, timeout: &str) -> Launch {
        self.plain_dial(bins, name, peer, timeout).arg("--json")
    }

    pub fn watched_dial(&self, bins: &Bins, name: &str, peer: &str) -> Launch {
        self.plain_dial(bins, name, peer, DIAL_TIMEOUT)
            .inherit_stdio()
    }

    fn plain_dial(&self, bins: &Bins, name: &str, peer: &str, timeout: &str) -> Launch {
        Launch::new(name, &bins.p2pnode)
            .args(["dial", peer, "--timeout", timeout])
            .args(self.list())
    }

    fn list(&self) -> Vec<String> {
        let transports: Vec<_> = self
            .transports
            .iter()
            .map(|transport| transport.name())
            .collect();
        let mut args = vec![
            "--port-range".to_owned(),
            range(&self.range),
            "--transports".to_owned(),
            transports.join(","),
        ];
        for relay in &self.relays {
            args.extend(["--relay".to_owned(), relay.clone()]);
        }
        args
    }
}

pub async fn reserved(node: &Process) -> Result<String> {
    let started = node.event("started", PATIENCE).await?;
    node.event("reserved", PATIENCE).await?;
    Ok(started.text("/peer_id").to_owned())
}

impl Relay {
    pub fn run(&self, name: &str, host: &Host, transports: &[Transport]) -> Result<Launch> {
        NodeArgs::new(self, host, transports).run_on(host, name)
    }

    pub fn dial(
        &self,
        name: &str,
        host: &Host,
        transports: &[Transport],
        peer: &str,
    ) -> Result<Launch> {
        Ok(NodeArgs::new(self, host, transports).dial(&bins()?, name, peer))
    }
}
