//! Events as lines for people.

use std::{fmt::Write as _, time::Duration};

use super::{
    ending::{result, totals},
    words::{label, plain, short},
};
use crate::core::{
    event::{Event, Pause, Reached},
    finding::Finding,
    json::to_millis,
    mappings::{MappingState, Method},
    peers::PathKind,
    port_search::{SearchClass, SearchReport},
};

/// One line of the timeline. `name` is that of its peer.
pub(crate) fn line(event: &Event, name: Option<&str>) -> String {
    match event {
        Event::Started {
            peer_id,
            port_range,
        } => format!("{peer_id} is up; packets leave from source ports {port_range}"),
        Event::Listening { address } => format!("listening on {address}"),
        Event::Reserved { t, relay } => timed(*t, "reserved", &format!("on relay {relay}")),
        Event::ReservationLost {
            t, relay, reason, ..
        } => timed(
            *t,
            "lost",
            &format!("the reservation on relay {relay}: {reason}"),
        ),
        Event::Mapping {
            t,
            protocol,
            port,
            method,
            state,
            address,
        } => timed(
            *t,
            "mapping",
            &format!(
                "{} {port} {} {address} ({})",
                protocol.name(),
                match (state, *method == Method::Hold) {
                    (MappingState::Claimed, true) => "held, seen by a relay at",
                    (MappingState::Claimed, false) => "mapped, says the router, to",
                    (MappingState::Verified, _) => "verified from outside at",
                    (MappingState::Withdrawn, _) => "no longer reached at",
                    (MappingState::Lost, true) => "no longer held at",
                    (MappingState::Lost, false) => "no longer mapped to",
                },
                method.as_str()
            ),
        ),
        Event::RelayUnreachable { t, relay, reason } => {
            timed(*t, "no relay", &format!("{relay}: {reason}"))
        }
        Event::PortRests {
            t, port, remote, ..
        } => timed(
            *t,
            "conntrack",
            &format!(
                "port {port} rests toward {remote}: a NAT or a firewall remembers an earlier connection"
            ),
        ),
        Event::KeyShared { t, at, .. } => timed(
            *t,
            "key",
            &format!("also used by another host, at {at}; give each host a key of its own"),
        ),
        Event::KeyAlone { t } => timed(*t, "key", "no other host is seen with it any more"),
        Event::RelayRefused { t, relay, reason } => timed(
            *t,
            "refused",
            &format!("relay {relay} refused us: {reason}"),
        ),
        Event::Dialing { t, peer } => {
            let name = name.map(|name| format!(" ({name})"));
            timed(
                *t,
                "dialing",
                &format!("{peer}{}", name.unwrap_or_default()),
            )
        }
        Event::Connected {
            t,
            peer,
            path,
            found_by,
        } => {
            let mut text = path.to_string();
            if let Some(relay) = &path.relay {
                let _ = write!(text, "  via relay {}", short(relay));
            }
            let _ = write!(text, "  ({}, {}", path.how, label(peer, name));
            if let Some(found_by) = found_by {
                let _ = write!(text, ", by {found_by}");
            }
            text.push(')');
            timed(*t, &path.kind.to_string(), &text)
        }
        Event::Disconnected {
            t,
            peer,
            kind,
            reason,
        } => timed(
            *t,
            "closed",
            &format!("the {kind} connection to {}: {reason}", label(peer, name)),
        ),
        Event::Punch {
            t,
            attempt,
            role,
            by,
            sent,
            received,
            outcome,
            reason,
            ..
        } => {
            let mut text = format!(
                "attempt {attempt} as {role} by {by}: sent {}, received {} -> {outcome}",
                count(sent.len()),
                count(received.len())
            );
            if let Some(reason) = reason {
                let _ = write!(text, " ({})", plain(reason));
            }
            timed(*t, "punch", &text)
        }
        Event::Search { t, report } => timed(*t, "search", &search(report)),
        Event::SearchPaused { t, peer, reason } => timed(
            *t,
            "paused",
            &format!("the search for {}: {}", short(peer), explain_pause(*reason)),
        ),
        Event::SearchResumed { t, peer } => timed(
            *t,
            "resumed",
            &format!("the search for {}: a relay is reachable", short(peer)),
        ),
        Event::PingMissed {
            seq,
            missed,
            kind,
            no_path,
        } => {
            let why = match no_path {
                true => "no path leads to the peer".to_owned(),
                false => format!("no answer over the {kind} path"),
            };
            format!("{:11}  {:9} {seq}: {why} ({missed} missed)", "", "ping")
        }
        Event::Ping { seq, rtt, kind } => format!(
            "{:11}  {:9} {seq}: {:.1} ms over the {kind} path",
            "",
            "ping",
            to_millis(*rtt)
        ),
        Event::Result(outcome) => {
            let mut text = result(outcome);
            text += &totals(outcome.pings);
            if let Some(finding) = &outcome.finding {
                let what = match outcome.outcome {
                    Reached::Direct => "on the path",
                    Reached::Relayed | Reached::Unreachable => "in the way",
                };
                let _ = write!(text, "; {what}{}", in_the_way(finding));
            }
            text
        }
    }
}

