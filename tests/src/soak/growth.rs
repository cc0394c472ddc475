//! What a process has before and after: nothing may have grown.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::{admin, events::Event, host::Host, node::Process, usage};

/// Resident memory varies by what allocators keep, KiB.
const MEMORY: u64 = 24 << 10;
/// A connection to the admin server may be there or not. A TCP leg may have another port than the punch port: then a UDP socket holds
/// that port, and a second leg has the punch port (decision 0222).
const DESCRIPTORS: usize = 1 + 2 * RELAYS;
const RELAYS: usize = 2;
/// Threads of a pool that ends those that idle, and of the resolver.
const THREADS: usize = 8;
/// Lines that one process may log in any minute.
const LINES_A_MINUTE: usize = 240;
const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measure {
    pub memory_kib: u64,
    pub descriptors: usize,
    pub sockets: usize,
    pub threads: usize,
    /// The metrics that go up and down, each as the sum of its series.
    pub gauges: BTreeMap<String, f64>,
}

impl Measure {
    pub async fn of(process: &Process, host: &Host) -> Result<Self> {
        let metrics = admin::metrics(host).await?;
        let gauges = metrics.families.iter().filter(|(_, kind)| *kind == "gauge");
        let pid = process.pid();
        Ok(Self {
            gauges: gauges
                .map(|(name, _)| (name.clone(), metrics.sum(name, &[])))
                .collect(),
            memory_kib: usage::memory(pid)?,
            descriptors: usage::descriptors(pid)?,
            sockets: usage::sockets(pid)?,
            threads: usage::threads(pid)?,
        })
    }

    /// What has grown since `before`.
    pub fn grown(&self, before: &Self) -> Vec<String> {
        let mut grown = Vec::new();
        let mut compare = |what: &str, before: f64, slack: f64, now: f64| {
            if now > before + slack {
                grown.push(format!("{what}: {before} before, {now} now"));
            }
        };
        for (what, before, slack, now) in [
            (
                "descriptors",
                before.descriptors,
                DESCRIPTORS,
                self.descriptors,
            ),
            ("sockets", before.sockets, DESCRIPTORS, self.sockets),
            ("threads", before.threads, THREADS, self.threads),
        ] {
            compare(what, before as f64, slack as f64, now as f64);
        }
        let (was, is) = (before.memory_kib, self.memory_kib);
        compare("memory in KiB", was as f64, MEMORY as f64, is as f64);
        for (name, now) in &self.gauges {
            // How memory has grown is above. What the node has learned about its NAT is as much as it has looked at.
            let grows = ["bytes", "seconds", "p2pnode_nat"];
            if !grows.iter().any(|part| name.contains(part)) {
                let before = before.gauges.get(name).copied().unwrap_or(0.0);
                compare(name, before, 0.0, *now);
            }
        }
        grown
    }
}

/// What is wrong with a log: panics, errors, and more lines than anybody reads.
pub fn log_faults(lines: &[Event]) -> Vec<String> {
    let bad = |line: &&Event| line.line.contains("panicked") || line.line.contains(" ERROR ");
    let mut faults: Vec<_> = lines
        .iter()
        .filter(bad)
        .map(|line| line.line.clone())
        .collect();
    let busiest = busiest(&lines.iter().map(|line| line.at).collect::<Vec<_>>());
    if busiest > LINES_A_MINUTE {
        faults.push(format!("{busiest} lines logged in a minute"));
    }
    faults
}

/// The most lines in any minute; they are in the order of time.
fn busiest(lines: &[std::time::Instant]) -> usize {
    let until = |number: usize| {
        let first = lines[number];
        lines[number..].partition_point(|at| *at < first + MINUTE)
    };
    (0..lines.len()).map(until).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_has_grown_is_named_and_what_varies_is_not() {
        let gauges = |circuits| {
            [("relay_circuits", circuits), ("memory_bytes", circuits)]
                .map(|(name, value): (&str, f64)| (name.to_owned(), value))
                .into()
        };
        let before = Measure {
            memory_kib: 20_000,
            descriptors: 20,
            sockets: 10,
            threads: 4,
            gauges: gauges(0.0),
        };
        let alike = Measure {
            memory_kib: 30_000,
            descriptors: 25,
            threads: 6,
            ..before.clone()
        };
        assert_eq!(alike.grown(&before), Vec::<String>::new());
        let grown = Measure {
            memory_kib: 60_000,
            descriptors: 30,
            sockets: 16,
            threads: 40,
            gauges: gauges(1.0),
        };
        let grown = grown.grown(&before);
        let words = [
            "descriptors",
            "sockets",
            "threads",
            "memory",
            "relay_circuits",
        ];
        assert_eq!(grown.len(), words.len(), "{grown:?}");
        for word in words {
            assert!(grown.iter().any(|what| what.contains(word)), "{word}");
        }
    }

    #[test]
    fn the_busiest_minute_is_found_wherever_it_begins() {
        let start = Instant::now();
        let at = |seconds: &[u64]| -> Vec<Instant> {
            let after = |seconds: &u64| start + Duration::from_secs(*seconds);
            seconds.iter().map(after).collect()
        };
        assert_eq!(busiest(&at(&[])), 0);
        assert_eq!(busiest(&at(&[0, 50, 61, 100, 109, 200])), 4);
        assert_eq!(busiest(&at(&[0, 60, 120])), 1);
    }
}
