//! Metrics, in OpenMetrics terms. Labels are bounded: never a peer id or an address.

use std::{collections::HashMap, fmt, sync::atomic::AtomicU64};

use p2pnode_transports::{Family, Kind};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    peers::{PathKind, PeerTable},
    relays::RelayKeeper,
};

/// The node's metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    peers: family::Family<PathLabels, Gauge>,
    reservations: family::Family<RelayLabels, Gauge>,
    port_pool: family::Family<PoolLabels, Gauge>,
    out_of_range: Counter<u64, AtomicU64>,
}

/// The best path of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    path: Name<PathKind>,
    transport: Name<Kind>,
    family: Name<Family>,
}

/// A relay by its place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RelayLabels {
    relay: u64,
}

/// The state of a port of the range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    state: String,
}

/// A label whose value is the text of a value, or `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Name<T>(Option<T>);

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "p2pnode_peers",
            "Connected peers by the path in use: first hop's transport and IP family",
            self.peers.clone(),
        );
        registry.register(
            "p2pnode_reservations",
            "Whether a reservation is held, by the relay's place in the configuration, from 0",
            self.reservations.clone(),
        );
        registry.register(
            "p2pnode_port_pool",
            "Ports of the range by state",
            self.port_pool.clone(),
        );
        registry.register(
            "p2pnode_dials_out_of_range",
            "Dials that left from a port outside the range: always 0",
            self.out_of_range.clone(),
        );
    }

    pub(crate) fn set(
        &self,
        peers: &PeerTable,
        relays: &RelayKeeper,
        sockets: &p2pnode_transports::Handle,
    ) {
        let mut counts: HashMap<PathLabels, i64> = HashMap::new();
        for peer in peers.peers() {
            let Some(path) = peers.best(peer).and_then(|id| peers.path(id)) else {
                continue;
            };
            let hop = path.hops.first();
            let labels = PathLabels {
                path: Name(Some(path.kind)),
                transport: Name(hop.and_then(|hop| hop.transport)),
                family: Name(hop.and_then(|hop| hop.family)),
            };
            *counts.entry(labels).or_default() += 1;
        }
        self.peers.clear();
        for (labels, count) in counts {
            self.peers.get_or_create(&labels).set(count);
        }
        for (place, relay) in relays.relays().enumerate() {
            let labels = RelayLabels {
                relay: u64::try_from(place).unwrap_or(u64::MAX),
            };
            self.reservations
                .get_or_create(&labels)
                .set(i64::from(relays.holds(&relay)));
        }
        let pool = sockets.pool_counts();
        for (state, count) in [
            ("free", pool.free),
            ("in_use", pool.in_use),
            ("cooling", pool.cooling),
        ] {
            let labels = PoolLabels {
                state: state.to_owned(),
            };
            self.port_pool
                .get_or_create(&labels)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn out_of_range(&self) {
        self.out_of_range.inc();
    }
}

impl<T: fmt::Display> EncodeLabelValue for Name<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match &self.0 {
            Some(value) => value.to_string().encode(encoder),
            None => "unknown".encode(encoder),
        }
    }
}
