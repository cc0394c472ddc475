//! What decisions about one peer share with those about all others.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use libp2p::PeerId;

use super::{
    action::{Action, DialId, Event},
    timing::{Jitter, Timing},
};
use crate::punch::candidates::{Local, Policy};

/// What holds for every peer, and where decisions go.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) local_id: PeerId,
    pub(super) enabled: bool,
    pub(super) policy: &'a Policy,
    pub(super) timing: &'a Timing,
    pub(super) local: &'a Local,
    pub(super) relays: &'a Relays,
    pub(super) actions: &'a mut VecDeque<Action>,
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) next_dial: &'a mut u64,
    pub(super) jitter: &'a mut Jitter,
}

impl Context<'_> {
    pub(super) fn dial_id(&mut self) -> DialId {
        *self.next_dial += 1;
        DialId(*self.next_dial)
    }

    pub(super) fn report(&mut self, event: Event) {
        self.events.push_back(event);
    }
}

/// The relays in use: who they are and where they listen.
#[derive(Debug, Default)]
pub(super) struct Relays {
    pub(super) peers: HashSet<PeerId>,
    pub(super) sockets: HashSet<SocketAddr>,
}
