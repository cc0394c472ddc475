//! Metrics, in OpenMetrics terms. Labels are bounded: never a peer id or an address.
//!
//! - `labels`: the label sets and their values.
//! - `mappings`: what routers map.
//! - `paths`: when the path of a peer changes, and how long it took to become direct.
//! - `dials`: what became of each address that was dialed.
//! - `pool`: the ports of the range.
//! - `sessions`: sessions of services.

mod dials;
mod labels;
mod mappings;
mod paths;
mod pool;
mod sessions;

use std::{collections::HashMap, io, sync::atomic::AtomicU64};

use libp2p::{Multiaddr, PeerId, TransportError, swarm::DialError};
use p2pnode_transports::Handle;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    core::{
        admission::Refused,
        dialer::CircuitFailure,
        mappings::Claim,
        netcheck::Report,
        peers::{Path, PathCause, PeerTable},
        port_search::SearchReport,
        relays::RelayKeeper,
    },
    punch::Record,
};
use labels::{
    ChangeLabels, DialLabels, Label, NatLabels, PathLabels, ProbeLabels, PunchLabels,
    RefusedLabels, RelayLabels, SearchLabels,
};
use mappings::Mappings;
use pool::Pool;

pub(crate) use paths::{Change, PathWatch};
pub(crate) use sessions::{Bytes, SessionMetrics};

/// Upper bounds of the time to direct, in seconds. They are fine for a first attempt, which takes a few round trips, and coarser
/// for later attempts. The highest ones follow from the pauses of 30 s, 2 min and 10 min between series.
const TIME_TO_DIRECT: [f64; 14] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 240.0, 1200.0,
];

