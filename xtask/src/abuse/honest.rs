//! Honest peers: what they do before an attack and during it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use p2pnode_tests::{
    args::{NodeArgs, Transport},
    events::Event,
    host::Host,
    node::{Launch, Process},
    running::Node,
};
use tokio::time::{Instant, sleep};

use super::attacks::Target;

/// What a dial may take without being unusual, in milliseconds: less is chance on two processors.
const QUICK: f64 = 100.0;
/// Longer than any honest dial takes.
const PATIENCE: &str = "8s";
/// Dials are processes of their own: without a pause they would be most of the load.
const PAUSE: Duration = Duration::from_millis(150);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// To an honest peer over a circuit.
    Relayed(Transport),
    /// To the node's public port.
    Direct(Transport),
    /// To the node over a circuit.
    Called,
    /// The node's own.
    Own,
}

impl Kind {
    pub(super) fn of(target: Target) -> Vec<Self> {
        match target {
            Target::Relay => Transport::ALL.map(Self::Relayed).to_vec(),
            Target::Node => {
                let direct = Transport::ALL.map(Self::Direct);
                [&direct[..], &[Self::Called, Self::Own]].concat()
            }
            Target::Home => vec![Self::Called, Self::Own],
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Dials {
    pub(super) made: u64,
    pub(super) failed: u64,
    pub(super) times: BTreeMap<Kind, Vec<f64>>,
    pub(super) reasons: BTreeMap<String, u64>,
}

impl Dials {
    /// Of all dials in this one, relative to the median of their kind in `before`, or to [`QUICK`]; the median of these ratios.
    pub(super) fn ratio(&self, before: &Self) -> Option<f64> {
        let mut ratios = Vec::new();
        for (kind, times) in &self.times {
            let usual = median(before.times.get(kind)?)?.max(QUICK);
            ratios.extend(times.iter().map(|time| time / usual));
        }
        median(&ratios)
    }
}

pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Who dials whom.
pub(super) struct Honest<'a> {
    pub(super) host: &'a Host,
    pub(super) key: String,
    pub(super) target: &'a Node,
    pub(super) target_addrs: BTreeMap<Transport, String>,
    pub(super) relay: BTreeMap<Transport, String>,
    /// A node with a reservation.
    pub(super) called: &'a Node,
    /// Ids of plain peers with a reservation.
    pub(super) hosts: &'a [String],
    pub(super) count: usize,
}

impl Honest<'_> {
    pub(super) async fn round(&mut self, kinds: &[Kind], dials: &mut Dials) -> Result<()> {
        for kind in kinds {
            self.count += 1;
            let mut dial = self.start(*kind)?;
            let ended = dial.ended().await;
            let result = ended.as_ref().ok().and_then(|dial| dial.result().ok());
            match (&ended, result) {
                (Ok(ended), Some(result)) if ended.code == 0 => {
                    dials.made += 1;
                    dials.times.entry(*kind).or_default().push(time(result));
                }
                (_, result) => {
                    dials.failed += 1;
                    let reason = result.map_or("no result", |result| result.text("/reason"));
                    let reason = format!("{kind:?}: {reason}");
                    *dials.reasons.entry(reason).or_default() += 1;
                }
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn start(&self, kind: Kind) -> Result<Process> {
        let name = format!("honest-{}", self.count);
        let launch: Launch = match kind {
            Kind::Own => {
                let peer = &self.hosts[self.count / 4 % self.hosts.len()];
                let dial = self.target.control.dial_within(&name, peer, PATIENCE);
                return dial.args(["--until", "connected"]).on(&self.target.host);
            }
            Kind::Relayed(transport) => {
                self.over(&name, &self.relay[&transport], transport, &self.called.id)?
            }
            Kind::Called => {
                let transport = Transport::ALL[self.count / 4 % 2];
                self.over(&name, &self.relay[&transport], transport, &self.target.id)?
            }
            Kind::Direct(transport) => NodeArgs::with_relays(Vec::new(), &[transport])
                .dial_within(&name, &self.target.id, PATIENCE)?
                .args(["--addr", &self.target_addrs[&transport]]),
        };
        launch
            .args(["--until", "connected", "--key", &self.key])
            .env("P2PNODE_PUNCH_ENABLED", "false")
            .on(self.host)
    }

    fn over(&self, name: &str, relay: &str, transport: Transport, peer: &str) -> Result<Launch> {
        NodeArgs::with_relays(vec![relay.to_owned()], &[transport])
            .dial_within(name, peer, PATIENCE)
    }
}

fn time(result: &Event) -> f64 {
    result.json["t_ms"].as_f64().unwrap_or_default()
}

/// Bytes that the steady peers have got back so far.
pub(super) fn carried(steady: &Process) -> f64 {
    let events = steady.events();
    let carried = events.iter().rev().find(|event| event.name() == "carried");
    carried
        .and_then(|event| event.json["bytes"].as_f64())
        .unwrap_or_default()
}

pub(super) async fn at_least(
    dials: &mut Dials,
    honest: &mut Honest<'_>,
    kinds: &[Kind],
    until: Instant,
) -> Result<()> {
    loop {
        honest.round(kinds, dials).await.context("honest dials")?;
        if Instant::now() >= until {
            return Ok(());
        }
    }
}
