//! What services need of the event loop: paths to peers, and places for their sessions.

use std::{
    collections::BTreeSet,
    sync::{Arc, MutexGuard},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_services::core::sessions::Role;
use tokio::sync::futures::Notified;

use super::{Hub, Paths, Running, State};
use crate::core::state::ServiceNeeds;

/// What services need of the event loop for one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// What they need of its paths.
    pub(crate) paths: ServiceNeeds,
    /// Its connections with raw streams, which cannot move.
    pub(crate) used: Vec<ConnectionId>,
}

/// A path to a peer is kept as long as this exists.
#[derive(Debug)]
pub(in crate::services) struct Wish {
    hub: Hub,
    peer: PeerId,
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        if let Some(wishes) = state.wishes.get_mut(&self.peer) {
            *wishes -= 1;
            if *wishes == 0 {
                state.wishes.remove(&self.peer);
                self.hub.needs(state, self.peer, false);
                self.hub.offering_changed();
            }
        }
    }
}

impl Hub {
    /// Which peers' needs have changed, once some have.
    pub(crate) async fn needs_changed(&self) -> Vec<Needs> {
        loop {
            let needs = self.take_needs();
            if !needs.is_empty() {
                return needs;
            }
            self.0.changed.notified().await;
        }
    }

    fn take_needs(&self) -> Vec<Needs> {
        let mut state = self.state();
        let changed = std::mem::take(&mut state.changed).into_iter();
        let named = state.offers.named();
        changed
            .map(|(peer, now)| state.needs_of(peer, now, &named))
            .collect()
    }

    pub(super) fn needs(&self, mut state: MutexGuard<'_, State>, peer: PeerId, now: bool) {
        *state.changed.entry(peer).or_default() |= now;
        drop(state);
        self.0.changed.notify_one();
    }

    /// Keeps a path to `peer` until the returned value is dropped.
    pub(in crate::services) fn wish(&self, peer: PeerId) -> Wish {
        let mut state = self.state();
        let wishes = state.wishes.entry(peer).or_default();
        *wishes += 1;
        let is_first = *wishes == 1;
        let has_path = state.paths.chosen(&peer).is_some();
        if is_first || !has_path {
            if !has_path {
                state.paths.tried_again(peer);
            }
            self.needs(state, peer, !has_path);
        } else {
            drop(state);
        }
        if is_first {
            self.offering_changed();
        }
        Wish {
            hub: self.clone(),
            peer,
        }
    }

    /// Ends when what is known of the paths to some peer has changed since this call.
    pub(in crate::services) fn paths_changed(&self) -> Notified<'_> {
        self.0.paths_changed.notified()
    }

    pub(super) fn change_paths(&self, change: impl FnOnce(&mut Paths)) {
        change(&mut self.state().paths);
        self.0.paths_changed.notify_waiters();
    }

    /// A session of `peer` was accepted, or a raw stream has begun.
    pub(in crate::services) fn served(&self, peer: PeerId) {
        self.needs(self.state(), peer, false);
    }
}

fn is_raw_service(running: &Arc<Running>) -> bool {
    running.key.role == Role::Service && running.protocol.is_some()
}

impl State {
    fn used_by_raw_streams(&self, peer: PeerId) -> Vec<ConnectionId> {
        let raw = self.of_peer(peer).filter(|it| it.protocol.is_some());
        let mut used: Vec<_> = raw
            .filter_map(|it| it.is_on())
            .map(|on| on.connection)
            .collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    fn needs_of(&self, peer: PeerId, now: bool, named: &BTreeSet<PeerId>) -> Needs {
        let wanted = self.wishes.contains_key(&peer);
        let paths = ServiceNeeds {
            peer,
            wanted,
            now,
            named: wanted || named.contains(&peer),
            served: self.table.accepted_from(&peer) > 0 || self.of_peer(peer).any(is_raw_service),
            addrs: self.addrs.get(&peer).cloned().unwrap_or_default(),
        };
        Needs {
            paths,
            used: self.used_by_raw_streams(peer),
        }
    }
}
