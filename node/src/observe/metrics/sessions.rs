//! Sessions of services. The names of services come from the configuration and from commands; beyond [`NAMES`] they are `other`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use p2pnode_services::wire::socks::Refused;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::labels::Label;
use crate::core::peers::PathKind;

/// The most names of services.
const NAMES: usize = 256;

/// Upper bounds of pauses, in seconds: a round trip, the time in which a lost path is noticed, and `sessions.linger`.
const PAUSES: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0, 60.0,
];

/// A counter of bytes.
pub(crate) type Bytes = Counter<u64, AtomicU64>;

p2pnode_daemon::metrics! {
    /// The metrics of sessions. Clones are the same.
    #[derive(Debug, Clone)]
    pub(crate) struct SessionMetrics {
        open: Family<SessionLabels, Gauge> => "p2pnode_sessions",
            "Sessions of services that are open, by the path that carries them, or carried them last";
        opens: Family<OpenLabels, Counter> => "p2pnode_session_opens", "Sessions by how their opening ended";
        bytes: Family<ByteLabels, Bytes> => "p2pnode_session_bytes",
            "Bytes of sessions: in from peers to local sockets, out from local sockets";
        moves: Family<MoveLabels, Counter> => "p2pnode_session_moves",
            "Sessions that went on on another path: moved without a pause, resumed after one, lost for want of a path in time";
        pause: Histogram = Histogram::new(PAUSES) => "p2pnode_session_pause" in Seconds,
            "How long sessions that were resumed had no path";
        violations: Family<ViolationLabels, Counter> => "p2pnode_session_violations",
            "What peers did on streams of services that they may not. offset: data where none can be. confirmation: of what was never \
             sent. order: a frame out of place. frame: an invalid one. resume: of a session that this node does not know as the peer's, \
             as after a restart. silent: no first frame. header: a datagram that \
             begins as a header of the PROXY protocol, at a service that writes it";
        socks_refused: Family<RefusedLabels, Counter> => "p2pnode_socks_refused",
            "Clients of the SOCKS5 server that were not served, whatever they wanted. socks4, http, other: what they speak. \
             authentication: they offer no way without it. silent: they did not ask in time";
        datagrams_dropped: Counter => "p2pnode_session_datagrams_dropped",
            "Datagrams of UDP services that were dropped: the path took fewer than were sent, or their client has no flow since its peer refuses";
        quic_datagrams: Counter => "p2pnode_session_quic_datagrams",
            "Datagrams of UDP services that left as QUIC datagrams. The others went on streams";
        names: Arc<Mutex<BTreeSet<String>>> => unregistered;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SessionLabels {
    role: &'static str,
    service: String,
    kind: Label<PathKind>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpenLabels {
    role: &'static str,
    service: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByteLabels {
    role: &'static str,
    service: String,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MoveLabels {
    from: Label<PathKind>,
    to: Label<PathKind>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViolationLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

impl SessionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_all(registry);
    }

    /// The path took fewer datagrams than were sent, or a client has no flow.
    pub(crate) fn datagram_dropped(&self) {
        self.datagrams_dropped.inc();
    }

    /// One left as a QUIC datagram.
    pub(crate) fn quic_datagram(&self) {
        self.quic_datagrams.inc();
    }

    /// A peer broke the protocol.
    pub(crate) fn violation(&self, kind: &'static str) {
        self.violations
            .get_or_create(&ViolationLabels { kind })
            .inc();
    }

    /// A client of the SOCKS5 server was not served.
    pub(crate) fn socks_refused(&self, refused: Refused) {
        let reason = refused.as_str();
        let labels = RefusedLabels { reason };
        self.socks_refused.get_or_create(&labels).inc();
    }

    #[cfg(test)]
    pub(crate) fn violations(&self, kind: &'static str) -> u64 {
        self.violations
            .get_or_create(&ViolationLabels { kind })
            .get()
    }

    /// The counters of bytes of a service: in, out.
    pub(crate) fn bytes(&self, role: &'static str, service: &str) -> [Bytes; 2] {
        let service = self.name(service);
        ["in", "out"].map(|direction| {
            let labels = ByteLabels {
                role,
                service: service.clone(),
                direction,
            };
            self.bytes.get_or_create(&labels).clone()
        })
    }

    /// An attempt to open a session has ended: `opened`, `refused` or `failed`.
    pub(crate) fn opening(&self, role: &'static str, service: &str, outcome: &'static str) {
        let service = self.name(service);
        let labels = OpenLabels {
            role,
            service,
            outcome,
        };
        self.opens.get_or_create(&labels).inc();
    }

    /// A session that is open is on a path of this kind now.
    pub(crate) fn on(&self, role: &'static str, service: &str, kind: Option<PathKind>) {
        self.gauge(role, service, kind).inc();
    }

    /// It is on a path of this kind no longer.
    pub(crate) fn off(&self, role: &'static str, service: &str, kind: Option<PathKind>) {
        self.gauge(role, service, kind).dec();
    }

    /// A session has another path, or has ended for want of one.
    pub(crate) fn moved(
        &self,
        from: Option<PathKind>,
        to: Option<PathKind>,
        outcome: &'static str,
        pause: Option<Duration>,
    ) {
        let (from, to) = (Label::known(from), Label::any(to));
        self.moves
            .get_or_create(&MoveLabels { from, to, outcome })
            .inc();
        if let Some(pause) = pause {
            self.pause.observe(pause.as_secs_f64());
        }
    }

    fn gauge(&self, role: &'static str, service: &str, kind: Option<PathKind>) -> Gauge {
        let labels = SessionLabels {
            role,
            service: self.name(service),
            kind: Label::known(kind),
        };
        self.open.get_or_create(&labels).clone()
    }

    fn name(&self, service: &str) -> String {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(service) || names.len() < NAMES {
            names.insert(service.to_owned());
            return service.to_owned();
        }
        "other".to_owned()
    }
}
