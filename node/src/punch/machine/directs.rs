//! The direct connections of one peer, and which of them lives.

use std::time::Instant;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::Transport;

use super::{Established, Timing};

/// The direct connections of one peer that this node has not asked to close.
#[derive(Debug, Default)]
pub(super) struct Directs {
    live: Vec<Direct>,
    /// When the peer became direct.
    since: Option<Instant>,
    /// When it last got a second connection.
    surplus_since: Option<Instant>,
    newest: Option<Instant>,
}

#[derive(Debug)]
struct Direct {
    connection: ConnectionId,
    dialed: bool,
    transport: Option<Transport>,
}

impl Directs {
    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Adds a connection; `true` if it is the first.
    pub(super) fn add(&mut self, established: Established, now: Instant) -> bool {
        self.live.push(Direct {
            connection: established.connection,
            dialed: established.dialed,
            transport: established.remote.map(|candidate| candidate.transport),
        });
        self.newest = Some(now);
        if self.live.len() == 2 {
            self.surplus_since = Some(now);
        }
        self.since.get_or_insert(now);
        self.live.len() == 1
    }

    /// Removes a connection; `true` if it was the last.
    pub(super) fn remove(&mut self, connection: ConnectionId) -> bool {
        let before = self.live.len();
        self.live.retain(|direct| direct.connection != connection);
        if self.live.len() < 2 {
            self.surplus_since = None;
        }
        if self.live.is_empty() {
            self.since = None;
        }
        before != 0 && self.live.is_empty()
    }

    /// Whether there are connections from both sides: the mark of two dials that crossed.
    pub(super) fn is_crossed(&self) -> bool {
        self.live.iter().any(|d| d.dialed) && self.live.iter().any(|d| !d.dialed)
    }

    /// When a surplus is to be closed.
    pub(super) fn surplus_due(&self, decides: bool, timing: &Timing) -> Option<Instant> {
        let since = self.surplus_since?;
        let newest = self.newest.unwrap_or(since);
        Some(if decides {
            (newest + timing.surplus_quiet).min(since + timing.surplus_limit)
        } else {
            since + timing.surplus_fallback
        })
    }

    /// Takes out all but the best.
    ///
    /// The best is QUIC before TCP before one whose address names no transport; of equals the oldest.
    pub(super) fn take_surplus(&mut self) -> Vec<ConnectionId> {
        let rank = |direct: &Direct| match direct.transport {
            Some(Transport::Quic) => 0,
            Some(Transport::Tcp) => 1,
            None => 2,
        };
        let Some(best) = self
            .live
            .iter()
            .min_by_key(|d| rank(d))
            .map(|d| d.connection)
        else {
            return Vec::new();
        };
        let (kept, surplus): (Vec<_>, Vec<_>) =
            self.live.drain(..).partition(|d| d.connection == best);
        self.live = kept;
        self.surplus_since = None;
        surplus.into_iter().map(|d| d.connection).collect()
    }
}

/// Whether this side closes the surplus: the one with the smaller peer id.
pub(super) fn decides(local: PeerId, remote: PeerId) -> bool {
    local.to_bytes() < remote.to_bytes()
}
