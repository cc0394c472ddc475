//! A `relay-node` on a public host of the lab.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    bins::bins,
    events::Event,
    host::Host,
    lab::Lab,
    node::{Launch, Process},
    transport::{PATIENCE, Transport},
};

pub const RELAY_PORT: u16 = 443;

pub struct Relay {
    pub host: Host,
    pub process: Process,
    pub id: String,
    name: String,
    env: Vec<(String, String)>,
    runs: u32,
    known: Vec<String>,
}

impl Relay {
    /// Adds a public host and starts a relay on it; returns when it listens and knows its addresses.
    pub async fn start(lab: &Lab, name: &str) -> Result<Self> {
        Self::start_with(lab, name, &[]).await
    }

    pub async fn start_with(lab: &Lab, name: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_on(name, lab.public_host(name).await?, env, &[]).await
    }

    /// Starts a relay on a host that is there already. It listens on all its addresses and gives out those that
    /// [`Host::addresses`] names.
    pub async fn start_on(
        name: &str,
        host: Host,
        env: &[(&str, &str)],
        others: &[&Self],
    ) -> Result<Self> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let env: Vec<_> = env.iter().map(own).collect();
        let known = known(&host, others);
        let process = launch(name, name, &host, &env, &known)?;
        Ok(Self {
            id: ready(&process, &host).await?,
            host,
            process,
            name: name.to_owned(),
            env,
            runs: 1,
            known,
        })
    }

    /// Starts it again after its end, with the same key on the same addresses.
    pub async fn restart(&mut self) -> Result<()> {
        self.runs += 1;
        let log = format!("{}-{}", self.name, self.runs);
        let (name, host) = (&self.name, &self.host);
        self.process = launch(name, &log, host, &self.env, &self.known)?;
        let id = ready(&self.process, &self.host).await?;
        ensure!(id == self.id, "{} came back as {id}", self.id);
        Ok(())
    }

    /// Its address for `host` over one transport, IPv4 first.
    pub fn address(&self, host: &Host, transport: Transport) -> Result<String> {
        let mut addresses = self.addresses(host, &[transport]).into_iter();
        addresses.next().context("no common family with the relay")
    }

    /// From its next start on it knows these relays and no others.
    pub fn knows(&mut self, others: &[&Self]) {
        self.known = known(&self.host, others);
    }

    pub fn addresses_at(&self, ip: IpAddr, transports: &[Transport]) -> Vec<String> {
        let address =
            |transport: &Transport| format!("{}/p2p/{}", transport.addr(ip, RELAY_PORT), self.id);
        transports.iter().map(address).collect()
    }

    pub fn addresses(&self, host: &Host, transports: &[Transport]) -> Vec<String> {
        let shared = |ip: &&IpAddr| host.ip(ip.is_ipv6()).is_ok();
        let ips = self.host.addresses.iter().filter(shared);
        ips.flat_map(|ip| self.addresses_at(*ip, transports))
            .collect()
    }

    /// The checks of a `netcheck` on `host` with this relay.
    pub async fn netcheck(&self, host: &Host) -> Result<Vec<Value>> {
        let mut launch = Launch::new("netcheck", &bins()?.p2pnode).args(["netcheck", "--json"]);
        for address in self.addresses(host, &Transport::ALL) {
            launch = launch.args(["--relay", &address]);
        }
        let ended = launch.on(host)?.ended().await?;
        let report = ended.all("netcheck").next().context("no report")?;
        let checks = report.json["checks"].as_array();
        checks.cloned().context("no checks")
    }
}

fn known(host: &Host, relays: &[&Relay]) -> Vec<String> {
    let addresses = relays
        .iter()
        .flat_map(|relay| relay.addresses(host, &Transport::ALL));
    addresses.collect()
}

fn launch(
    name: &str,
    log: &str,
    host: &Host,
    env: &[(String, String)],
    known: &[String],
) -> Result<Process> {
    let mut launch = Launch::new(log, bins()?.relay_node)
        .arg("run")
        .arg("--key")
        .arg(host.artifacts.file(&format!("{name}.key")))
        .env("RELAY_NODE_RELAYS", known.join(","));
    for ip in &host.addresses {
        let any = if ip.is_ipv4() { "0.0.0.0" } else { "::" };
        for transport in Transport::ALL {
            launch = launch
                .args(["--listen", &transport.addr(any, RELAY_PORT)])
                .args(["--external", &transport.addr(ip, RELAY_PORT)]);
        }
    }
    let set = |launch: Launch, (name, value): &(String, String)| launch.env(name, value);
    env.iter().fold(launch, set).on(host)
}

async fn ready(process: &Process, host: &Host) -> Result<String> {
    let address = |ip: &IpAddr| {
        Transport::ALL.map(|transport| format!("{}/p2p/", transport.addr(ip, RELAY_PORT)))
    };
    let addresses: Vec<_> = host.addresses.iter().flat_map(address).collect();
    let look = |events: &[Event]| {
        let told = |word: &str, address: &str| {
            let mut lines = events.iter().map(|event| &event.line);
            lines.any(|line| line.contains(word) && line.contains(address))
        };
        let all = addresses
            .iter()
            .all(|address| told("listening", address) && told("external", address));
        let (_, id) = events.first()?.line.rsplit_once("/p2p/")?;
        all.then(|| id.chars().take_while(char::is_ascii_alphanumeric).collect())
    };
    process.until("all its addresses", PATIENCE, look).await
}
