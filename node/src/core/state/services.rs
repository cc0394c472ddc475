//! Paths that services ask for.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::{Action, Event, NodeState};
use crate::core::{
    dialer::{Request, Until},
    peers::PathKind,
};

/// How long one dial looks for a peer that services want.
const DIAL: Duration = Duration::from_secs(30);

/// What services need of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceNeeds {
    /// The peer.
    pub(crate) peer: PeerId,
    /// A path to it is to be kept.
    pub(crate) wanted: bool,
    /// A client waits for one.
    pub(crate) now: bool,
    /// It may have as many sessions as the memory admits: a service or a forward names it.
    pub(crate) named: bool,
    /// It has sessions here.
    pub(crate) served: bool,
    /// Its addresses, if the configuration has some.
    pub(crate) addrs: Vec<Multiaddr>,
}

impl NodeState {
    /// What services need of a peer has changed.
    pub(crate) fn handle_services(&mut self, needs: ServiceNeeds, now: Instant) {
        let ServiceNeeds {
            peer,
            wanted,
            now: now_please,
            named,
            served,
            addrs,
        } = needs;
        let was_wanted = self.keeper.keeps(&peer);
        if wanted {
            self.keeper.handle_wanted(peer, addrs, now_please, now);
            match self.best_path(&peer) {
                Some(path) => {
                    self.keeper.handle_connected(&peer);
                    if path.kind == PathKind::Relayed && !was_wanted {
                        self.actions.push_back(Action::Want(peer));
                    }
                }
                None if now_please => self.relays.handle_hint(now),
                None => {}
            }
        } else {
            self.keeper.handle_unwanted(&peer);
        }
        match (named, served) {
            (true, _) => self.serving.insert(peer, true),
            (false, true) => self.serving.insert(peer, false),
            (false, false) => self.serving.remove(&peer),
        };
        self.classify(peer);
        self.advance(now);
    }

    /// Dials those that are due.
    pub(super) fn dial_kept_peers(&mut self, now: Instant) {
        for (peer, addrs) in self.keeper.due(now) {
            if peer == self.local || !self.is_allowed(&peer) {
                let reason = match peer == self.local {
                    true => "this is the node itself",
                    false => "access.allow does not name it, so this node refuses it",
                };
                self.events.push_back(Event::NoPath {
                    peer,
                    reason: reason.to_owned(),
                });
                self.keeper.handle_failed(&peer, now, 0.5);
                continue;
            }
            if self.best_path(&peer).is_some() || self.is_dialed(peer) {
                continue;
            }
            let request = Request {
                peer,
                addrs,
                until: Until::Direct,
                timeout: DIAL,
                pings: 0,
            };
            self.begin_dial(request, now);
        }
    }
}
