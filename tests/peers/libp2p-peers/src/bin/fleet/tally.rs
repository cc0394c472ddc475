//! What has happened to all peers together, told whenever it has changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p_peers::t_ms;
use serde_json::{Map, Value, json};

const INTERVAL: Duration = Duration::from_millis(100);
const ERRORS: usize = 32;

#[derive(Clone)]
pub(crate) struct Tally(Arc<Mutex<Counts>>);

struct Counts {
    started: Instant,
    numbers: BTreeMap<&'static str, i64>,
    reasons: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// How often each peer has renewed; `None` while it holds nothing.
    renewals: Vec<Option<u32>>,
    changed: bool,
}

impl Tally {
    pub(crate) fn start(names: &[&'static str], peers: usize) -> Self {
        let tally = Self(Arc::new(Mutex::new(Counts {
            started: Instant::now(),
            numbers: names.iter().map(|name| (*name, 0)).collect(),
            reasons: BTreeMap::new(),
            renewals: vec![None; peers],
            changed: true,
        })));
        let reporter = tally.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                reporter.tell();
            }
        });
        tally
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.changed = true;
        counts
    }

    pub(crate) fn add(&self, name: &'static str, by: i64) {
        *self.counts().numbers.entry(name).or_default() += by;
    }

    pub(crate) fn because(&self, name: &'static str, reason: &str) {
        let mut counts = self.counts();
        let reasons = counts.reasons.entry(name).or_default();
        let reason = if reasons.contains_key(reason) || reasons.len() < ERRORS {
            reason
        } else {
            "other"
        };
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }

    pub(crate) fn sum(&self, name: &str) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .reasons
            .get(name)
            .map_or(0, |reasons| reasons.values().sum())
    }

    pub(crate) fn renewals(&self, peer: usize, renewals: Option<u32>) {
        self.counts().renewals[peer] = renewals;
    }

    pub(crate) fn tell(&self) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut counts.changed) {
            return;
        }
        let mut line = Map::new();
        line.insert("event".into(), "counts".into());
        line.insert("t_ms".into(), t_ms(counts.started).into());
        for (name, number) in &counts.numbers {
            line.insert((*name).into(), (*number).into());
        }
        for (name, reasons) in &counts.reasons {
            line.insert((*name).into(), json!(reasons));
        }
        // Of those that hold a reservation.
        let least = counts.renewals.iter().flatten().min();
        line.insert("renewed_least".into(), json!(least));
        println!("{}", Value::Object(line));
    }
}
