//! Many peers of other make in one process: `fleet` of `tests/peers`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    bins,
    events::Event,
    host::Host,
    node::{Launch, Process},
};

pub fn start(host: &Host, name: &str, relay: &str, command: &str) -> Result<Process> {
    Launch::new(name, bins::fleet()?)
        .args(command.split(' '))
        .args(["--relay", relay])
        .on(host)
}

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

pub fn counts(events: &[Event]) -> Option<&Value> {
    let counts = events.iter().rev().find(|event| event.name() == "counts");
    counts.map(|event| &event.json)
}

pub fn number(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().unwrap_or_default()
}

pub fn sum(counts: &Value, name: &str) -> u64 {
    let reasons = counts[name].as_object();
    reasons.map_or(0, |reasons| {
        reasons.values().filter_map(Value::as_u64).sum()
    })
}
