//! What the nodes of a lab are started with.

use std::{fmt, ops::RangeInclusive, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    artifacts::Artifacts,
    bins::{Bins, bins},
    capture::Capture,
    lab::{Host, Lab},
    nat::RANGE,
    node::{Launch, Process},
    relay::Relay,
};

pub const DIAL_TIMEOUT: &str = "20s";
/// For what a healthy process does in a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Quic,
    Tcp,
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }

    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Quic => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Transport {
    /// The address of a port, which may stand in braces, on an IP address.
    pub fn addr(self, ip: impl fmt::Display, port: impl fmt::Display) -> String {
        let ip = ip.to_string();
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        match self {
            Self::Quic => format!("/{family}/{ip}/udp/{port}/quic-v1"),
            Self::Tcp => format!("/{family}/{ip}/tcp/{port}"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

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

pub fn strays(capture: &Capture, host: &Host, range: &RangeInclusive<u16>) -> Vec<String> {
    capture.strays(host, range)
}
