//! What a remote can ask for, and how often.

use std::time::Duration;

use p2pnode_daemon::limiter::Measure;

p2pnode_protocol::named! {
    /// What a remote can ask for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Request {
        /// A stream of the circuit relay protocol, whatever is sent on it.
        CircuitStream,
        /// A reservation, or its renewal.
        Reserve,
        /// A circuit.
        Connect,
        /// The other leg of a circuit.
        Hop,
        /// An introduction.
        Introduction,
        /// A nonce to a port of the peer.
        Probe,
        /// A dial of an address of the peer.
        Autonat,
        /// Admission by a token.
        Join,
        /// Any message of the directory.
        Directory,
        /// A record to keep: its signature is checked.
        Record,
        /// Identify, or an identify push.
        Identify,
        /// A notice that the peer drains.
        Draining,
        /// A request that is malformed.
        Malformed,
    }
}

/// The measure of a request.
pub(super) struct Terms {
    /// Requests of a peer at once.
    burst: u32,
    /// Requests of a peer in a second after that.
    per_second: u32,
    /// Requests of a peer that starts: one for each of four connections, and again for one that was lost meanwhile.
    pub(super) start: u32,
}

impl Request {
    pub(super) fn terms(self) -> Terms {
        let (burst, per_second, start) = match self {
            Self::CircuitStream => (1280, 32, 12),
            Self::Reserve => (32, 1, 8),
            // A peer that calls every peer of a large fleet, each with a lookup and an introduction.
            Self::Connect => (1024, 16, 8),
            // Its stream and its messages count.
            Self::Directory => (2048, 32, 16),
            // Also every 30 s for each circuit.
            Self::Hop => (1024, 34, 4),
            Self::Introduction => (1024, 16, 4),
            // Each mapping every 15 s, and some times more often while it fails.
            Self::Probe => (64, 4, 8),
            // Each is a handshake: a peer asks when its addresses change.
            Self::Autonat => (16, 1, 4),
            Self::Join => (32, 1, 8),
            Self::Record => (32, 1, 4),
            Self::Identify => (64, 4, 16),
            Self::Draining => (8, 1, 1),
            Self::Malformed => (64, 1, 1),
        };
        Terms {
            burst,
            per_second,
            start,
        }
    }

    pub(super) fn of_peer(self) -> Measure {
        let Terms {
            burst, per_second, ..
        } = self.terms();
        let period = Duration::from_secs(1) / per_second;
        Measure { burst, period }
    }

    /// For a source with that many times `peers`; `None` is no limit.
    pub(super) fn of_source(self, peers: usize, weight: u32) -> Option<Measure> {
        if peers == 0 {
            return None;
        }
        let Terms { burst, start, .. } = self.terms();
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        let burst = peers
            .saturating_mul(start)
            .max(PEERS * burst)
            .saturating_mul(weight);
        let period = (RESTART / burst).max(Duration::from_nanos(1));
        Some(Measure { burst, period })
    }
}

/// A source may have this many peers that use all of theirs, however few its limit says.
const PEERS: u32 = 4;

/// In this time all peers of a source may start once.
const RESTART: Duration = Duration::from_secs(60);
