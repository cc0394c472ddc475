//! What others know of a session, and what they leave for its task.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures::task::AtomicWaker;
use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_services::{
    config::{RawProtocol, ServiceName, What},
    core::sessions::Key,
    wire::{Frame, ResetReason},
};
use p2pnode_transports::Transport;

use super::{
    carrier::Carrier,
    lines::{Sink, role},
};
use crate::{
    core::peers::PathKind,
    observe::metrics::{Bytes, SessionMetrics},
};

/// What counts under no service of the configuration.
pub(super) const OTHER: &str = "other";

/// The most streams that wait for a task: more than a session may have.
const MOST_ATTACHED: usize = 4;

/// A session.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) key: Key,
    /// The service. A raw stream that this node opens names none.
    pub(super) service: ServiceName,
    /// The protocol of a raw stream.
    pub(super) protocol: Option<RawProtocol>,
    /// The client, as its forward sees it.
    pub(super) client: Option<SocketAddr>,
    /// Bytes that came from the peer and are with the local socket.
    bytes_in: AtomicU64,
    /// Bytes that the local socket gave.
    bytes_out: AtomicU64,
    /// The metrics of both.
    counters: [Bytes; 2],
    /// The forward that it came by.
    pub(super) forward: Option<u64>,
    is_open: AtomicBool,
    /// Where its events go besides log and metrics.
    pub(super) sink: Option<Sink>,
    /// What carries it, or did last.
    on: Mutex<Option<On>>,
    mail: Mutex<Mail>,
    waker: AtomicWaker,
}

/// A connection that carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct On {
    pub(super) connection: ConnectionId,
    pub(super) kind: PathKind,
    pub(super) transport: Option<Transport>,
}

/// What is left for the task. Later news replaces earlier news, so it is bounded.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) better_path: bool,
    pub(super) rtt: Option<Duration>,
    pub(super) reset: Option<ResetReason>,
    /// The process that the peer is now.
    pub(super) peer_instance: Option<u64>,
    pub(super) unreachable: Option<String>,
    /// The connection that carried it has ended.
    pub(super) path_lost: bool,
    pub(super) attached: Vec<(Carrier, Frame)>,
}

impl Running {
    pub(super) fn new(
        key: Key,
        service: ServiceName,
        client: Option<SocketAddr>,
        forward: Option<u64>,
        sink: Option<Sink>,
        protocol: Option<RawProtocol>,
        metrics: &SessionMetrics,
    ) -> Self {
        let counters = metrics.bytes(role(key.role), counted(&service, protocol.as_ref()));
        Self {
            key,
            service,
            protocol,
            client,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            counters,
            forward,
            is_open: AtomicBool::new(false),
            sink,
            on: Mutex::new(None),
            mail: Mutex::new(Mail::default()),
            waker: AtomicWaker::new(),
        }
    }

    /// What it counts as in metrics.
    pub(super) fn counted(&self) -> &str {
        counted(&self.service, self.protocol.as_ref())
    }

    /// Where it leads to.
    pub(super) fn destination(&self) -> (What, PeerId) {
        let raw = self.protocol.clone().map(What::Raw);
        let what = raw.unwrap_or_else(|| What::Service(self.service.clone()));
        (what, self.key.peer)
    }

    /// What it reaches, as it is named in reports.
    pub(super) fn what(&self) -> String {
        let protocol = self.protocol.as_ref().map(ToString::to_string);
        protocol.unwrap_or_else(|| self.service.to_string())
    }

    /// Leaves something for the task.
    pub(super) fn leave(&self, write: impl FnOnce(&mut Mail)) {
        write(&mut lock(&self.mail));
        self.waker.wake();
    }

    /// A stream for it. Beyond what it may have they are dropped, and so reset.
    pub(super) fn attach(&self, carrier: Carrier, first: Frame) {
        self.leave(|mail| {
            if mail.attached.len() < MOST_ATTACHED {
                mail.attached.push((carrier, first));
            }
        });
    }

    /// The reset that was left and not taken yet.
    #[cfg(test)]
    pub(super) fn left_reset(&self) -> Option<ResetReason> {
        lock(&self.mail).reset
    }

    /// What was left. From now on the task of `cx` is woken.
    pub(super) fn take(&self, cx: &std::task::Context<'_>) -> Mail {
        self.waker.register(cx.waker());
        std::mem::take(&mut lock(&self.mail))
    }

    /// The same, once there is news of the path, or the session is to end.
    pub(super) async fn news(&self) -> Mail {
        poll_fn(|cx| {
            let mail = self.take(cx);
            let is_news = mail.better_path || mail.unreachable.is_some() || mail.reset.is_some();
            match is_news {
                true => Poll::Ready(mail),
                false => Poll::Pending,
            }
        })
        .await
    }

    pub(super) fn is_on(&self) -> Option<On> {
        *lock(&self.on)
    }

    /// It is carried by `to` now. Returns what carried it before.
    pub(super) fn moves(&self, to: On) -> Option<On> {
        lock(&self.on).replace(to)
    }

    /// Bytes from the peer are with the local socket.
    pub(super) fn came_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
        self.counters[0].inc_by(bytes as u64);
    }

    /// The local socket gave bytes.
    pub(super) fn went_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
        self.counters[1].inc_by(bytes as u64);
    }

    /// Whether it carries data, and has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Relaxed);
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }
}

/// Names of raw streams are a peer's word.
fn counted<'a>(service: &'a ServiceName, protocol: Option<&RawProtocol>) -> &'a str {
    match protocol {
        Some(_) => OTHER,
        None => service.as_str(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread left is still whole: nothing here is changed in steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