/// What the node waits for after an event.
pub(crate) fn phase(event: &Event) -> Option<&'static str> {
    match event {
        Event::Dialing { .. } => Some("searching for a path to the peer"),
        Event::Connected { path, .. } => Some(match path.kind {
            PathKind::Relayed => "punching",
            PathKind::Direct => "pinging",
        }),
        Event::Disconnected { .. } => Some("searching for another path to the peer"),
        Event::Result(_) => Some(""),
        Event::Started { .. }
        | Event::Mapping { .. }
        | Event::Listening { .. }
        | Event::Reserved { .. }
        | Event::ReservationLost { .. }
        | Event::RelayUnreachable { .. }
        | Event::PortRests { .. }
        | Event::KeyShared { .. }
        | Event::KeyAlone { .. }
        | Event::RelayRefused { .. }
        | Event::Punch { .. }
        | Event::Search { .. }
        | Event::SearchPaused { .. }
        | Event::SearchResumed { .. }
        | Event::PingMissed { .. }
        | Event::Ping { .. } => None,
    }
}

pub(super) fn search(report: &SearchReport) -> String {
    let mut text = match report.class {
        Some(SearchClass { here, there, .. }) => format!("ports {here} here, {there} there: "),
        None => String::new(),
    };
    if report.moves {
        text = "the path moves to another port: ".to_owned();
    }
    let _ = match report.reason {
        Some(reason) => write!(text, "not tried ({})", reason.words()),
        None => write!(
            text,
            "sent {} probes, received {} -> {}",
            report.sent,
            report.received,
            plain(report.outcome)
        ),
    };
    text
}

/// What stands in the way, and what mends it, behind a line of text.
pub(crate) fn in_the_way(finding: &Finding) -> String {
    let mut text = format!(": {}", finding.text);
    if let Some(remedy) = &finding.remedy {
        let _ = write!(text, " -> {}", remedy.text);
        if let Some(command) = &remedy.command {
            let _ = write!(text, ": {command}");
        }
    }
    text
}

fn explain_pause(pause: Pause) -> &'static str {
    match pause {
        Pause::NoRelay => "no relay is reachable; it goes on with the first that is",
        Pause::NoAnswer => "no answer for minutes; it is dialed every few minutes",
    }
}

fn timed(t: Duration, what: &str, text: &str) -> String {
    format!("{:>8} ms  {what:9} {text}", t.as_millis())
}

