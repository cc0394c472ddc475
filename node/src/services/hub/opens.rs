//! The places of sessions that this node opens.

use std::{sync::Arc, time::Instant};

use libp2p::PeerId;
use p2pnode_services::{
    config::ServiceName,
    core::{
        memory::Share,
        sessions::{Key, Role},
    },
    wire::{Carries, SessionId},
};

use super::{Hub, random};
use crate::services::running::Running;

impl Hub {
    /// A session that this node opens at `peer`. `None`: there are as many as the memory admits.
    pub(in crate::services) fn open_session(
        &self,
        running: impl FnOnce(Key) -> Running,
        peer: PeerId,
        service: ServiceName,
        carries: Carries,
    ) -> Option<(Arc<Running>, Share)> {
        let key = Key {
            peer,
            role: Role::Forward,
            session: SessionId(random()),
        };
        let running = Arc::new(running(key));
        let share = self.begin(&running, service, carries)?;
        Some((running, share))
    }

    /// The same of a session that has its id.
    pub(in crate::services) fn begin(
        &self,
        running: &Arc<Running>,
        service: ServiceName,
        carries: Carries,
    ) -> Option<Share> {
        let (key, now) = (running.key, Instant::now());
        let mut state = self.state();
        let share = state.table.handle_open(key, service, carries, now);
        if share.is_some() {
            state.running.insert(key, Arc::clone(running));
        } else {
            drop(state);
            self.no_memory(running);
        }
        share
    }
}
