//! The last line of a dial: how the peer was reached, or why it was not.

use std::fmt::Write as _;

use super::words::plain;
use crate::{
    core::{
        event::{NotDirect, Outcome, PingTotals, Reached},
        json::to_millis,
    },
    punch::Reason,
};

/// The last line: how the peer was reached, or why it was not.
pub(super) fn result(outcome: &Outcome) -> String {
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
        Reached::Relayed => match &outcome.reason {
            Some(NotDirect::Punch(reason)) => format!(
                "relayed, not direct: {}{} ({}): {how}; see `p2pnode explain {reason}`",
                plain(reason),
                explain(*reason),
                attempts(outcome.attempts, *reason),
            ),
            Some(NotDirect::Unreachable(reason)) => {
                let t = outcome.t.as_millis();
                format!("relayed after {t} ms: {how}; {reason}")
            }
            None => format!("relayed after {} ms: {how}", outcome.t.as_millis()),
        },
        Reached::Unreachable => match &outcome.reason {
            Some(reason) => format!("unreachable: {reason}"),
            None => "unreachable".to_owned(),
        },
    }
}

/// The pings of a dial, if one was missed.
pub(super) fn totals(pings: PingTotals) -> String {
    let PingTotals { answered, missed } = pings;
    if pings.is_whole() {
        return String::new();
    }
    let loss = 100.0 * f64::from(missed) / f64::from(answered.saturating_add(missed));
    format!("; pings: {answered} answered, {missed} missed ({loss:.0} % loss)")
}

/// How many attempts a dial has seen. The reason may be that of attempts before it: a peer is not punched without end.
fn attempts(count: u32, reason: Reason) -> String {
    let is_of_attempt = !matches!(
        reason,
        Reason::Disabled | Reason::RemoteUnsupported | Reason::RemoteSilent | Reason::NoCandidates
    );
    match count {
        0 if is_of_attempt => "in the attempts before this dial".to_owned(),
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    }
}

/// The meaning of a reason.
pub(crate) const fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Timeout => ", no candidate of the peer answered",
        Reason::SymmetricBoth => ", both NATs map every destination to another port",
        Reason::NoCandidates => ", this node has no address that the peer can reach",
        Reason::NoRemoteCandidates => ", the peer offers no address",
        Reason::RemoteUnsupported => ", the peer does not support DCUtR",
        Reason::RemoteSilent => ", the peer did not begin DCUtR, though it may support it",
        Reason::HandshakeFailed => ", the handshake over the relay broke off",
        Reason::HandshakeTimeout => ", the handshake over the relay took too long",
        Reason::Filtered => ", no candidate may be dialed: `why` says which and why",
        Reason::Refused => ", every candidate refused the connection",
        Reason::Unreachable => ", this host has no route to any candidate",
        Reason::DialFailed => ", each candidate failed in its own way: `why` says how",
        Reason::Disabled => ", punch.enabled is false",
        Reason::Superseded => ", another attempt took its place",
        Reason::CircuitLost => ", the connection over the relay ended in the handshake",
    }
}
