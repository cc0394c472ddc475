//! What relays tell of peers to meet: those that this node has asked for, and those that have asked for it.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};

use super::EventLoop;
use crate::{
    punch::Introduced,
    swarm::introduction::{Event, IntroductionReply, IntroductionRequest},
};

impl EventLoop {
    /// Asks a relay to introduce this node to a peer, if it may know how.
    pub(super) fn ask_to_meet(&mut self, request: IntroductionRequest) {
        let behaviour = self.swarm.behaviour_mut();
        if !behaviour.meet.knows(&request.relay) {
            return;
        }
        let best = self.peers.best_leg(self.relays.up(&request.relay));
        let legs = best.into_iter().chain(self.relays.up(&request.relay));
        let legs = legs.map(|leg| leg.connection);
        if let Some(connection) = self.introductions.begin(request, legs) {
            let addrs = behaviour.punch.unseen();
            behaviour.meet.ask(request, connection, addrs);
            for dialer in self.dials_of(request.peer) {
                dialer.await_meeting();
            }
        }
    }

    pub(super) fn on_meet(&mut self, event: Event) {
        match event {
            Event::Replied {
                request,
                connection,
                reply,
            } => {
                tracing::debug!(peer = %request.peer, relay = %request.relay, %connection, ?reply, "asked to be introduced");
                if self.introductions.handle_told(request, connection, &reply) {
                    self.on_introduction_reply(request.peer, reply);
                }
            }
            Event::Notified { relay, notice } => {
                let (peer, introduction) = (notice.peer, notice.introduction);
                let is_allowed = self.is_allowed(&peer);
                tracing::debug!(%peer, %relay, is_allowed, ?introduction, "introduced to a peer that asks for this node");
                let introduced = Introduced {
                    peer,
                    asked: false,
                    addrs: introduction.addrs,
                    told: introduction.own_addrs,
                };
                let behaviour = self.swarm.behaviour_mut();
                if is_allowed && behaviour.punch.introduced(&introduced) {
                    // From here on the time to a direct path counts.
                    self.observe_wanted(peer, Instant::now());
                }
            }
        }
    }

    fn on_introduction_reply(&mut self, peer: PeerId, reply: IntroductionReply) {
        let is_wanted = self.dials_of(peer).next().is_some();
        let is_punched = match reply {
            IntroductionReply::Introduced(introduction) if is_wanted => {
                self.swarm.behaviour_mut().punch.introduced(&Introduced {
                    peer,
                    asked: true,
                    addrs: introduction.addrs,
                    told: introduction.own_addrs,
                })
            }
            IntroductionReply::Introduced(_)
            | IntroductionReply::Refused(_)
            | IntroductionReply::Unsupported
            | IntroductionReply::NoAnswer => false,
        };
        for dialer in self.dials_of(peer) {
            dialer.handle_met(is_punched);
        }
    }

    /// There is one more connection to a relay, which by it sees more of this node.
    pub(super) fn meet_again(&mut self, relay: PeerId) {
        for request in self.introductions.handle_leg(relay) {
            let is_wanted = self.dials_of(request.peer).any(|of| of.wants_to_meet());
            if is_wanted {
                self.ask_to_meet(request);
            }
        }
    }

    /// A connection is gone, and with it the answers that were to come over it.
    pub(super) fn end_meetings(&mut self, connection: ConnectionId) {
        for request in self.introductions.handle_closed(connection) {
            self.on_introduction_reply(request.peer, IntroductionReply::NoAnswer);
        }
    }

    /// Whether `access.allow` lets a peer connect.
    fn is_allowed(&self, peer: &PeerId) -> bool {
        let access = self.swarm.behaviour().access.as_ref();
        access.is_none_or(|access| access.allowed_peers().contains(peer))
    }
}
