//! How a dial has ended, why so, and what led to the peer.

use std::time::Instant;

use libp2p::Multiaddr;
use p2pnode_transports::to_socket_addr;

use super::{Action, Caller, Dialer, Until, circuit::Relay};
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
            Some(PathKind::Relayed) => (Reached::Relayed, self.relayed_reason()),
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
                attempts: match self.direct_lost.is_some() && !self.counts_anew {
                    true => 0,
                    false => self.attempts,
                },
                pings: self.totals,
                path: self.path.clone(),
                reason,
                found_by: self.found_by.filter(|_| self.path.is_some()),
                finding: None,
            })));
    }

    fn relayed_reason(&self) -> Option<NotDirect> {
        if !self.punches {
            return Some(NotDirect::Punch(Reason::Disabled));
        }
        if self.request.until == Until::Connected && self.settled.is_none() {
            return None;
        }
        let failed = self.settled.or(self.last_reason);
        Some(match (failed, &self.direct_lost) {
            (None, Some(reason)) => {
                NotDirect::Unreachable(format!("the direct path was lost: {reason}"))
            }
            (failed, _) => NotDirect::Punch(failed.unwrap_or(Reason::Timeout)),
        })
    }

    /// Why the dial is over, if the peer has answered.
    pub(super) fn answer(&self) -> Option<String> {
        self.refusal().or_else(|| self.losses.closed())
    }

    /// What the peer's refusal is, if it refuses, and what to do.
    pub(crate) fn refusal(&self) -> Option<String> {
        let times = self.losses.refusals()?;
        let named = match self.caller {
            Some(Caller { id, is_throwaway }) => match is_throwaway {
                false => format!("name this node, or it is full; add {id} there"),
                true => format!(
                    "name {id}, the throwaway identity of this command, or it is full; add that id there, or give --key FILE of an identity that is there"
                ),
            },
            None => "name this node, or it is full".to_owned(),
        };
        Some(format!(
            "refused: the peer closed {times} connections right after their handshakes: its access.allow does not {named}"
        ))
    }

    /// Why the peer was not reached.
    pub(crate) fn unreachable_reason(&self) -> String {
        if let Some(answer) = self.answer() {
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
