//! How a dial has ended, why so, and what led to the peer.

use std::time::Instant;

use libp2p::Multiaddr;
use p2pnode_transports::to_socket_addr;

use super::{Action, Dialer, Until, circuit::Relay};
use crate::{
    core::{
        event::{Event, FoundBy, NotDirect, Outcome, Reached},
        peers::{How, Path, PathKind},
    },
    punch::Reason,
};

impl Dialer {
    /// What led to a connection, if this node has dialed it. A connection that this node accepts or punches inherits the earlier
    /// cause. If there is none, the cause is the introduction by a relay.
    pub(super) fn found_by(&self, path: &Path) -> Option<FoundBy> {
        if path.how != How::Dialed {
            let is_first = self.found_by.is_none() || self.path.is_none();
            return (is_first && self.introductions.was_punched()).then_some(FoundBy::Relay);
        }
        if path.kind == PathKind::Relayed {
            let is_found = |relay: &Relay| Some(relay.peer) == path.relay && relay.found.is_some();
            return Some(match self.relays.iter().any(is_found) {
                true => FoundBy::Registered,
                false => FoundBy::Relay,
            });
        }
        let Some(remote) = path.remote() else {
            return Some(FoundBy::Static);
        };
        let has = |addrs: &[Multiaddr]| {
            addrs
                .iter()
                .any(|addr| to_socket_addr(addr) == Some(remote))
        };
        Some(if has(&self.request.addrs) {
            FoundBy::Static
        } else if let Some(found_by) = self.local.found_by(remote) {
            found_by
        } else if has(&self.registered) {
            FoundBy::Registered
        } else {
            FoundBy::Static
        })
    }

    /// Reports the result, which is the last event of the dial.
    pub(super) fn finish(&mut self, now: Instant) {
        self.finished = true;
        let kind = self.path.as_ref().map(|path| path.kind);
        let (outcome, reason) = match kind {
            Some(PathKind::Direct) => (Reached::Direct, None),
            Some(PathKind::Relayed) => {
                let reason = self.relayed_reason().map(NotDirect::Punch);
                (Reached::Relayed, reason)
            }
            None => {
                let reason = NotDirect::Unreachable(self.unreachable_reason());
                (Reached::Unreachable, Some(reason))
            }
        };
        self.actions
            .push_back(Action::Report(Event::Result(Outcome {
                outcome,
                t: now - self.started,
                time_to_direct: self.time_to_direct.filter(|_| outcome == Reached::Direct),
                attempts: self.attempts,
                path: self.path.clone(),
                reason,
                found_by: self.found_by.filter(|_| self.path.is_some()),
                finding: None,
            })));
    }

    fn relayed_reason(&self) -> Option<Reason> {
        if !self.punches {
            return Some(Reason::Disabled);
        }
        if self.request.until == Until::Connected && self.settled.is_none() {
            return None;
        }
        Some(self.settled.or(self.last_reason).unwrap_or(Reason::Timeout))
    }

    /// Why the peer was not reached.
    pub(crate) fn unreachable_reason(&self) -> String {
        if let Some(answer) = self.losses.answer() {
            return answer;
        }
        let mut reasons = self.errors.clone();
        reasons.extend(self.relays.iter().filter_map(Relay::why_unreachable));
        reasons.extend(self.losses.failure());
        reasons.extend(self.local.failure());
        let waiting = self.relays.iter().filter(|relay| relay.is_silent()).count();
        if waiting > 0 || self.direct_dials > 0 {
            let what = match (waiting, self.direct_dials) {
                (0, _) => "the peer's addresses".to_owned(),
                (n, 0) => format!("{n} relay(s)"),
                (n, _) => format!("{n} relay(s) and the peer's addresses"),
            };
            reasons.push(format!(
                "timeout: no answer from {what} within {} s",
                self.request.timeout.as_secs_f64()
            ));
        }
        if waiting == 0 && self.relays.iter().any(Relay::is_tried) {
            let time = self.request.timeout.as_secs_f64();
            reasons.push(format!("gave up after {time} s"));
        }
        reasons.dedup();
        if reasons.is_empty() {
            return "no relay and no address of it is known: give --relay, or set peers.NAME.addrs, discovery.dns or discovery.mdns"
                .to_owned();
        }
        reasons.join("; ")
    }
}
