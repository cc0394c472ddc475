//! Many peers of other make in one process: `tests/peers/fleet`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    bins,
    events::Event,
    lab::{Host, Lab},
    node::{Launch, Process},
};

/// Starts fleets on a host.
#[derive(Clone, Debug)]
pub struct Fleet<'a> {
    program: PathBuf,
    host: &'a Host,
    lab: &'a Lab,
}

impl<'a> Fleet<'a> {
    /// On any host.
    pub fn new(lab: &'a Lab, host: &'a Host) -> Result<Self> {
        Ok(Self {
            program: bins::fleet()?,
            host,
            lab,
        })
    }

    /// That many peers that each reserve on the relay and renew, until killed.
    pub fn hold(&self, name: &str, relay: &str, peers: usize, args: &[&str]) -> Result<Process> {
        let peers = peers.to_string();
        self.start(name, relay, &[&["hold", "--peers", &peers], args].concat())
    }

    /// That many circuits over which data moves at the same time, for that many seconds; then it ends.
    pub fn circuits(
        &self,
        name: &str,
        relay: &str,
        pairs: usize,
        seconds: u64,
        args: &[&str],
    ) -> Result<Process> {
        let (pairs, seconds) = (pairs.to_string(), seconds.to_string());
        let all = ["circuits", "--pairs", &pairs, "--seconds", &seconds];
        self.start(name, relay, &[&all, args].concat())
    }

    /// Peers that misuse the circuit relay protocol, until killed.
    pub fn hop(&self, name: &str, relay: &str, how: &str, args: &[&str]) -> Result<Process> {
        self.start(name, relay, &[&["hop", "--how", how], args].concat())
    }

    /// Connections that are begun and never finished, until killed.
    pub fn slow(
        &self,
        name: &str,
        relay: &str,
        how: &str,
        connections: usize,
        args: &[&str],
    ) -> Result<Process> {
        let connections = connections.to_string();
        let all = ["slow", "--how", how, "--connections", &connections];
        self.start(name, relay, &[&all, args].concat())
    }

    fn start(&self, name: &str, relay: &str, args: &[&str]) -> Result<Process> {
        Launch::new(name, &self.program)
            .args(args)
            .args(["--relay", relay])
            .start(&self.host.device, self.lab.artifacts())
            .context("a fleet")
    }
}

/// Waits until the counts of a fleet are as `wanted`, and returns them.
pub async fn counted(
    fleet: &Process,
    what: &str,
    within: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let look = |events: &[Event]| counts(events).filter(|counts| wanted(counts)).cloned();
    fleet.until(what, within, look).await.with_context(|| {
        let events = fleet.events();
        let last = counts(&events).map_or_else(|| "none".to_owned(), Value::to_string);
        format!("{what}; the last counts: {last}")
    })
}

/// The last counts.
pub fn counts(events: &[Event]) -> Option<&Value> {
    let counts = events.iter().rev().find(|event| event.name() == "counts");
    counts.map(|event| &event.json)
}

/// How many things there were for any reason, such as `refused`.
pub fn sum(counts: &Value, name: &str) -> u64 {
    let reasons = counts[name].as_object();
    reasons.map_or(0, |reasons| {
        reasons.values().filter_map(Value::as_u64).sum()
    })
}
