//! Introductions: those that this node has asked for, and those that peers have asked for.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::introduction::{IntroductionReply, Notice};

use super::{Action, NodeState};
use crate::{
    core::introductions::IntroductionRequest,
    punch::{Introduced, IntroductionResponse},
};

impl NodeState {
    /// Asks a relay to introduce this node to a peer, if it may know how. The relay advertises what it sees, so it is asked only over a
    /// connection from a punch port.
    pub(super) fn ask_for_introduction(&mut self, request: IntroductionRequest) {
        if !self.introducers.contains(&request.relay) {
            return;
        }
        let best = self.peers.best_leg(self.relays.up(&request.relay));
        let legs = best.into_iter().chain(self.relays.up(&request.relay));
        let legs: Vec<_> = legs
            .map(|leg| leg.connection)
            .filter(|leg| self.leaves_from_punch_port(*leg))
            .collect();
        let legs = legs.into_iter();
        if let Some(connection) = self.introductions.handle_wanted(request, legs) {
            self.actions.push_back(Action::AskIntroduction {
                request,
                connection,
            });
            for dialer in self.dials_of(request.peer) {
                dialer.await_introduction();
            }
        }
    }

    /// A request of [`Action::AskIntroduction`] has ended.
    pub(crate) fn handle_introduction_reply(
        &mut self,
        request: IntroductionRequest,
        connection: ConnectionId,
        reply: IntroductionReply,
        now: Instant,
    ) {
        tracing::debug!(peer = %request.peer, relay = %request.relay, %connection, ?reply, "asked to be introduced");
        let request = self.introductions.handle_reply(request, connection, &reply);
        if let Some(IntroductionRequest { peer, relay }) = request {
            match reply {
                IntroductionReply::Introduced(introduction) if self.is_dialed(peer) => {
                    self.note_met(peer, relay);
                    self.actions.push_back(Action::Punch(Introduced {
                        relay,
                        peer,
                        asked: true,
                        addrs: introduction.addrs,
                        own_addrs: introduction.own_addrs,
                    }));
                }
                IntroductionReply::Introduced(_)
                | IntroductionReply::Refused(_)
                | IntroductionReply::Unsupported
                | IntroductionReply::NoAnswer => {
                    self.on_introduction_ended(peer, IntroductionResponse::Ignored);
                }
            }
        }
        self.advance(now);
    }

    /// A relay introduces a peer that has asked for this node, with the addresses of the peer.
    pub(crate) fn handle_introduction(&mut self, relay: PeerId, notice: Notice, now: Instant) {
        let (peer, introduction) = (notice.peer, notice.introduction);
        let is_allowed = self.is_allowed(&peer);
        tracing::debug!(%peer, %relay, is_allowed, ?introduction, "introduced to a peer that asks for this node");
        if let Some(offer) = notice.search {
            if is_allowed {
                self.handle_search_offer(relay, peer, offer, now);
            }
        } else if is_allowed {
            self.note_met(peer, relay);
            self.actions.push_back(Action::Punch(Introduced {
                relay,
                peer,
                asked: false,
                addrs: introduction.addrs,
                own_addrs: introduction.own_addrs,
            }));
        }
        self.advance(now);
    }

    /// The punch machine has got an introduction of [`Action::Punch`]. `asked` is as there.
    pub(crate) fn handle_introduced(
        &mut self,
        peer: PeerId,
        asked: bool,
        start: IntroductionResponse,
        now: Instant,
    ) {
        if asked {
            self.on_introduction_ended(peer, start);
        } else if start == IntroductionResponse::Punches {
            // From here on the time to a direct path counts.
            self.report_wanted(peer);
        }
        self.advance(now);
    }

    fn on_introduction_ended(&mut self, peer: PeerId, start: IntroductionResponse) {
        for dialer in self.dials_of(peer) {
            dialer.handle_introduction_reply(start);
        }
    }

    /// There is one more connection to a relay, which by it sees more of this node.
    pub(super) fn introduce_again(&mut self, relay: PeerId) {
        for request in self.introductions.handle_leg(relay) {
            let is_wanted = self
                .dials_of(request.peer)
                .any(|dialer| dialer.wants_introduction());
            if is_wanted {
                self.ask_for_introduction(request);
            }
        }
    }

    /// A connection is gone, and with it the answers that were to come over it.
    pub(super) fn end_introductions(&mut self, connection: ConnectionId) {
        for request in self.introductions.handle_closed(connection) {
            self.on_introduction_ended(request.peer, IntroductionResponse::Ignored);
        }
    }
}
