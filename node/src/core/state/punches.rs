//! What the punch machine reports: attempts, successes and giving up.

use std::time::Instant;

use super::{Event, NodeState, circuits::FamilyMatch};
use crate::{
    core::{event, peers::PathCause},
    punch::{self, By, Reason, Record, Role},
};

impl NodeState {
    /// The punch machine reports this.
    pub(crate) fn handle_punch(&mut self, event: punch::Event, now: Instant) {
        match event {
            punch::Event::Attempt(record) => self.on_attempt(record, now),
            punch::Event::Direct {
                peer,
                connection_id,
                attempts,
            } => {
                self.next_punches.remove(&peer);
                self.held_back.remove(&peer);
                // A direct connection that took no attempt was dialed or accepted like any other.
                if attempts > 0 {
                    self.peers.handle_punched(connection_id);
                }
                if let Some(connection) = self.peers.connection(connection_id) {
                    let cause = PathCause::Made(connection.path.how);
                    self.report_path(peer, cause);
                }
                if attempts > 0 {
                    tracing::info!(%peer, connection = %connection_id, attempts, "punched");
                    if let Some(best) = self.best_path(&peer) {
                        for dialer in self.dials_of(peer) {
                            dialer.handle_path(best.clone());
                        }
                    }
                }
            }
            punch::Event::Listed { peer, ips } => {
                self.on_listed(peer, ips.into_iter().collect(), now);
                self.search_soon(peer, now);
            }
            punch::Event::Unvouched { peer, ips } => {
                self.inquiries.handle_listed(peer, &ips, now);
            }
            punch::Event::GaveUp {
                peer,
                reason,
                attempts,
                retry_in,
            } => {
                let meant = self.peers.silence_means(&peer);
                let meant = meant.filter(|_| reason == Reason::RemoteSilent);
                let reason = meant.unwrap_or(reason);
                tracing::info!(%peer, %reason, attempts, ?retry_in, "staying relayed for now");
                let next = retry_in.map(|wait| now + wait);
                self.next_punches.insert(peer, (reason, next));
                let family_match = self.match_families(peer, now);
                self.search_instead(peer, reason, now);
                let waits = self.searches.is_with(&peer);
                if waits {
                    self.held_back.insert(peer, reason);
                }
                for dialer in self.dials_of(peer) {
                    if !waits {
                        dialer.handle_gave_up(reason);
                    }
                    if family_match == FamilyMatch::Dialed {
                        dialer.await_far_hop(now);
                    }
                }
            }
        }
        self.advance(now);
    }

    fn on_attempt(&mut self, record: Box<Record>, now: Instant) {
        let peer = record.peer;
        let reason = record.outcome.reason();
        tracing::info!(
            %peer,
            attempt = record.attempt,
            role = %record.role,
            by = %record.by(),
            outcome = %record.outcome.ended(),
            reason = reason.map(tracing::field::display),
            sent = ?record.sent,
            received = ?record.received,
            rtt = ?record.rtt,
            took = ?record.took,
            "punch attempt"
        );
        let attempt = |t| event::Event::Punch {
            t,
            peer,
            attempt: record.attempt,
            role: record.role,
            by: record.by(),
            sent: record.sent.clone(),
            received: record
                .received
                .iter()
                .map(|candidate| candidate.addr.clone())
                .collect(),
            outcome: record.outcome.ended(),
            reason,
        };
        for dialer in self.dials_of(peer) {
            let t = dialer.elapsed(now);
            match record.by() {
                By::Dcutr => dialer.handle_attempt(attempt(t)),
                By::Introduction | By::Search => dialer.handle_introduced_attempt(attempt(t)),
            }
        }
        self.note_listed(&record, now);
        self.note_moved(&record, now);
        if let Some(reason) = reason {
            if !self.searches.is_with(&peer) {
                self.release(peer);
            }
            // The side that has dialed the circuit begins at once, and the other side when it gives up.
            if record.role == Role::Responder {
                self.search_instead(peer, reason, now);
            }
        }
        let has_failed = record.by() != By::Dcutr && reason.is_some();
        if has_failed && !self.is_dialed(peer) {
            self.events.push_back(Event::Unwanted(peer));
        }
        self.report(attempt(self.t(now)));
        self.events.push_back(Event::Punch(record));
    }
}
