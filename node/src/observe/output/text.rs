//! Events as lines for people.

use std::{fmt::Write as _, time::Duration};

use libp2p::PeerId;

use crate::{
    core::{
        event::{Event, NotDirect, Outcome, Pause, Reached},
        finding::Finding,
        json::to_millis,
        peers::PathKind,
    },
    punch::Reason,
};

/// The first characters of a peer id: enough to distinguish the peers of one fleet.
pub(crate) fn short(peer: &PeerId) -> String {
    let mut id = peer.to_string();
    id.truncate(14);
    id.push_str("..");
    id
}

/// One line of the timeline.
pub(crate) fn line(event: &Event) -> String {
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
        Event::RelayUnreachable { t, relay, reason } => {
            timed(*t, "no relay", &format!("{relay}: {reason}"))
        }
        Event::RelayRefused { t, relay, reason } => timed(
            *t,
            "refused",
            &format!("relay {relay} refused us: {reason}"),
        ),
        Event::Dialing { t, peer } => timed(*t, "dialing", &peer.to_string()),
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
            let _ = write!(text, "  ({}, {}", path.how, short(peer));
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
            &format!("the {kind} connection to {}: {reason}", short(peer)),
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
                let _ = write!(text, " ({reason})");
            }
            timed(*t, "punch", &text)
        }
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
        Event::PingMissed { seq, missed, kind } => format!(
            "{:11}  {:9} {seq}: no answer over the {kind} path ({missed} missed)",
            "", "ping",
        ),
        Event::Ping { seq, rtt, kind } => format!(
            "{:11}  {:9} {seq}: {:.1} ms over the {kind} path",
            "",
            "ping",
            to_millis(*rtt)
        ),
        Event::Result(outcome) => {
            let mut text = result(outcome);
            if let Some(finding) = &outcome.finding {
                let _ = write!(text, "; in the way{}", in_the_way(finding));
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
        | Event::Listening { .. }
        | Event::Reserved { .. }
        | Event::ReservationLost { .. }
        | Event::RelayUnreachable { .. }
        | Event::RelayRefused { .. }
        | Event::Punch { .. }
        | Event::SearchPaused { .. }
        | Event::SearchResumed { .. }
        | Event::PingMissed { .. }
        | Event::Ping { .. } => None,
    }
}

/// The last line: how the peer was reached, or why it was not.
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

fn result(outcome: &Outcome) -> String {
    let path = outcome.path.as_ref();
    let how = path.map(|path| path.to_string()).unwrap_or_default();
    match outcome.outcome {
        Reached::Direct => {
            let mut text = format!(
                "direct after {} ms: {how}",
                outcome.time_to_direct.unwrap_or(outcome.t).as_millis()
            );
            if let Some(rtt) = path
                .and_then(|path| path.hops.first())
                .and_then(|hop| hop.rtt)
            {
                let _ = write!(text, ", {:.1} ms", to_millis(rtt));
            }
            if let Some(path) = path {
                let _ = write!(text, ", {}", path.how);
            }
            if outcome.attempts > 0 {
                let _ = write!(
                    text,
                    ", {} attempt{}",
                    outcome.attempts,
                    if outcome.attempts == 1 { "" } else { "s" }
                );
            }
            text
        }
        Reached::Relayed => match outcome.reason {
            Some(NotDirect::Punch(reason)) => format!(
                "relayed, not direct: {reason}{} ({} attempt{}): {how}",
                explain(reason),
                outcome.attempts,
                if outcome.attempts == 1 { "" } else { "s" },
            ),
            Some(NotDirect::Unreachable(_)) | None => {
                format!("relayed after {} ms: {how}", outcome.t.as_millis())
            }
        },
        Reached::Unreachable => match &outcome.reason {
            Some(reason) => format!("unreachable: {reason}"),
            None => "unreachable".to_owned(),
        },
    }
}

fn explain_pause(pause: Pause) -> &'static str {
    match pause {
        Pause::NoRelay => "no relay is reachable; it goes on with the first that is",
        Pause::NoAnswer => "no answer for minutes; it is dialed every few minutes",
    }
}

/// The meaning of a reason.
fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Timeout => ", no candidate of the peer answered",
        Reason::SymmetricBoth => ", both NATs map every destination to another port",
        Reason::NoCandidates => ", one side has no address that the other can reach",
        Reason::RemoteUnsupported => {
            ", the peer did not begin DCUtR: it does not support it, or has no candidate"
        }
        Reason::Filtered => ", no candidate may be dialed: `why` says which and why",
        Reason::Refused => ", every candidate refused the connection",
        Reason::Disabled => ", punch.enabled is false",
        Reason::NoRemoteCandidates
        | Reason::RemoteSilent
        | Reason::HandshakeFailed
        | Reason::HandshakeTimeout
        | Reason::Unreachable
        | Reason::DialFailed
        | Reason::Superseded
        | Reason::CircuitLost => "",
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
    use p2pnode_transports::{Sockets, Transport};

    use super::*;
    use crate::core::peers::{Hop, How, Path};

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
        };
        assert_eq!(
            line(&Event::Result(outcome)),
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
        };
        assert_eq!(
            line(&Event::Result(outcome)),
            "unreachable: port range 40000-40000 exhausted: udp 40000 held by pid 7 (nc)"
        );
    }
}
