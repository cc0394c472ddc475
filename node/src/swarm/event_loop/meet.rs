//! What relays tell of peers to meet: those that this node has asked for, and those that have asked for it.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};

use super::EventLoop;
use crate::{
    punch::{Introduced, IntroductionResponse},
    swarm::introduction::{Event, Told, Wish},
};

impl EventLoop {
    /// Asks a relay to introduce this node to a peer, if it may know how.
    pub(super) fn ask_to_meet(&mut self, wish: Wish) {
        let behaviour = self.swarm.behaviour_mut();
        if !behaviour.meet.knows(&wish.relay) {
            return;
        }
        let best = self.peers.best_leg(self.relays.up(&wish.relay));
        let legs = best.into_iter().chain(self.relays.up(&wish.relay));
        let legs = legs.map(|leg| leg.connection);
        if let Some(connection) = self.wishes.begin(wish, legs) {
            let addrs = behaviour.punch.unseen();
            behaviour.meet.ask(wish, connection, addrs);
            for dialer in self.dials_of(wish.peer) {
                dialer.await_meeting();
            }
        }
    }

    pub(super) fn on_meet(&mut self, event: Event) {
        match event {
            Event::Told {
                wish,
                connection,
                told,
            } => {
                tracing::debug!(peer = %wish.peer, relay = %wish.relay, %connection, ?told, "asked to be introduced");
                if self.wishes.handle_told(wish, connection, &told) {
                    self.on_told_to_meet(wish.peer, told);
                }
            }
            Event::Heard {
                relay,
                introduction,
            } => {
                let (peer, meeting) = (introduction.peer, introduction.meeting);
                let is_allowed = self.is_allowed(&peer);
                tracing::debug!(%peer, %relay, is_allowed, ?meeting, "introduced to a peer that asks for this node");
                let introduced = Introduced {
                    peer,
                    asked: false,
                    addrs: meeting.addrs,
                    own_addrs: meeting.told,
                };
                let behaviour = self.swarm.behaviour_mut();
                if is_allowed
                    && behaviour.punch.introduced(&introduced) == IntroductionResponse::Punches
                {
                    // From here on the time to a direct path counts.
                    self.observe_wanted(peer, Instant::now());
                }
            }
        }
    }

    fn on_told_to_meet(&mut self, peer: PeerId, told: Told) {
        let is_wanted = self.dials_of(peer).next().is_some();
        let is_punched = match told {
            Told::Meeting(meeting) if is_wanted => {
                let introduced = Introduced {
                    peer,
                    asked: true,
                    addrs: meeting.addrs,
                    own_addrs: meeting.told,
                };
                let behaviour = self.swarm.behaviour_mut();
                behaviour.punch.introduced(&introduced) == IntroductionResponse::Punches
            }
            Told::Meeting(_) | Told::Refused(_) | Told::Unsupported | Told::Nothing => false,
        };
        for dialer in self.dials_of(peer) {
            dialer.handle_met(is_punched);
        }
    }

    /// There is one more connection to a relay, which by it sees more of this node.
    pub(super) fn meet_again(&mut self, relay: PeerId) {
        for wish in self.wishes.handle_leg(relay) {
            let is_wanted = self.dials_of(wish.peer).any(|of| of.wants_to_meet());
            if is_wanted {
                self.ask_to_meet(wish);
            }
        }
    }

    /// A connection is gone, and with it the answers that were to come over it.
    pub(super) fn end_meetings(&mut self, connection: ConnectionId) {
        for wish in self.wishes.handle_closed(connection) {
            self.on_told_to_meet(wish.peer, Told::Nothing);
        }
    }

    /// Whether `access.allow` lets a peer connect.
    fn is_allowed(&self, peer: &PeerId) -> bool {
        let access = self.swarm.behaviour().access.as_ref();
        access.is_none_or(|access| access.allowed_peers().contains(peer))
    }
}
