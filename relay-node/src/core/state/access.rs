//! Who may use the relay: what peers present, what ends, and what other rules change.

use std::time::{Duration, SystemTime};

use libp2p::PeerId;
use p2pnode_protocol::join::{self, Admitted, Answer};

use super::{Action, Event, RelayState};
use crate::{
    config::Access,
    core::{admission::Refused, clock::Now},
};

/// How often it is looked whose token has expired and who has had time enough to present one. What is asked for meanwhile is
/// judged by itself.
const ENFORCEMENT: Duration = Duration::from_secs(1);

impl RelayState {
    /// Whether `peer` may reserve, call, ask and register. To be asked for each stream of a protocol that only admitted peers may
    /// speak: a peer's admission begins and ends while it is connected.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, peer: &PeerId, wall: SystemTime) -> Result<(), Refused> {
        self.admission.admitted(peer, wall)
    }

    /// A peer that is connected presents a token, or only itself: what it is answered.
    pub fn handle_join(&mut self, peer: PeerId, token: Option<&str>, now: Now) -> Answer {
        let presented = self.admission.present(peer, token, now.wall);
        let outcome = presented.map(|_| ());
        self.events.push_back(Event::Joined { peer, outcome });
        match presented {
            Ok(until) => Answer::Admitted(Admitted {
                until: until.map(join::seconds),
            }),
            Err(refused) => Answer::Refused(refused.refusal()),
        }
    }

    /// From now on other access rules hold. Peers that they do not admit are let go.
    pub fn handle_access(&mut self, access: &Access, now: Now) {
        let old = self.admission.rules();
        let rules = old.renewed(access);
        let difference = old.difference(&rules);
        let (tokens, opens) = (rules.take_tokens(), rules.are_open() && !old.are_open());
        let ended = self.admission.set(rules, now.wall);
        let disconnected = ended.len();
        for (peer, refused) in ended {
            self.end_admission(peer, refused, now);
        }
        self.events.push_back(Event::AccessChanged {
            difference,
            tokens,
            opens,
            disconnected,
        });
    }

    /// Whether there is anybody to let go of as time passes.
    pub(super) fn enforces_access(&self) -> bool {
        !self.admission.rules().are_open() && self.admission.has_peers()
    }

    pub(super) fn enforce_access(&mut self, now: Now) {
        if now.instant < self.next_enforcement || !self.enforces_access() {
            return;
        }
        self.next_enforcement = now.instant + ENFORCEMENT;
        let expired = self.admission.expire(now.wall);
        for peer in &expired {
            self.end_admission(*peer, Refused::Expired, now);
        }
        let overdue = self.admission.overdue(now.wall, now.instant).into_iter();
        for (peer, connection) in overdue.filter(|(peer, _)| !expired.contains(peer)) {
            self.actions.push_back(Action::Close(connection));
            let overdue = Event::AdmissionOverdue { peer, connection };
            self.events.push_back(overdue);
        }
    }

    fn end_admission(&mut self, peer: PeerId, refused: Refused, now: Now) {
        let ended = Event::AdmissionEnded { peer, refused };
        self.events.push_back(ended);
        self.take_back_record(peer, now);
        self.actions.push_back(Action::Disconnect(peer));
    }
}
