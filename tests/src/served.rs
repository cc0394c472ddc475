//! A relay and peers that use it as it is meant to be used: what must not change while others misuse it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    admin::{self, ADMIN, Exposition},
    args::{NodeArgs, PATIENCE, Transport, range, reserved},
    bins::{Bins, bins},
    lab::{Host, Lab, Site},
    nat::{NatKind, RANGE},
    node::{Launch, Process},
    relay::Relay,
    usage,
};

/// More pings than any test lasts.
const PINGS: &str = "100000";
/// Between two looks at what changes without saying so.
const PAUSE: Duration = Duration::from_millis(100);

/// A peer with a reservation, and a dial that has a circuit to it that stays.
#[derive(Debug)]
pub struct Good {
    /// `p2pnode run`.
    pub node: Process,
    /// Its peer id.
    pub id: String,
    /// Its network.
    pub site: Site,
    /// `p2pnode dial`, which pings it until killed.
    pub dial: Process,
    transport: Transport,
}

/// What the relay takes, and how much of what it says it has.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Resident memory in KiB.
    pub memory: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// `relay_reservations`.
    pub reservations: f64,
    /// `relay_circuits`.
    pub circuits: f64,
    /// `relay_records`.
    pub records: f64,
}

/// A relay, and good peers, one over each transport.
#[derive(Debug)]
pub struct Served {
    /// The peers.
    pub good: Vec<Good>,
    /// The network of the dials.
    pub site: Site,
    /// Their host.
    pub host: Host,
    /// The relay.
    pub relay: Relay,
    /// The binaries.
    pub bins: Bins,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
}

impl Served {
    /// Starts a relay with these variables in its environment, and its peers; returns when pings go over both circuits.
    pub async fn new(name: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::among(name, env, false).await
    }

    /// The same; nobody else may use the relay.
    pub async fn alone(name: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::among(name, env, true).await
    }

    async fn among(name: &str, env: &[(&str, &str)], alone: bool) -> Result<Self> {
        let (bins, lab) = (bins()?, Lab::new(name).await?);
        let site = lab.site("dials", NatKind::EimApdf).await?;
        let host = lab.host("host-dials", &site).await?;
        let mut allowed = Vec::new();
        if alone {
            for transport in Transport::ALL {
                for role in ["node", "dial"] {
                    let key = lab.artifacts().file(&format!("{transport}-{role}.key"));
                    let key = key.to_str().context("path of the artifacts")?;
                    let args = ["id", "--key", key];
                    let id = crate::node::output(&host.device, &bins.p2pnode, &args, PATIENCE);
                    allowed.push(String::from_utf8(id.await?.stdout)?.trim().to_owned());
                }
            }
        }
        let allowed = allowed.join(",");
        let mut env = env.to_vec();
        env.push(("RELAY_NODE_ADMIN_LISTEN", ADMIN));
        env.push(("RELAY_NODE_ACCESS_ALLOW", &allowed));
        let relay = Relay::start_with(&lab, &bins, "relay", &env).await?;
        let mut served = Self {
            good: Vec::new(),
            site,
            host,
            relay,
            bins,
            lab,
        };
        for transport in Transport::ALL {
            let good = served.good(transport).await?;
            served.good.push(good);
        }
        served.unharmed().await?;
        Ok(served)
    }

    async fn good(&self, transport: Transport) -> Result<Good> {
        let site = self.lab.site(transport.name(), NatKind::EimApdf).await?;
        let host = self.lab.host(&format!("host-{transport}"), &site).await?;
        let node = NodeArgs::new(&self.relay, &host, &[transport])
            .run(&self.lab, &self.bins, &format!("{transport}-node"))
            // The circuit is to stay.
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .start(&host.device, self.lab.artifacts())?;
        let id = reserved(&node).await?;
        let key = self.lab.artifacts().file(&format!("{transport}-dial.key"));
        // Each dial has ports of its own.
        let first = RANGE.start() + 10 * u16::from(transport == Transport::Tcp);
        let dial = NodeArgs::new(&self.relay, &self.host, &[transport])
            .range(first..=first + 9)
            .dial(&self.bins, &format!("{transport}-dial"), &id)
            .args(["--until", "connected", "--count", PINGS, "--key"])
            .arg(key)
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .start(&self.host.device, self.lab.artifacts())?;
        dial.event("ping", PATIENCE).await?;
        Ok(Good {
            node,
            id,
            site,
            dial,
            transport,
        })
    }

