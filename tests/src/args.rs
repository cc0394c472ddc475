//! What the nodes of a lab are started with.

use std::ops::RangeInclusive;

use anyhow::Result;

use crate::{
    bins::bins,
    host::Host,
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
    pub searches: bool,
}

impl NodeArgs {
    /// For a node in `host`: the relay's addresses of its families, and [`RANGE`].
    pub fn new(relay: &Relay, host: &Host, transports: &[Transport]) -> Self {
        Self::with_relays(relay.addresses(host, transports), transports)
    }

    pub fn with_relays(relays: Vec<String>, transports: &[Transport]) -> Self {
        Self {
            relays,
            transports: transports.to_vec(),
            range: RANGE,
            searches: false,
        }
    }

    /// Where a NAT is symmetric, ports are searched for. Without it they are not, so that what a punch does is seen.
    pub fn searching(mut self) -> Self {
        self.searches = true;
        self
    }

    pub fn range(mut self, range: RangeInclusive<u16>) -> Self {
        self.range = range;
        self
    }

    pub fn run_on(&self, host: &Host, name: &str) -> Result<Launch> {
        let key = host.artifacts.file(&format!("{name}.key"));
        let launch = Launch::new(name, bins()?.p2pnode).args(["run", "--json", "--key"]);
        Ok(self.with_search(launch.arg(key).args(self.list())))
    }

    pub fn dial(&self, name: &str, peer: &str) -> Result<Launch> {
        self.dial_within(name, peer, DIAL_TIMEOUT)
    }

    pub fn dial_within(&self, name: &str, peer: &str, timeout: &str) -> Result<Launch> {
        Ok(self.watched_dial(name, peer, timeout)?.arg("--json"))
    }

    pub fn watched_dial(&self, name: &str, peer: &str, timeout: &str) -> Result<Launch> {
        let launch = Launch::new(name, bins()?.p2pnode);
        let launch = launch.args(["dial", peer, "--timeout", timeout]);
        Ok(self.with_search(launch.args(self.list())))
    }

    fn with_search(&self, launch: Launch) -> Launch {
        launch.env(
            "P2PNODE_PUNCH_SEARCH",
            if self.searches { "auto" } else { "off" },
        )
    }

    fn list(&self) -> Vec<String> {
        let transports = self.transports.iter().map(|transport| transport.name());
        let mut args = vec![
            "--port-range".to_owned(),
            range(&self.range),
            "--transports".to_owned(),
            transports.collect::<Vec<_>>().join(","),
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
        NodeArgs::new(self, host, transports).dial(name, peer)
    }
}
