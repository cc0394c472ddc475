//! What parties to a circuit ask: its other leg.

use p2pnode_protocol::hop::{Answer, Refusal};
use tracing::debug;

use super::EventLoop;
use crate::swarm::{circuit::OtherLeg, hop::Question};

impl EventLoop {
    pub(super) fn on_hop(&mut self, question: Question) {
        let Question {
            peer,
            connection,
            request,
            reply,
        } = question;
        let other = self
            .judge()
            .other_leg(peer, connection, request.peer, request.dialed);
        let answer = match other {
            OtherLeg::None => Answer::Refused(Refusal::NotAParty),
            OtherLeg::Unknown => Answer::Refused(Refusal::Unknown),
            OtherLeg::Is(other) => self
                .legs
                .leg(other)
                .map_or(Answer::Refused(Refusal::Unknown), Answer::Leg),
        };
        debug!(%peer, %connection, other = %request.peer, ?answer, "asked for the other leg of a circuit");
        // An error means that the stream is gone.
        let _ = reply.send(answer);
    }
}
