//! The names that the programs print, read from the source of their enums: each has an entry in the troubleshooting page.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{collections::BTreeSet, fs};

use p2pnode_daemon::explain;
use serde_json::Value;

use crate::cargo;

/// What has the names: enums whose variants are printed in snake case, and what gives a name with `=> "name"`.
const NAMED: [(&str, &str); 13] = [
    ("node/src/punch/record.rs", "pub enum Reason {"),
    ("node/src/punch/record.rs", "pub enum CandidateOutcome {"),
    ("node/src/core/event.rs", "pub enum LossCause {"),
    ("node/src/core/event.rs", "pub enum Pause {"),
    ("node/src/core/finding.rs", "pub enum FindingId {"),
    ("node/src/core/netcheck/report.rs", "pub(crate) enum Id {"),
    ("node/src/core/search_report.rs", "pub enum NoSearch {"),
    ("node/src/core/netcheck/nat.rs", "pub(crate) enum Kind {"),
    ("node/src/core/event.rs", "pub enum Event {"),
    ("node/src/core/netcheck/report.rs", "enum PeerClass {"),
    ("node/src/core/admission/refused.rs", "enum Refused {"),
    (
        "node/src/observe/metrics/labels.rs",
        "impl fmt::Display for DialOutcome",
    ),
    ("relay-node/src/core/denial.rs", "enum DenialReason {"),
];

fn after(file: &str, start: &str) -> String {
    let text = fs::read_to_string(cargo::workspace().join(file)).unwrap();
    let (_, body) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("{file} has no {start}"));
    let end = body.find("\n}").unwrap();
    body[..end].to_owned()
}

fn names(file: &str, start: &str) -> BTreeSet<String> {
    let body = after(file, start);
    if body.contains("=> \"") {
        let names = body.split("=> \"").skip(1);
        return names
            .map(|rest| rest.split('"').next().unwrap().replace('-', "_"))
            .collect();
    }
    // Fields of a variant stand further to the right than variants, which stand further to the right in a macro.
    let first = body.lines().find(|line| !line.is_empty()).unwrap();
    let indent = &first[..first.len() - first.trim_start().len()];
    let lines = body.lines().filter_map(|line| line.strip_prefix(indent));
    let variants = lines.filter_map(|line| {
        let end = ["(Outcome),", ",", " {"];
        end.iter().find_map(|end| line.strip_suffix(end))
    });
    let variants = variants.filter(|name| name.chars().all(char::is_alphanumeric));
    variants.map(snake_case).collect()
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// The remedies of netcheck: the first argument of each.
fn remedies() -> BTreeSet<String> {
    let body = after("node/src/core/netcheck/remedy.rs", "impl Remedy {");
    let calls = body.split("Self::new(\n").skip(1);
    let ids = calls.filter_map(|rest| rest.trim_start().strip_prefix('"'));
    ids.map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_name_that_the_programs_print_has_an_entry_and_no_entry_is_of_another() {
    let mut printed = remedies();
    assert!(printed.len() > 9, "{printed:?}");
    for (file, start) in NAMED {
        let names = names(file, start);
        assert!(names.len() > 1, "{file}: {names:?}");
        printed.extend(names);
    }
    let entries: BTreeSet<_> = explain::entries()
        .map(|(name, _)| name.to_owned())
        .collect();
    let missing: Vec<_> = printed.difference(&entries).collect();
    let dead: Vec<_> = entries.difference(&printed).collect();
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md lacks {missing:?}"
    );
    assert!(
        dead.is_empty(),
        "docs/troubleshooting.md has {dead:?}, which no program prints"
    );
}

#[test]
fn the_schemas_name_the_values_that_the_enums_have() {
    let read = |name: &str| -> Value {
        let path = cargo::workspace().join("docs/schemas").join(name);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let named = |values: &Value| -> BTreeSet<String> {
        let values = values["enum"].as_array().unwrap().iter();
        values
            .map(|value| value.as_str().unwrap().to_owned())
            .collect()
    };
    let (events, why, netcheck) = (read("events.json"), read("why.json"), read("netcheck.json"));
    let event = |name: &str, field: &str| {
        let mut all = events["oneOf"].as_array().unwrap().iter();
        let event = all
            .find(|event| event["properties"]["event"]["const"] == name)
            .unwrap();
        named(&event["properties"][field])
    };
    let [reason, outcome, cause, pause, finding, id, no_search, ..] =
        NAMED.map(|(file, start)| names(file, start));
    assert_eq!(named(&events["$defs"]["reason"]), reason);
    assert_eq!(
        named(&why["$defs"]["candidate"]["properties"]["outcome"]),
        outcome
    );
    assert_eq!(event("reservation_lost", "cause"), cause);
    assert_eq!(event("search_paused", "reason"), pause);
    assert_eq!(event("search", "reason"), no_search);
    assert_eq!(
        named(&events["$defs"]["finding"]["properties"]["id"]),
        finding
    );
    let checks = &netcheck["properties"]["checks"]["items"]["properties"];
    assert_eq!(named(&checks["id"]), id);
}
