//! What an attack has cost, and whether that is within the budgets of `docs/threat-model.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attacks::Attack;

/// Log lines that strangers may cause in a minute; an attack of less than a minute may have all of them.
const LOG_LINES: f64 = 60.0;
/// Lines of the node's or relay's own: a start of its legs, a warning of its limits.
const OWN_LINES: f64 = 10.0;
/// Bytes to a third party for each byte of the attacker.
const AMPLIFICATION: f64 = 3.0;
/// Times of honest dials: target, attacker and honest peers share the processors of one machine.
const USUAL: f64 = 3.0;
/// Of the time, for which a target may wait for a processor so that times say something about it.
const WAITED: f64 = 0.2;
/// Of the bytes that were forwarded before.
const FORWARDED: f64 = 0.7;
/// Honest dials that may fail, of all: a machine that is full of attackers drops packets.
const FAILED: f64 = 0.05;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) attack: String,
    pub(super) about: String,
    pub(super) target: String,
    pub(super) transport: String,
    pub(super) seconds: f64,
    /// What the strangers counted at their end, one of each.
    pub(super) strangers: Vec<Value>,
    pub(super) sent_mib: f64,
    pub(super) rss_before_mib: f64,
    pub(super) rss_peak_mib: f64,
    pub(super) cpu_seconds: f64,
    /// For a processor: time in which the target could have run.
    pub(super) waited_seconds: f64,
    pub(super) descriptors: u64,
    pub(super) descriptors_before: u64,
    pub(super) log_lines: f64,
    /// Of them, those that the honest dials cause, by what a dial before the attack has caused.
    pub(super) honest_log_lines: f64,
    /// Packets to addresses that are private, of metadata services, or nobody's.
    pub(super) inner_packets: u64,
    pub(super) third_party_packets: u64,
    pub(super) third_party_bytes: u64,
    /// SYNs and UDP packets to a relay that is none.
    pub(super) evil_dials: Option<u64>,
    pub(super) evil_packets: Option<u64>,
    pub(super) control_characters: u64,
    /// Of an oracle: seconds until the next CONNECT, by candidate.
    pub(super) answers: BTreeMap<String, Vec<f64>>,
    pub(super) dials_before: u64,
    pub(super) dials_made: u64,
    pub(super) dials_failed: u64,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) dial_ratio: Option<f64>,
    pub(super) reservations_lost: u64,
    pub(super) forwarded_mib: f64,
    pub(super) forwarded_ratio: f64,
    pub(super) faults: Vec<String>,
}

impl Row {
    pub(super) fn failed(attack: &Attack, why: &str) -> Self {
        Self {
            attack: attack.name.to_owned(),
            about: attack.about.to_owned(),
            target: attack.target.name().to_owned(),
            transport: attack.transport.to_owned(),
            faults: vec![format!("not run: {why}")],
            ..Self::default()
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn verdict(&self) -> String {
        let waited = self.waited_seconds / self.seconds;
        if self.passed() && waited > WAITED {
            format!(
                "within budget; times not judged: {:.0} % without a processor",
                waited * 100.0
            )
        } else if self.passed() {
            "within budget".to_owned()
        } else {
            self.faults.join("; ")
        }
    }

    pub(super) fn amplification(&self) -> f64 {
        let sent = self.sent_mib * 1024.0 * 1024.0;
        self.third_party_bytes as f64 / sent.max(1.0)
    }

    pub(super) fn judge(&mut self, attack: &Attack) {
        let budget = attack.budget;
        let minutes = (self.seconds / 60.0).max(1.0);
        let lines = self.log_lines - self.honest_log_lines;
        let mut over = |what: &str, has: f64, most: f64| {
            if has > most {
                self.faults
                    .push(format!("{what}: {has:.1}, and {most:.1} is the most"));
            }
        };
        let grown = (self.rss_peak_mib - self.rss_before_mib).max(0.0);
        if let Some(most) = budget.growth {
            over("memory grown by MiB", grown, most);
        }
        if let Some(most) = budget.resident {
            over("resident MiB", self.rss_peak_mib, most);
        }
        over("log lines", lines, LOG_LINES * minutes + OWN_LINES);
        if attack.allows.is_none() {
            over("packets to inner addresses", self.inner_packets as f64, 0.0);
        }
        let sent = self.sent_mib * 1024.0 * 1024.0;
        let amplified = self.third_party_bytes as f64 / sent.max(1.0);
        over("bytes to a third party for each", amplified, AMPLIFICATION);
        over("control characters", self.control_characters as f64, 0.0);
        if let (Some(dials), Some(most)) = (self.evil_dials, budget.dials) {
            over(
                "SYNs to a relay a minute",
                dials as f64 * 60.0 / self.seconds,
                most,
            );
        }
        if let (Some(packets), Some(most)) = (self.evil_packets, budget.packets) {
            over(
                "packets to a relay a minute",
                packets as f64 * 60.0 / self.seconds,
                most,
            );
        }
        if let Some(most) = budget.cpu {
            over(
                "CPU, of one processor",
                self.cpu_seconds / self.seconds,
                most,
            );
        }
        if let Some(most) = budget.descriptors {
            let grown = self.descriptors.saturating_sub(self.descriptors_before);
            over("descriptors more", grown as f64, most);
        }
        let all = (self.dials_made + self.dials_failed) as f64;
        over(
            "honest dials failed",
            self.dials_failed as f64,
            (FAILED * all).floor(),
        );
        if self.waited_seconds / self.seconds <= WAITED {
            let ratio = self.dial_ratio.unwrap_or(f64::INFINITY);
            over("honest dials, ratio of times", ratio, USUAL);
        }
        over(
            "honest reservations lost",
            self.reservations_lost as f64,
            0.0,
        );
        over(
            "honest bytes missing, of 1",
            1.0 - self.forwarded_ratio,
            1.0 - FORWARDED,
        );
        let served = self
            .strangers
            .iter()
            .filter_map(|counts| counts["served"].as_u64());
        over("answers to a wrong Host", served.sum::<u64>() as f64, 0.0);
        let fault = match attack.allows {
            // Times differ by what is behind an address that may be dialed.
            Some(_) if self.inner_packets > 0 => None,
            Some(networks) => Some(format!(
                "nothing inside was reached although punch.allow is {networks}: the attack without it shows nothing"
            )),
            None => self.oracle(),
        };
        self.faults.extend(fault);
    }

    /// Two candidates whose times do not overlap tell what is behind them.
    fn oracle(&self) -> Option<String> {
        if let Some((name, _)) = self.answers.iter().find(|(_, times)| times.is_empty()) {
            return Some(format!(
                "no second CONNECT came for {name}: nothing was measured"
            ));
        }
        let ranges: Vec<_> = self
            .answers
            .iter()
            .map(|(name, times)| {
                let least = times.iter().copied().fold(f64::INFINITY, f64::min);
                let most = times.iter().copied().fold(0.0, f64::max);
                (name, least, most)
            })
            .collect();
        for (name, _, most) in &ranges {
            // Timers differ by this much on a busy machine.
            let apart = ranges.iter().find(|(_, least, _)| *least > most + 0.5);
            if let Some((other, least, _)) = apart {
                return Some(format!(
                    "an oracle: {name} within {most:.2} s, {other} after {least:.2} s"
                ));
            }
        }
        None
    }
}
