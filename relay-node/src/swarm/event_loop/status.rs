//! The relay's state, for those who ask.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::EventLoop;
use crate::{
    core::drain::Remains,
    observe::status::{self, AccessStatus, DrainStatus, Status, count},
    swarm::memory,
};

impl EventLoop {
    pub(super) fn status(&mut self) -> Status {
        let now = Instant::now();
        let remains = self.remains();
        let drain = self.drain.as_ref().map(|drain| DrainStatus {
            circuits_left: count(remains.circuits),
            reservations_left: count(remains.reservations),
            seconds_left: drain.left(remains, now).as_secs(),
        });
        let network = self.swarm.network_info();
        Status {
            peer_id: self.swarm.local_peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.saturating_duration_since(self.started).as_secs(),
            listen: sorted(self.swarm.listeners()),
            external: sorted(self.swarm.external_addresses()),
            connections: network.connection_counters().num_established().into(),
            connections_by: self.by_leg(self.legs.connections()),
            peers: count(network.num_peers()),
            reservations: count(remains.reservations),
            reservations_by: self.by_leg(self.judge().held()),
            circuits: count(remains.circuits),
            circuits_closed: self.metrics.circuits_closed(),
            circuit_bytes: self.metrics.circuit_bytes(),
            records: count(self.swarm.behaviour_mut().directory.len()),
            memory_bytes: memory::resident().into(),
            access: self.access(),
            denied: self.metrics.denials(),
            limits: status::limits(&self.limits),
            draining: drain.is_some(),
            drain,
        }
    }

    fn access(&self) -> AccessStatus {
        let (machine, now) = (self.admission.machine(), SystemTime::now());
        let rules = machine.rules();
        AccessStatus {
            open: rules.are_open(),
            allow: count(rules.allowed()),
            tokens: rules.take_tokens(),
            revoked: count(rules.revoked()),
            by_token: count(machine.by_token(now)),
            waiting: count(machine.waiting(now)),
        }
    }

    /// What a drain waits for.
    pub(super) fn remains(&self) -> Remains {
        Remains {
            circuits: self.judge().circuits(),
            reservations: self.judge().reservations(),
        }
    }

    fn by_leg(&self, connections: impl Iterator<Item = ConnectionId>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for leg in connections.filter_map(|connection| self.legs.leg(connection)) {
            let name = format!("{}/{}", leg.transport, leg.family);
            *counts.entry(name).or_default() += 1;
        }
        counts
    }
}

/// The swarm tells them in any order, and the status is to stay as it is from one look to the next.
fn sorted<'a>(addresses: impl Iterator<Item = &'a Multiaddr>) -> Vec<String> {
    let mut texts: Vec<_> = addresses.map(ToString::to_string).collect();
    texts.sort();
    texts
}
