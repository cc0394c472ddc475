//! Whether the ports of the range get out.

use super::{
    Check, Facts, Fault, Id, PathFacts, Status,
    relay::{came, is_asked, is_slow, is_up},
    report::{check, of_path},
};
use crate::core::finding::Remedy;

pub(super) fn range(path: &PathFacts, facts: &Facts) -> Option<Check> {
    let range = facts.range;
    let (mut out, mut blocked) = (Vec::new(), Vec::new());
    for (port, mapped) in &path.sample {
        match mapped {
            Some(mapped) => out.push((*port, mapped.port())),
            None => blocked.push(*port),
        }
    }
    let sampled = path.sample.len();
    let fault = path.faults.first().copied();
    let lacks = |text: String, fault: Fault| {
        let remedy = Remedy::fault(fault, range);
        let text = format!(
            "{range}: {text}; not all could be tried: {}",
            fault.as_str()
        );
        Some(of_path(
            path,
            check(Id::Range, Status::Unknown, text, Some(remedy)),
        ))
    };
    if let (Some(fault), true, true) = (fault, out.is_empty(), blocked.is_empty()) {
        return lacks("no sampled port was seen".to_owned(), fault);
    }
    if path.seen.iter().all(|seen| seen.mapped.is_none()) && out.is_empty() {
        if !is_up(path, facts) {
            return None;
        }
        let (text, remedy) = match path.lacks_port {
            false if is_slow(path, facts) => ("no answer came in time", Remedy::slow_path()),
            true => ("no port of it is free to look from", Remedy::few_ports()),
            false => (
                "no relay says how it sees the ports; it takes one that answers STUN",
                Remedy::newer_relay(),
            ),
        };
        let text = format!("{range}: {text}");
        let check = check(Id::Range, Status::Unknown, text, Some(remedy));
        return Some(of_path(path, check));
    }
    if sampled == 0 {
        let text = format!("{range}: the punch port gets out; no other port is free to look from");
        let few = Remedy::few_ports();
        let check = match range.len() {
            1 => check(Id::Range, Status::Ok, format!("{range}: it gets out"), None),
            _ => check(Id::Range, Status::Unknown, text, Some(few)),
        };
        return Some(of_path(path, check));
    }
    // A connection that is there may not know yet that it is dead.
    let is_silent = path.lacks_punch_port() || !came(path, facts) && is_asked(path, facts);
    let kept = out.iter().filter(|(port, mapped)| port == mapped).count();
    let seen = match kept {
        _ if out.is_empty() => String::new(),
        all if all == out.len() => ", seen as themselves".to_owned(),
        0 => ", seen at other ports".to_owned(),
        some => format!(", {some} of them seen as themselves"),
    };
    let count = out.len();
    let text = format!("{count} of {sampled} sampled ports get out{seen}");
    if let (Some(fault), true) = (fault, blocked.is_empty()) {
        return lacks(text, fault);
    }
    let text = format!("{range}: {text}");
    let check = if blocked.is_empty() && !is_silent {
        check(Id::Range, Status::Ok, text, None)
    } else {
        let out: Vec<u16> = out.into_iter().map(|(port, _)| port).collect();
        let named = [("out", out), ("no answer", blocked)].map(|(what, ports)| named(what, ports));
        let punch = is_silent.then(|| "; no answer to the punch port".to_owned());
        let named: String = named.into_iter().chain([punch]).flatten().collect();
        if is_slow(path, facts) {
            let slow = Some(Remedy::slow_path());
            let late = check(Id::Range, Status::Unknown, format!("{text}{named}"), slow);
            return Some(of_path(path, late));
        }
        let text = format!("range_blocked: {text}{named}");
        let remedy = Remedy::range_blocked(range);
        check(Id::Range, Status::Fail, text, Some(remedy))
    };
    Some(of_path(path, check))
}

/// `; out: 40000, 40007`.
fn named(what: &str, mut ports: Vec<u16>) -> Option<String> {
    ports.sort_unstable();
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    (!ports.is_empty()).then(|| format!("; {what}: {}", ports.join(", ")))
}