    /// The relay's address for `host` over that transport, IPv4.
    pub fn address(&self, host: &Host, transport: Transport) -> String {
        self.relay.addresses(host, &[transport]).remove(0)
    }

    /// The good peers have what they had all the time: no reservation was lost, no circuit closed, and a ping that is sent now is
    /// answered.
    pub async fn unharmed(&mut self) -> Result<()> {
        ensure!(self.relay.process.is_alive()?, "the relay has ended");
        let log = self.relay.process.log();
        ensure!(!log.contains("panicked"), "{log}");
        for good in &self.good {
            let seen = good.dial.events().len();
            let ping = good.dial.event_after(seen, "ping", PATIENCE).await?;
            ensure!(ping.text("/kind") == "relayed", "{}", ping.line);
            for (process, harm) in [
                (&good.node, "reservation_lost"),
                (&good.dial, "disconnected"),
            ] {
                let harmed = process
                    .events()
                    .into_iter()
                    .find(|event| event.name() == harm);
                ensure!(
                    harmed.is_none(),
                    "{}: {}",
                    process.name(),
                    harmed.map(|event| event.line).unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// What the relay takes and has at the moment.
    pub async fn state(&self) -> Result<State> {
        let metrics = self.metrics().await?;
        let pid = self.relay.process.pid();
        Ok(State {
            memory: usage::memory(pid)?,
            descriptors: usage::descriptors(pid)?,
            reservations: metrics.sum("relay_reservations", &[]),
            circuits: metrics.sum("relay_circuits", &[]),
            records: metrics.sum("relay_records", &[]),
        })
    }

    /// Waits until the relay is in a state as `wanted`, and returns that.
    pub async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) -> Result<State> {
        let until = Instant::now() + PATIENCE * 2;
        loop {
            let state = self.state().await?;
            if wanted(&state) {
                return Ok(state);
            }
            ensure!(
                Instant::now() < until,
                "the relay does not get to {what}: {state:?}"
            );
            sleep(PAUSE).await;
        }
    }

    /// Waits until nothing is left of what came after `before`: descriptors, reservations, circuits and records are back. Returns
    /// by how many KiB the memory has grown.
    pub async fn recovers(&self, before: &State) -> Result<u64> {
        let state = self
            .until("what it had before", |now| {
                // A connection to the admin server, of somebody who asked, may be there or not.
                now.descriptors <= before.descriptors + 1
                    && now.reservations == before.reservations
                    && now.circuits == before.circuits
                    && now.records == before.records
            })
            .await?;
        Ok(state.memory.saturating_sub(before.memory))
    }

    /// The relay's metrics.
    pub async fn metrics(&self) -> Result<Exposition> {
        admin::metrics(&self.relay.host).await
    }

    /// What the relay has denied so far, by reason.
    pub async fn denied(&self) -> Result<BTreeMap<String, f64>> {
        let metrics = self.metrics().await?;
        let denied = metrics.all("relay_denied_total", &[]);
        Ok(denied
            .into_iter()
            .map(|sample| (sample.labels["reason"].clone(), sample.value))
            .collect())
    }

    /// A new peer finds a good one by its id, through the relay, within 10 s, and pings it.
    pub async fn finds(&self, name: &str, good: &Good) -> Result<()> {
        // Ports that no dial before had.
        let ports = RANGE.start() + 30..=RANGE.start() + 39;
        let transport = good.transport.name();
        let relay = self.address(&self.host, good.transport);
        let mut dial = Launch::new(name, &self.bins.p2pnode)
            .args(["dial", &good.id, "--json", "--timeout", "10s"])
            .args(["--until", "connected", "--count", "1"])
            .args(["--port-range", &range(&ports), "--transports", transport])
            .args(["--relay", &relay])
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .start(&self.host.device, self.lab.artifacts())?;
        let status = dial.exit(PATIENCE).await?;
        let result = dial.event("result", PATIENCE).await?;
        ensure!(
            status.code() == Some(0) && result.path_kind() == "relayed",
            "{status}: {}",
            result.line
        );
        Ok(())
    }
}
