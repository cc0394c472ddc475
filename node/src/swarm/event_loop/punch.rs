//! What punching tells: attempts, successes and giving up.

use std::time::Instant;

use super::EventLoop;
use crate::{
    core::event,
    observe::metrics::Cause,
    punch::{By, Event, Record},
};

impl EventLoop {
    pub(super) fn on_punch(&mut self, event: Event) {
        match event {
            Event::Attempt(record) => self.on_attempt(&record),
            Event::Direct {
                peer,
                connection_id,
                attempts,
            } => {
                self.next_punches.remove(&peer);
                // A direct connection that took no attempt was dialed or accepted like any other.
                if attempts > 0 {
                    self.peers.punched(connection_id);
                }
                if let Some(connection) = self.peers.connection(connection_id) {
                    let cause = Cause::Made(connection.path.how);
                    self.observe_path(peer, cause, Instant::now());
                }
                if attempts == 0 {
                    return;
                }
                tracing::info!(%peer, connection = %connection_id, attempts, "punched");
                if let Some(best) = self.best_path(&peer) {
                    for dialer in self.dials_of(peer) {
                        dialer.handle_path(best.clone());
                    }
                }
            }
            Event::GaveUp {
                peer,
                reason,
                attempts,
                retry_in,
            } => {
                tracing::info!(%peer, %reason, attempts, ?retry_in, "staying relayed for now");
                self.next_punches
                    .insert(peer, retry_in.map(|wait| Instant::now() + wait));
                let is_awaited = self.match_families(peer);
                let now = Instant::now();
                for dialer in self.dials_of(peer) {
                    dialer.handle_gave_up(reason);
                    if is_awaited {
                        dialer.await_far_hop(now);
                    }
                }
            }
        }
    }

    fn on_attempt(&mut self, record: &Record) {
        let now = Instant::now();
        let peer = record.peer;
        self.observers.punch(record);
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
        let event = |t| event::Event::Punch {
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
                By::Dcutr => dialer.handle_attempt(event(t)),
                By::Introduction => dialer.handle_introduced_attempt(event(t)),
            }
        }
        let is_in_vain = record.by() == By::Introduction && reason.is_some();
        if is_in_vain && self.dials_of(peer).next().is_none() {
            self.observers.unwanted(&peer);
        }
        let t = self.t();
        self.observers.emit(event(t));
    }
}