p2pnode_daemon::metrics! {
    /// The node's metrics. Clones are the same.
    #[derive(Debug, Clone)]
    pub(crate) struct Metrics {
        peers: Family<PathLabels, Gauge> => "p2pnode_peers",
            "Connected peers by the best path: its kind, and transport and IP family of its first hop; relays not counted";
        punch: Family<PunchLabels, Counter> => "p2pnode_punch",
            "Attempts at a hole punch that have ended, on the side that counts; attempt is the place in a series of three";
        time_to_direct: Histogram = Histogram::new(TIME_TO_DIRECT) => "p2pnode_time_to_direct" in Seconds,
            "Time until the first direct connection to a peer. It counts from the request to dial the peer or from its introduction, else from the first connection of any kind. Measured on either side, once per peer until no connection to it is left";
        dials: Family<DialLabels, Counter> => "p2pnode_dials",
            "Addresses dialed, by what became of them, punches and relays included. An address that is dropped because another one of the same dial has connected is not counted";
        out_of_range: Counter<u64, AtomicU64> => "p2pnode_dials_out_of_range",
            "Dials that left from a port outside the range: always 0";
        refused: Family<RefusedLabels, Counter> => "p2pnode_refused",
            "Connections, handshakes and punches that were refused or ended early because of a limit, by the limit";
        path_changes: Family<ChangeLabels, Counter> => "p2pnode_path_changes",
            "Changes of the best path of a peer, from one connection to another or to none, by their kinds and the cause; relays not counted";
        reservations: Family<RelayLabels, Gauge> => "p2pnode_reservations",
            "Whether a reservation is held, by the relay's place in the configuration, from 0";
        key_shared: Gauge => "p2pnode_key_shared",
            "1 while another host is seen with the key of this node";
        closed_for_memory: Counter => "p2pnode_closed_for_memory",
            "Connections closed because too little was left of limits.memory, strangers first, of these the ones that held the most";
        listener_errors: Counter => "p2pnode_listener_errors",
            "Errors of listeners that go on, as when no file can be opened for a connection";
        nat: Family<NatLabels, Gauge> => "p2pnode_nat",
            "The NAT of a transport and IP family as the last netcheck of this node found it: 1";
        mappings: Mappings => registered;
        searches: Family<SearchLabels, Counter> => "p2pnode_port_searches",
            "Searches for a pair of ports that have ended, by how they ended";
        probes: Family<ProbeLabels, Counter> => "p2pnode_port_search_probes",
            "Probes of searches for ports: sent, received, and ignored because they were forged, reflected or replayed";
        pool: Pool => registered;
        sessions: SessionMetrics => registered;
    }
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.register_all(registry);
        for refused in Refused::ALL {
            let labels = RefusedLabels::from(refused);
            drop(self.refused.get_or_create(&labels));
        }
    }

    /// Those of sessions.
    pub(crate) fn sessions(&self) -> SessionMetrics {
        self.sessions.clone()
    }

    /// Where connections are counted that were closed because the process was above `limits.memory`.
    pub(crate) fn closed_for_memory(&self) -> Counter {
        self.closed_for_memory.clone()
    }

    /// Shows the ports of this transport from now on.
    pub(crate) fn watch(&self, sockets: &Handle) {
        self.pool.watch(sockets);
    }

    /// Sets the gauges.
    pub(crate) fn set(
        &self,
        peers: &PeerTable,
        relays: &RelayKeeper,
        claims: &[Claim],
        is_relay: impl Fn(&PeerId) -> bool,
    ) {
        self.mappings.set(claims);
        // Those without a peer, too: a series that vanishes is not one that is 0.
        let mut counts: HashMap<PathLabels, i64> =
            PathLabels::all().map(|labels| (labels, 0)).collect();
        for peer in peers.peers() {
            if is_relay(peer) {
                continue;
            }
            if let Some(path) = peers.best(peer).and_then(|id| peers.path(id)) {
                *counts.entry(PathLabels::of(&path)).or_default() += 1;
            }
        }
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
    }

    /// Whether another host uses the key of this node.
    pub(crate) fn set_key_shared(&self, is_shared: bool) {
        self.key_shared.set(i64::from(is_shared));
    }

    /// An attempt at a hole punch has ended.
    pub(crate) fn punch(&self, record: &Record) {
        self.punch.get_or_create(&PunchLabels::new(record)).inc();
    }

    /// A search for ports has ended.
    pub(crate) fn searched(&self, report: &SearchReport) {
        let outcome = Label::Is(report.outcome);
        let labels = SearchLabels { outcome };
        self.searches.get_or_create(&labels).inc();
        let counts = [
            ("sent", report.sent),
            ("received", report.received),
            ("ignored", report.ignored),
        ];
        for (what, count) in counts {
            let labels = ProbeLabels { what };
            self.probes.get_or_create(&labels).inc_by(count.into());
        }
    }

    /// A dial has made the connection with this path. `failed` are the addresses of the same dial that failed before.
    pub(crate) fn dialed(&self, path: &Path, failed: &[(Multiaddr, TransportError<io::Error>)]) {
        self.dials.get_or_create(&dials::connected(path)).inc();
        for (address, reason) in failed {
            let labels = dials::failed_address(address, reason);
            self.dials.get_or_create(&labels).inc();
        }
    }

    /// A dial has failed.
    pub(crate) fn dial_failed(&self, error: &DialError, circuit: CircuitFailure) {
        for labels in dials::failed(error, circuit) {
            self.dials.get_or_create(&labels).inc();
        }
    }

    /// A look at the network has found this.
    pub(crate) fn nat(&self, report: &Report) {
        self.nat.clear();
        for labels in report.checks.iter().filter_map(NatLabels::of) {
            self.nat.get_or_create(&labels).set(1);
        }
    }

    /// A dial left from outside the range. It never should.
    pub(crate) fn out_of_range(&self) {
        self.out_of_range.inc();
    }

    /// A connection was refused or ended early.
    pub(crate) fn refused(&self, refused: Refused) {
        self.refused.get_or_create(&refused.into()).inc();
    }

    /// A listener reported an error and goes on.
    pub(crate) fn listener_error(&self) {
        self.listener_errors.inc();
    }

    /// The best path of a peer has changed.
    pub(crate) fn path_changed(&self, change: &Change, cause: PathCause) {
        let labels = ChangeLabels::new(change.from, change.to, cause);
        self.path_changes.get_or_create(&labels).inc();
        if let Some(time) = change.time_to_direct {
            self.time_to_direct.observe(time.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