fn count(candidates: usize) -> String {
    format!(
        "{candidates} candidate{}",
        if candidates == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use libp2p::PeerId;
    use p2pnode_transports::{Sockets, Transport};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        core::{
            event::{NotDirect, Outcome, PingTotals},
            peers::{Hop, How, Path},
            port_search::NoSearch,
        },
        observe::output::explain,
        punch::Reason,
    };

    #[test]
    fn the_last_line_of_a_dial_says_how_in_one_line() {
        let sockets = Sockets {
            transport: Transport::Quic,
            local: "10.0.1.2:40017".parse().unwrap(),
            remote: "198.51.100.7:51234".parse().unwrap(),
        };
        let mut hop = Hop::seen(sockets);
        hop.rtt = Some(Duration::from_micros(12_100));
        let outcome = Outcome {
            outcome: Reached::Direct,
            t: Duration::from_millis(164),
            time_to_direct: Some(Duration::from_millis(151)),
            attempts: 1,
            path: Some(Path {
                kind: PathKind::Direct,
                relay: None,
                how: How::Punched,
                hops: vec![hop],
            }),
            reason: None,
            found_by: None,
            finding: None,
            pings: PingTotals::default(),
        };
        assert_eq!(
            line(&Event::Result(outcome), None),
            "direct after 151 ms: quic/ip4 10.0.1.2:40017 > 198.51.100.7:51234, 12.1 ms, punched, 1 attempt"
        );
    }

    #[test]
    fn the_last_line_of_a_failed_dial_says_why_in_one_line() {
        let outcome = Outcome {
            outcome: Reached::Unreachable,
            t: Duration::from_millis(4),
            time_to_direct: None,
            attempts: 0,
            path: None,
            reason: Some(NotDirect::Unreachable(
                "port range 40000-40000 exhausted: udp 40000 held by pid 7 (nc)".to_owned(),
            )),
            found_by: None,
            finding: None,
            pings: PingTotals::default(),
        };
        assert_eq!(
            line(&Event::Result(outcome), None),
            "unreachable: port range 40000-40000 exhausted: udp 40000 held by pid 7 (nc)"
        );
    }

    #[test]
    fn no_reason_is_an_identifier_in_a_line_for_people() {
        for reason in Reason::ALL {
            let words = plain(reason);
            assert!(!words.contains('_'), "{words}");
            assert!(explain(reason).starts_with(", "), "{words}");
        }
        let of = |name: &str, reasons: Vec<Value>, fields: Value| {
            let lines = reasons.into_iter().map(move |reason| {
                let mut event = fields.clone();
                event["event"] = json!(name);
                event["reason"] = reason;
                event["t_ms"] = json!(0);
                event["peer"] = json!(PeerId::random().to_string());
                line(&serde_json::from_value(event).unwrap(), None)
            });
            lines.collect::<Vec<_>>()
        };
        let punch = json!({"attempt": 1, "role": "initiator", "by": "introduction", "sent": [], "received": [], "outcome": "failed"});
        let search = json!({"took_ms": 0, "class": null, "sent": 1, "received": 0, "ignored": 0, "outcome": "not_found"});
        for text in [
            of(
                "punch",
                Reason::ALL.map(|reason| json!(reason)).into(),
                punch,
            ),
            of(
                "search",
                NoSearch::ALL.map(|reason| json!(reason)).into(),
                search.clone(),
            ),
            of("search", vec![Value::Null], search),
            of(
                "search_paused",
                Pause::ALL.map(|reason| json!(reason)).into(),
                json!({}),
            ),
            of(
                "port_rests",
                vec![json!("conntrack")],
                json!({"port": 40_000, "remote": "192.0.2.1:1"}),
            ),
        ]
        .concat()
        {
            assert!(!text.contains(['_', '=']), "{text}");
        }
    }

    #[test]
    fn a_peer_with_a_name_has_it_in_each_line() {
        let (t, peer) = (Duration::ZERO, PeerId::random());
        let lines = [
            Event::Dialing { t, peer },
            Event::Disconnected {
                t,
                peer,
                kind: PathKind::Direct,
                reason: "closed by peer".to_owned(),
            },
        ];
        for event in lines {
            let text = line(&event, Some("db"));
            assert!(text.contains("db"), "{text}");
            assert!(text.contains(&peer.to_string()[..14]), "{text}");
        }
    }
}
