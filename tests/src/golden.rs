//! Golden files: what the programs show to the outside, as facts that no time, port, address or id is part of.
//!
//! A fact is one line, such as `connected {event, t_ms, peer, path}` or `path direct.how = "punched"`. Every run shows all facts of
//! a file, except those that begin with `? `: they depend on timing. A fact that is not in its file is an error.
//!
//! `P2PNODE_GOLDEN=write` accepts the differences of one run, and leaves the lines with `? ` as they are. `P2PNODE_GOLDEN=add`
//! puts a `? ` before each difference: it is for what differs from run to run.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::admin::Exposition;

const MODE: &str = "P2PNODE_GOLDEN";

/// Objects whose keys are data, such as counts by reason: each key is a fact of its own.
const MAPS: [&str; 4] = ["punch_ports", "connections_by", "reservations_by", "denied"];

#[derive(Debug, Default)]
pub struct Golden(BTreeMap<String, BTreeSet<String>>);

impl Golden {
    pub fn fact(&mut self, file: &str, fact: impl Into<String>) {
        let facts = self.0.entry(file.to_owned()).or_default();
        facts.insert(fact.into());
    }

    pub fn json(&mut self, file: &str, at: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                // Paths occur in many places: together they show all their variants in every run.
                let kind = fields.get("hops").and(fields.get("kind"));
                let at = match kind.and_then(Value::as_str) {
                    Some(kind) => {
                        self.fact(file, format!("{at} is a path"));
                        &format!("path {kind}")
                    }
                    None => at,
                };
                let keys: Vec<_> = fields.keys().map(String::as_str).collect();
                if !MAPS.iter().any(|map| at.ends_with(map)) {
                    self.fact(file, format!("{at} {{{}}}", keys.join(", ")));
                }
                for (key, value) in fields {
                    self.json(file, &format!("{at}.{key}"), value);
                }
            }
            Value::Array(items) if items.is_empty() => self.fact(file, format!("{at} = []")),
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    // An axis of a score is a pair of a name and a value.
                    let axis = item[0].as_str();
                    let place = match axis {
                        Some(name) => format!("{place} {name}"),
                        None if at.ends_with("hops") => place.to_string(),
                        None => String::new(),
                    };
                    let item = if axis.is_some() { &item[1] } else { item };
                    self.json(file, &format!("{at}[{place}]"), item);
                }
            }
            Value::String(text) => self.fact(file, format!("{at} = {}", word(text))),
            Value::Number(number) if number.is_f64() => self.fact(file, format!("{at} = float")),
            Value::Number(_) => self.fact(file, format!("{at} = integer")),
            Value::Bool(_) | Value::Null => self.fact(file, format!("{at} = {value}")),
        }
    }

    pub fn metrics(&mut self, file: &str, read: &Exposition) {
        for (name, kind) in &read.families {
            self.fact(file, format!("{name}: {kind}"));
        }
        for sample in &read.samples {
            let labels: Vec<_> = sample.labels.keys().map(String::as_str).collect();
            self.fact(file, format!("{} {{{}}}", sample.name, labels.join(", ")));
            for (label, value) in &sample.labels {
                self.fact(file, format!("{}.{label} = {value:?}", sample.name));
            }
        }
    }

    /// Compares all facts with the files in `tests/golden`, or writes these, as `P2PNODE_GOLDEN` says.
    pub fn check(&self) -> Result<()> {
        let mode = env::var(MODE).unwrap_or_default();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut differences = String::new();
        for (name, seen) in &self.0 {
            let path = dir.join(name).with_extension("txt");
            let old = match fs::read_to_string(&path) {
                Err(_) if mode == "write" => String::new(),
                old => old.with_context(|| path.display().to_string())?,
            };
            let lines = lines(&mode, &old, seen);
            if !mode.is_empty() {
                fs::write(&path, lines).with_context(|| path.display().to_string())?;
            } else if !lines.is_empty() {
                differences += &format!("{}:\n{lines}", path.display());
            }
        }
        ensure!(
            differences.is_empty(),
            "the programs show something else than the golden files (- missing, + new):\n{differences}\
             If that is intended, run this test with {MODE}=write and review the diff. If it depends on timing, run it with {MODE}=add"
        );
        Ok(())
    }
}

/// How a file differs from what was seen; or what is to be in the file, for a mode that writes.
fn lines(mode: &str, old: &str, seen: &BTreeSet<String>) -> String {
    let fact = |line| match str::strip_prefix(line, "? ") {
        Some(fact) => (fact, true),
        None => (line, false),
    };
    let old: BTreeMap<&str, bool> = old.lines().map(fact).collect();
    let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    let all: BTreeSet<&str> = old.keys().chain(&seen).copied().collect();
    let line = |fact: &str| {
        let start = match (mode, old.get(fact), seen.contains(fact)) {
            ("", Some(false), false) => "- ",
            ("", None, true) => "+ ",
            ("", ..) | ("write", Some(false), false) => return None,
            ("write", None, true) | (_, Some(false), true) => "",
            _ => "? ",
        };
        Some(format!("{start}{fact}\n"))
    };
    all.into_iter().filter_map(line).collect()
}

/// A text as it is if it is a constant of the program; else what it is.
fn word(text: &str) -> String {
    let kind = match text.parse() {
        Ok(SocketAddr::V4(_)) => "ip4 socket",
        Ok(SocketAddr::V6(_)) => "ip6 socket",
        Err(_) if text.contains(' ') => "text",
        Err(_) if text.starts_with("/ip") => return multiaddr(text),
        Err(_) if text.starts_with("12D3KooW") => "peer id",
        Err(_) if text.starts_with("p2pjoin1_") => "token",
        Err(_) if text.starts_with("20") && text.ends_with('Z') => "time",
        Err(_) if u64::from_str_radix(text, 16).is_ok() && text.len() == 16 => "token id",
        Err(_) if text == env!("CARGO_PKG_VERSION") => "version",
        Err(_) => return format!("{text:?}"),
    };
    kind.to_owned()
}

fn multiaddr(text: &str) -> String {
    let names: Vec<_> = "/ip4/ip6/udp/tcp/p2p/quic-v1/p2p-circuit"
        .split('/')
        .collect();
    let parts = text.split('/');
    let parts = parts.map(|part| if names.contains(&part) { part } else { "*" });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_not_every_run_shows_is_optional_and_the_rest_is_compared() {
        let seen = |facts: [&str; 2]| facts.map(str::to_owned).into();
        let file = lines("write", "", &seen(["a", "b"]));
        assert_eq!(file, "a\nb\n");
        let file = lines("add", &file, &seen(["b", "c"]));
        assert_eq!(file, "? a\nb\n? c\n");
        assert_eq!(lines("", &file, &seen(["a", "b"])), "");
        assert_eq!(lines("", &file, &seen(["c", "d"])), "- b\n+ d\n");
        assert_eq!(lines("write", &file, &seen(["c", "d"])), "? a\n? c\nd\n");
    }
}
