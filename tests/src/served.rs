//! A relay and peers that use it as it is meant to be used: what must not change while others misuse it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    admin::{self, ADMIN, Exposition},
    args::{NodeArgs, PATIENCE, Transport},
    bins::bins,
    fleet,
    host::Host,
    lab::{Lab, Site},
    nat::{NatKind, RANGE},
    node::{Process, printed},
    relay::Relay,
    running::Node,
    usage,
};

const PINGS: &str = "100000";
const PAUSE: Duration = Duration::from_millis(100);

/// A peer with a reservation, and a dial that has a circuit to it that stays.
pub struct Good {
    pub node: Node,
    pub site: Site,
    /// `p2pnode dial`, which pings it until killed.
    pub dial: Process,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Resident memory in KiB.
    pub memory: u64,
    pub descriptors: usize,
    pub reservations: f64,
    pub circuits: f64,
    pub records: f64,
}

/// A relay, and good peers, one over each transport.
pub struct Served {
    pub good: Vec<Good>,
    pub site: Site,
    pub host: Host,
    pub relay: Relay,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
}

impl Served {
    /// Starts a relay with these variables in its environment, and its peers; returns when pings go over both circuits.
    pub async fn new(env: &[(&str, &str)]) -> Result<Self> {
        Self::among(env, false).await
    }

    /// The same; nobody else may use the relay.
    pub async fn alone(env: &[(&str, &str)]) -> Result<Self> {
        Self::among(env, true).await
    }

    async fn among(env: &[(&str, &str)], alone: bool) -> Result<Self> {
        let (bins, lab) = (bins()?, Lab::of_test().await?);
        let (site, host) = lab.home("dials", NatKind::EimApdf).await?;
        let mut allowed = Vec::new();
        for name in ["quic-node", "quic-dial", "tcp-node", "tcp-dial"] {
            let key = lab.artifacts().file(&format!("{name}.key"));
            let key = key.to_str().context("path of the artifacts")?;
            allowed.push(printed(&host, &bins.p2pnode, &["id", "--key", key]).await?);
        }
        let allowed = if alone {
            allowed.join(",")
        } else {
            String::new()
        };
        let mut env = env.to_vec();
        env.push(("RELAY_NODE_ADMIN_LISTEN", ADMIN));
        env.push(("RELAY_NODE_ACCESS_ALLOW", &allowed));
        let relay = Relay::start_with(&lab, "relay", &env).await?;
        let mut served = Self {
            good: Vec::new(),
            site,
            host,
            relay,
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
        let (site, host) = self.lab.home(transport.name(), NatKind::EimApdf).await?;
        let node = self
            .relay
            .run(&format!("{transport}-node"), &host, &[transport])?;
        // The circuit is to stay.
        let node = node
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .reserves(&host)
            .await?;
        let key = self.lab.artifacts().file(&format!("{transport}-dial.key"));
        // Each dial has ports of its own.
        let first = RANGE.start() + 10 * u16::from(transport == Transport::Tcp);
        let dial = NodeArgs::new(&self.relay, &self.host, &[transport])
            .range(first..=first + 9)
            .dial(&format!("{transport}-dial"), &node.id)?
            .args(["--until", "connected", "--count", PINGS, "--key"])
            .arg(key)
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .on(&self.host)?;
        dial.event("ping", PATIENCE).await?;
        Ok(Good {
            node,
            site,
            dial,
            transport,
        })
    }

    pub fn fleet(
        &self,
        host: &Host,
        name: &str,
        transport: Transport,
        command: &str,
    ) -> Result<Process> {
        fleet::start(host, name, &self.relay.address(host, transport)?, command)
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
                (&good.node.process, "reservation_lost"),
                (&good.dial, "disconnected"),
            ] {
                let events = process.events();
                let harmed = events.iter().find(|event| event.name() == harm);
                ensure!(harmed.is_none(), "{}: {harmed:?}", process.name());
            }
        }
        Ok(())
    }

    pub fn seen(&self) -> Vec<usize> {
        self.good.iter().map(|good| good.node.seen()).collect()
    }

    pub async fn each_after(&self, seen: &[usize], event: &str) -> Result<()> {
        for (good, seen) in self.good.iter().zip(seen) {
            good.node
                .process
                .event_after(*seen, event, PATIENCE)
                .await?;
        }
        Ok(())
    }

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

    pub async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) -> Result<State> {
        let until = Instant::now() + PATIENCE * 2;
        loop {
            let state = self.state().await?;
            if wanted(&state) {
                return Ok(state);
            }
            ensure!(Instant::now() < until, "not {what}: {state:?}");
            sleep(PAUSE).await;
        }
    }

    /// Waits until nothing is left of what came after `before`: descriptors, reservations, circuits and records are back. Returns
    /// by how many KiB the memory has grown.
    pub async fn recovers(&self, before: &State) -> Result<u64> {
        let back = |now: &State| {
            // A connection to the admin server, of somebody who asked, may be there or not.
            now.descriptors <= before.descriptors + 1
                && now.reservations == before.reservations
                && now.circuits == before.circuits
                && now.records == before.records
        };
        let state = self.until("what it had before", back).await?;
        Ok(state.memory.saturating_sub(before.memory))
    }

    pub async fn metrics(&self) -> Result<Exposition> {
        admin::metrics(&self.relay.host).await
    }

    pub async fn denied(&self) -> Result<BTreeMap<String, f64>> {
        let metrics = self.metrics().await?;
        let denied = metrics.all("relay_denied_total", &[]);
        let by_reason = denied.map(|sample| (sample.labels["reason"].clone(), sample.value));
        Ok(by_reason.collect())
    }

    /// A new peer finds a good one by its id, through the relay, within 10 s, and pings it.
    pub async fn finds(&self, name: &str, good: &Good) -> Result<()> {
        // Ports that no dial before had.
        let mut dial = NodeArgs::new(&self.relay, &self.host, &[good.transport])
            .range(40030..=40039)
            .dial_within(name, &good.node.id, "10s")?
            .args(["--until", "connected", "--count", "1"])
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .on(&self.host)?;
        let dial = dial.ended().await?;
        let result = dial.result()?;
        ensure!(
            dial.code == 0 && result.path_kind() == "relayed",
            "{}: {}",
            dial.code,
            result.line
        );
        Ok(())
    }

    pub async fn finds_all(&self) -> Result<()> {
        for good in &self.good {
            self.finds(&format!("newcomer-{}", good.transport), good)
                .await?;
        }
        Ok(())
    }
}
