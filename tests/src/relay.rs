//! A `relay-node` on a public host of the lab.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::{
    args::{PATIENCE, Transport},
    bins::Bins,
    events::Event,
    lab::{Host, Lab},
    node::{Launch, Process},
};

/// Where relays listen, for both transports and both families.
pub const RELAY_PORT: u16 = 443;

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// Its machine.
    pub host: Host,
    /// Its process.
    pub process: Process,
    /// Its peer id.
    pub id: String,
    name: String,
    env: Vec<(String, String)>,
    runs: u32,
    /// The addresses of the relays that it knows.
    known: Vec<String>,
}

impl Relay {
    /// Adds a public host and starts a relay on it; returns when it listens and knows its addresses.
    pub async fn start(lab: &Lab, bins: &Bins, name: &str) -> Result<Self> {
        Self::start_as(lab, bins, name, &[], &[]).await
    }

    /// The same, with variables of its environment.
    pub async fn start_with(
        lab: &Lab,
        bins: &Bins,
        name: &str,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_as(lab, bins, name, env, &[]).await
    }

    /// The same with other relays in its configuration.
    pub async fn start_knowing(
        lab: &Lab,
        bins: &Bins,
        name: &str,
        others: &[&Self],
    ) -> Result<Self> {
        Self::start_as(lab, bins, name, &[], others).await
    }

    async fn start_as(
        lab: &Lab,
        bins: &Bins,
        name: &str,
        env: &[(&str, &str)],
        others: &[&Self],
    ) -> Result<Self> {
        let host = lab.public_host(name).await?;
        Self::start_on(lab, bins, name, host, env, others).await
    }

    /// Starts a relay on a host that is there already. It listens on all its addresses and gives out those that
    /// [`Host::addresses`] names.
    pub async fn start_on(
        lab: &Lab,
        bins: &Bins,
        name: &str,
        host: Host,
        env: &[(&str, &str)],
        others: &[&Self],
    ) -> Result<Self> {
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let known = known(&host, others);
        let process = launch(lab, bins, name, name, &host, &env, &known)?;
        let id = ready(&process, &host).await?;
        Ok(Self {
            host,
            process,
            id,
            name: name.to_owned(),
            env,
            runs: 1,
            known,
        })
    }

    /// Starts it anew after its end, with the same key on the same addresses.
    pub async fn restart(&mut self, lab: &Lab, bins: &Bins) -> Result<()> {
        self.runs += 1;
        let log = format!("{}-{}", self.name, self.runs);
        self.process = launch(
            lab,
            bins,
            &self.name,
            &log,
            &self.host,
            &self.env,
            &self.known,
        )?;
        let id = ready(&self.process, &self.host).await?;
        ensure!(
            id == self.id,
            "the relay came back as {id} instead of {}",
            self.id
        );
        Ok(())
    }

    /// From its next start on it knows these relays and no others.
    pub fn knows(&mut self, others: &[&Self]) {
        self.known = known(&self.host, others);
    }

    /// Its addresses at one IP address, over these transports.
    pub fn addresses_at(&self, ip: IpAddr, transports: &[Transport]) -> Vec<String> {
        let address =
            |transport: &Transport| format!("{}/p2p/{}", multiaddr(ip, *transport), self.id);
        transports.iter().map(address).collect()
    }

    /// Its addresses that `host` can use, over these transports.
    pub fn addresses(&self, host: &Host, transports: &[Transport]) -> Vec<String> {
        self.host
            .addresses
            .iter()
            .filter(|ip| {
                host.addresses
                    .iter()
                    .any(|own| own.is_ipv6() == ip.is_ipv6())
            })
            .flat_map(|ip| self.addresses_at(*ip, transports))
            .collect()
    }
}

fn known(host: &Host, relays: &[&Relay]) -> Vec<String> {
    let addresses = relays
        .iter()
        .flat_map(|relay| relay.addresses(host, &Transport::ALL));
    addresses.collect()
}

fn launch(
    lab: &Lab,
    bins: &Bins,
    name: &str,
    log: &str,
    host: &Host,
    env: &[(String, String)],
    known: &[String],
) -> Result<Process> {
    let mut args = vec!["run".to_owned()];
    for ip in &host.addresses {
        let any = if ip.is_ipv4() {
            "/ip4/0.0.0.0"
        } else {
            "/ip6/::"
        };
        for transport in Transport::ALL {
            args.extend([
                "--listen".to_owned(),
                format!("{any}/{}", suffix(transport)),
            ]);
            args.extend(["--external".to_owned(), multiaddr(*ip, transport)]);
        }
    }
    let mut launch = Launch::new(log, &bins.relay_node);
    for (name, value) in env {
        launch = launch.env(name, value);
    }
    launch
        .args(args)
        .arg("--key")
        .arg(lab.artifacts().file(&format!("{name}.key")))
        .env("RELAY_NODE_RELAYS", known.join(","))
        .start(&host.device, lab.artifacts())
}

/// Waits until it listens on every address and gives it out; returns its peer id.
async fn ready(process: &Process, host: &Host) -> Result<String> {
    let addresses: Vec<_> = host
        .addresses
        .iter()
        .flat_map(|ip| {
            Transport::ALL.map(|transport| format!("{}/p2p/", multiaddr(*ip, transport)))
        })
        .collect();
    let look = |events: &[Event]| {
        let told = |word: &str, address: &str| {
            events
                .iter()
                .any(|event| event.line.contains(word) && event.line.contains(address))
        };
        let all = addresses
            .iter()
            .all(|address| told("listening", address) && told("external", address));
        let (_, id) = events.first()?.line.rsplit_once("/p2p/")?;
        all.then(|| id.chars().take_while(char::is_ascii_alphanumeric).collect())
    };
    process.until("all its addresses", PATIENCE, look).await
}

fn multiaddr(ip: IpAddr, transport: Transport) -> String {
    let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{family}/{ip}/{}", suffix(transport))
}

fn suffix(transport: Transport) -> String {
    match transport {
        Transport::Quic => format!("udp/{RELAY_PORT}/quic-v1"),
        Transport::Tcp => format!("tcp/{RELAY_PORT}"),
    }
}
