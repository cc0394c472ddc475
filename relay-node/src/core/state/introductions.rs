//! Peers that ask to be introduced to others.

use libp2p::PeerId;
use p2pnode_protocol::introduction::{Answer, Introduction, Notice, Refusal, Request};

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
                // The peer that has asked for a search may have no reservation.
                let is_answer = request.search.is_some_and(|offer| offer.answers.is_some());
                let place = match place {
                    None if is_answer => self.introductions.seen.takes_on(&request.peer),
                    place => place,
                };
                self.introductions
                    .introduce(asker, request, place, now.instant)
            }
        };
        let outcome = introduced.as_ref().map(|_| ()).map_err(|why| *why);
        self.events.push_back(Event::Introduced { outcome });
        match introduced {
            Err(refusal) => Answer::Refused(refusal),
            Ok((connection, introduction)) => {
                self.actions.push_back(Action::Introduce {
                    peer: request.peer,
                    connection,
                    notice: Notice {
                        peer: asker,
                        introduction: Introduction {
                            addrs: introduction.own_addrs.clone(),
                            own_addrs: introduction.addrs.clone(),
                        },
                        search: request.search,
                    },
                });
                Answer::Introduced(introduction)
            }
        }
    }

    /// An introduction was sent to `peer`.
    pub fn handle_introduction_sent(&mut self, peer: PeerId, delivery: Delivery) {
        self.events
            .push_back(Event::IntroductionSent { peer, delivery });
    }
}
