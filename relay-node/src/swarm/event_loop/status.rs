//! The relay's state, for those who ask.

use std::{collections::BTreeMap, time::SystemTime};

use libp2p::Multiaddr;
use p2pnode_protocol::{Family, Transport};

use super::EventLoop;
use crate::{
    observe::status::{self, AccessStatus, DrainStatus, Status, count},
    swarm::{memory, shared_state::now},
};

impl EventLoop {
    pub(super) fn status(&self) -> Status {
        let now = now();
        let state = self.state.lock();
        let totals = state.totals();
        let drain = state.drain_left(now.instant).map(|left| DrainStatus {
            circuits_left: count(totals.circuits),
            reservations_left: count(totals.reservations),
            seconds_left: left.as_secs(),
        });
        let network = self.swarm.network_info();
        let metrics = self.observer.metrics();
        let uptime = now.instant.saturating_duration_since(self.started);
        Status {
            peer_id: self.swarm.local_peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: uptime.as_secs(),
            listen: sorted(self.swarm.listeners()),
            external: sorted(self.swarm.external_addresses()),
            connections: network.connection_counters().num_established().into(),
            connections_by: by_leg(state.connection_legs()),
            peers: count(network.num_peers()),
            reservations: count(totals.reservations),
            reservations_by: by_leg(state.reservation_legs()),
            circuits: count(totals.circuits),
            circuits_closed: metrics.circuits_closed(),
            circuit_bytes: metrics.circuit_bytes(),
            records: count(totals.records),
            memory_bytes: memory::resident().into(),
            access: AccessStatus::from(state.access_totals(SystemTime::now())),
            denied: metrics.denials(),
            limits: status::limits(&self.limits),
            draining: drain.is_some(),
            drain,
        }
    }
}

fn by_leg(legs: impl Iterator<Item = (Transport, Family)>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (transport, family) in legs {
        *counts.entry(format!("{transport}/{family}")).or_default() += 1;
    }
    counts
}

/// The swarm has them in any order, and the status is to stay as it is from one look to the next.
fn sorted<'a>(addresses: impl Iterator<Item = &'a Multiaddr>) -> Vec<String> {
    let mut texts: Vec<_> = addresses.map(ToString::to_string).collect();
    texts.sort();
    texts
}
