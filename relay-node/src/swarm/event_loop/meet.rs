//! What peers ask that want to meet others.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::introduction::{Answer, Refusal};
use tracing::debug;

use super::EventLoop;
use crate::{
    observe::metrics::{Introduction, Reason},
    swarm::introduction::{Event, Question},
};

impl EventLoop {
    pub(super) fn on_meet(&mut self, event: Event) {
        match event {
            Event::Asked(question) => self.on_wish_to_meet(question),
            Event::Notified { peer, received } => {
                debug!(%peer, received, "sent an introduction to the peer that was asked for");
                if !received {
                    self.metrics.introduction(Introduction::NotTaken);
                }
            }
        }
    }

    fn on_wish_to_meet(&mut self, question: Question) {
        let Question {
            peer,
            request,
            reply,
        } = question;
        let place = self.place_of(&request.peer);
        let answer = match self.drain {
            Some(_) => Answer::Refused(Refusal::Draining),
            None => {
                let meet = &mut self.swarm.behaviour_mut().meet;
                meet.introduce(peer, &request, place, Instant::now())
            }
        };
        debug!(%peer, other = %request.peer, ?answer, "wants to be introduced");
        let (outcome, denied) = match &answer {
            Answer::Introduced(_) => (Introduction::Made, None),
            Answer::Refused(refusal) => {
                let denied = match refusal {
                    Refusal::TooOften => Some(Reason::IntroductionLimit),
                    Refusal::Draining => Some(Reason::Draining),
                    // The circuit that is asked for along with it is denied, and counted, for the same reason.
                    Refusal::NoReservation
                    // Not ours to deny.
                    | Refusal::Unsupported
                    | Refusal::NothingInCommon => None,
                };
                (Introduction::Refused(*refusal), denied)
            }
        };
        self.metrics.introduction(outcome);
        if let Some(reason) = denied {
            self.metrics.denied(reason);
        }
        // An error means that the stream is gone.
        let _ = reply.send(answer);
    }

    /// The newest connection on which a peer holds a reservation.
    fn place_of(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.judge().newest_place(peer)
    }
}
