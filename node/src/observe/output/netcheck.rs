//! A look at the network, for people.

use std::fmt::Write as _;

use p2pnode_protocol::escape;

use crate::core::netcheck::{Check, Id, PeerClass, Report, Status};

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// One line for each check, and its remedy below it.
pub(crate) fn netcheck(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let (name, paint) = match check.status {
            Status::Ok => ("ok", GREEN),
            Status::Warn => ("warn", YELLOW),
            Status::Fail => ("fail", RED),
            Status::Unknown => ("unknown", YELLOW),
        };
        let (paint, plain) = if colour { (paint, PLAIN) } else { ("", "") };
        let line = escape(line(check));
        let _ = writeln!(text, "{paint}{name:8}{plain}{line}");
        if let Some(remedy) = &check.remedy {
            let command = remedy.command.as_ref();
            let command = command.map_or_else(String::new, |command| format!(": {command}"));
            let remedy = escape(format!("-> {}{command}", remedy.text));
            let _ = writeln!(text, "{:19}{remedy}", "");
        }
    }
    let _ = writeln!(text, "{:19}{}", "verdict", verdict(report));
    let mut remedies = report
        .checks
        .iter()
        .filter_map(|check| check.remedy.as_ref());
    if let Some(remedy) = remedies.next() {
        let name = escape(&remedy.id);
        let _ = writeln!(
            text,
            "{:19}`p2pnode explain {name}` says more, and so for each name",
            ""
        );
    }
    text
}

fn line(check: &Check) -> String {
    let id = match check.id {
        Id::Relay => "relay",
        Id::Udp => "udp",
        Id::Range => "range",
        Id::Nat => "nat",
        Id::Hairpin => "hairpin",
        Id::Mtu => "mtu",
        Id::Lifetime => "lifetime",
        Id::Mapping => "mapping",
        Id::Nat64 => "nat64",
        Id::Clock => "clock",
        Id::Host => "host",
    };
    match (check.transport, check.family) {
        (Some(transport), Some(family)) => {
            format!(
                "{id:11}{:10}{}",
                format!("{transport}/{family}"),
                check.text
            )
        }
        _ => format!("{id:11}{}", check.text),
    }
}

fn verdict(report: &Report) -> String {
    let verdict = &report.verdict;
    let parts = [
        ("direct with", &verdict.direct),
        ("by search (about 1,000 probes)", &verdict.search),
        ("relayed with", &verdict.relayed),
        ("unknown with", &verdict.unknown),
    ];
    if parts.iter().all(|(_, peers)| peers.is_empty()) {
        return "unknown: no relay is reached".to_owned();
    }
    let needs_none = !verdict.is_hard();
    let part = |(how, peers): (&str, &Vec<PeerClass>)| {
        let names: Vec<_> = peers.iter().map(|peer| peer.as_str()).collect();
        match (names.as_slice(), needs_none && how.starts_with("by search")) {
            ([], true) => Some(format!("{how}: none needed")),
            ([], false) => None,
            (names, _) => Some(format!("{how}: {}", names.join(", "))),
        }
    };
    let parts: Vec<String> = parts.into_iter().filter_map(part).collect();
    parts.join("; ")
}
