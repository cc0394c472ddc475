//! Peers that ask to be introduced to others.

use libp2p::PeerId;
use p2pnode_protocol::introduction::{Answer, Introduction, Meeting, Refusal, Request};

use super::{Action, Delivery, Event, RelayState};
use crate::core::clock::Now;

impl RelayState {
    /// A peer asks to be introduced to another. If it is, the other one is sent an introduction in the same moment.
    pub fn handle_introduction_request(
        &mut self,
        asker: PeerId,
        request: &Request,
        now: Now,
    ) -> Answer {
        let introduced = match self.drain {
            Some(_) => Err(Refusal::Draining),
            None => {
                let place = self.policy.newest_place(&request.peer);
                self.introductions
                    .introduce(asker, request, place, now.instant)
            }
        };
        let outcome = introduced.as_ref().map(|_| ()).map_err(|why| *why);
        self.events.push_back(Event::Introduced { outcome });
        match introduced {
            Err(refusal) => Answer::Refused(refusal),
            Ok((connection, meeting)) => {
                self.actions.push_back(Action::Introduce {
                    peer: request.peer,
                    connection,
                    introduction: Introduction {
                        peer: asker,
                        meeting: Meeting {
                            addrs: meeting.told.clone(),
                            told: meeting.addrs.clone(),
                        },
                    },
                });
                Answer::Introduced(meeting)
            }
        }
    }

    /// An introduction was sent to `peer`.
    pub fn handle_introduction_sent(&mut self, peer: PeerId, delivery: Delivery) {
        self.events
            .push_back(Event::IntroductionSent { peer, delivery });
    }
}
