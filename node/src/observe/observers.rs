//! The observers of the event loop: stdout, metrics and readiness.

use std::{io, time::Instant};

use libp2p::{
    Multiaddr, PeerId, TransportError,
    swarm::{ConnectionId, DialError},
};
use p2pnode_daemon::admin::Readiness;
use tokio::sync::mpsc;

use crate::{
    core::{
        admission::Refused,
        dialer::CircuitFailure,
        event::Event,
        mappings::Claim,
        peers::{Path, PathCause, PathKind, PeerTable},
        port_search::SearchReport,
        relays::RelayKeeper,
    },
    observe::{
        metrics::{Metrics, PathWatch},
        readiness,
    },
    punch::Record,
};

/// Events that may wait for stdout's reader.
const EVENTS: usize = 1024;

/// Where events and gauges go.
#[derive(Debug)]
pub(crate) struct Observers {
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    paths: PathWatch,
    readiness: Readiness,
    /// Whether something happened since the gauges were last set.
    changed: bool,
    /// Events that were dropped since the last that was not.
    dropped: u64,
}

impl Observers {
    /// Observers, and the events as they come.
    pub(crate) fn new(metrics: Metrics, readiness: Readiness) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (
            Self {
                events,
                metrics,
                paths: PathWatch::default(),
                readiness,
                changed: true,
                dropped: 0,
            },
            receiver,
        )
    }

    /// The metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Emits an event. The event loop never waits: events that a slow reader cannot take are dropped and counted.
    pub(crate) fn emit(&mut self, event: Event) {
        self.changed = true;
        match self.events.try_send(event) {
            Ok(()) if self.dropped > 0 => {
                tracing::warn!(
                    dropped = self.dropped,
                    "events were dropped: the reader of stdout was too slow"
                );
                self.dropped = 0;
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.dropped += 1,
        }
    }

    /// Sets the gauges, if something happened since they were last set. `listens`: whether the node listens publicly, `is_relay`
    /// which peers are relays.
    pub(crate) fn gauges(
        &mut self,
        peers: &PeerTable,
        relays: &RelayKeeper,
        claims: &[Claim],
        sockets: &p2pnode_transports::Handle,
        listens: bool,
        is_relay: impl Fn(&PeerId) -> bool,
    ) {
        if std::mem::take(&mut self.changed) {
            self.metrics.set(peers, relays, claims, is_relay);
            readiness::update(&self.readiness, sockets, relays, listens);
        }
    }

    /// A gauge may have changed without an event.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// The node shuts down and takes no further work.
    pub(crate) fn stopping(&self) {
        readiness::stopping(&self.readiness);
    }

    /// A dial asks for a peer.
    pub(crate) fn wanted(&mut self, peer: PeerId, now: Instant) {
        self.paths.wanted(peer, now);
    }

    /// No dial asks for a peer any more.
    pub(crate) fn unwanted(&mut self, peer: &PeerId) {
        self.paths.unwanted(peer);
    }

    /// What the best path of a peer is after something happened to one of its connections.
    pub(crate) fn best_path(
        &mut self,
        peer: PeerId,
        best: Option<(ConnectionId, PathKind)>,
        cause: PathCause,
        now: Instant,
    ) {
        if let Some(change) = self.paths.best(peer, best, now) {
            self.changed = true;
            self.metrics.path_changed(&change, cause);
        }
    }

    /// An attempt at a hole punch has ended.
    pub(crate) fn punch(&self, record: &Record) {
        self.metrics.punch(record);
    }

    /// A search for ports has ended.
    pub(crate) fn searched(&self, report: &SearchReport) {
        self.metrics.searched(report);
    }

    /// A dial has made the connection with this path, after other addresses of it had failed.
    pub(crate) fn dialed(&self, path: &Path, failed: &[(Multiaddr, TransportError<io::Error>)]) {
        self.metrics.dialed(path, failed);
    }

    /// A dial has failed.
    pub(crate) fn dial_failed(&mut self, error: &DialError, circuit: CircuitFailure) {
        self.changed = true;
        self.metrics.dial_failed(error, circuit);
    }

    /// A connection was refused or ended early.
    pub(crate) fn refused(&self, refused: Refused) {
        self.metrics.refused(refused);
    }

    /// A listener reported an error.
    pub(crate) fn listener_error(&self) {
        self.metrics.listener_error();
    }

    /// A dial left from outside the range. It never should.
    pub(crate) fn out_of_range(&self) {
        self.metrics.out_of_range();
    }
}
