//! Those who only look: stdout and the metrics.

use p2pnode_bin_shared::admin::Readiness;
use tokio::sync::mpsc;

use crate::{event::Event, metrics::Metrics, peers::PeerTable, readiness, relays::RelayKeeper};

/// Events that may wait for stdout's reader.
const EVENTS: usize = 1024;

/// Where events and gauges go.
#[derive(Debug)]
pub(crate) struct Observers {
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    readiness: Readiness,
    /// Whether the node listens publicly.
    listens: bool,
    /// Whether something happened since the gauges were last set.
    changed: bool,
    /// Events that were dropped since the last that was not.
    dropped: u64,
}

impl Observers {
    /// Observers, and the events as they come.
    pub(crate) fn new(
        metrics: Metrics,
        readiness: Readiness,
        listens: bool,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (
            Self {
                events,
                metrics,
                readiness,
                listens,
                changed: true,
                dropped: 0,
            },
            receiver,
        )
    }

    /// Tells an event. The event loop never waits: what a slow reader cannot take is dropped and counted.
    pub(crate) fn tell(&mut self, event: Event) {
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

    /// Something changed that no event tells of.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// Sets the gauges, if something happened since they were last set.
    pub(crate) fn gauges(
        &mut self,
        peers: &PeerTable,
        relays: &RelayKeeper,
        sockets: &p2pnode_transports::Handle,
    ) {
        if std::mem::take(&mut self.changed) {
            self.metrics.set(peers, relays, sockets);
            readiness::update(&self.readiness, sockets, relays, self.listens);
        }
    }

    /// A dial left from outside the range. It never should.
    pub(crate) fn out_of_range(&self) {
        self.metrics.out_of_range();
    }
}
