//! QUIC datagrams ([RFC 9221](https://www.rfc-editor.org/rfc/rfc9221)) of direct connections.
//!
//! Every QUIC connection of a node takes datagrams off the wire at once. Those of peers that the owner has not admitted are
//! dropped there. Those of an admitted peer wait in a short queue of that peer, in which a newcomer displaces the oldest.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use libp2p::PeerId;

/// How many datagrams of one peer wait for the reader: 25 ms at 100 Mbit/s.
const WAITING: usize = 256;

/// The datagrams of all QUIC connections of a node. Cheap to clone; works from any thread.
#[derive(Clone, Default)]
pub struct Datagrams(Arc<Mutex<Registry>>);

/// A QUIC connection, as a carrier of datagrams. It does not keep the connection open.
#[derive(Clone)]
pub struct DatagramPath(Weak<dyn Carrier>);

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is longer than [`DatagramPath::max_size`].
    #[error("the datagram is longer than the path carries")]
    TooLong,
    /// The path takes less than is sent, and the datagram would wait for others.
    #[error("the path takes fewer datagrams than are sent")]
    Congested,
    /// The peer takes no datagrams.
    #[error("the peer takes no QUIC datagrams")]
    Unsupported,
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
}

/// A connection that carries datagrams.
pub(crate) trait Carrier: Send + Sync {
    fn remote(&self) -> SocketAddr;
    fn max_size(&self) -> Option<usize>;
    fn admits_on_stream(&self, length: usize) -> bool;
    fn send(&self, datagram: Bytes) -> Result<(), DatagramError>;
}

#[derive(Default)]
struct Registry {
    open: HashMap<PeerId, Vec<Weak<dyn Carrier>>>,
    /// The queues of admitted peers.
    queues: HashMap<PeerId, VecDeque<Bytes>>,
    /// The peers whose queue is not empty. The next one first.
    turns: VecDeque<PeerId>,
    reader: Option<Waker>,
    dropped: u64,
}

impl Datagrams {
    /// From now on datagrams of `peer` are kept for the reader. Until then, and after [`Self::exclude`], they are dropped.
    pub fn admit(&self, peer: PeerId) {
        self.lock().queues.entry(peer).or_default();
    }

    /// Datagrams of `peer` are dropped again, those that wait included.
    pub fn exclude(&self, peer: &PeerId) {
        let registry = &mut *self.lock();
        if registry
            .queues
            .remove(peer)
            .is_some_and(|queue| !queue.is_empty())
        {
            registry.turns.retain(|other| other != peer);
        }
    }

    /// The newest open QUIC connection with `peer` whose remote address is `remote`.
    #[must_use]
    pub fn path(&self, peer: &PeerId, remote: SocketAddr) -> Option<DatagramPath> {
        let registry = self.lock();
        let open = registry.open.get(peer)?.iter().rev();
        let mut open = open.filter(|path| path.upgrade().is_some_and(|c| c.remote() == remote));
        open.next().cloned().map(DatagramPath)
    }

    /// The next datagram of an admitted peer. Peers take turns. There is one reader at a time.
    pub async fn receive(&self) -> (PeerId, Bytes) {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// The same as a poll. The task of the last one is woken.
    pub fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<(PeerId, Bytes)> {
        let registry = &mut *self.lock();
        if let Some(received) = registry.pop() {
            return Poll::Ready(received);
        }
        match &mut registry.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => registry.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// How many datagrams were dropped because their peer was not admitted, or their queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Registers a connection of `peer`.
    pub(crate) fn opened<C: Carrier + 'static>(&self, peer: PeerId, carrier: &Arc<C>) {
        let carrier: Weak<C> = Arc::downgrade(carrier);
        let mut registry = self.lock();
        registry.open.entry(peer).or_default().push(carrier);
    }

    /// A connection of `peer` is gone.
    pub(crate) fn closed(&self, peer: &PeerId) {
        let mut registry = self.lock();
        if let Some(open) = registry.open.get_mut(peer) {
            open.retain(|carrier| carrier.strong_count() > 0);
            if open.is_empty() {
                registry.open.remove(peer);
            }
        }
    }

    /// A connection of `peer` has brought a datagram.
    pub(crate) fn received(&self, peer: &PeerId, datagram: Bytes) {
        let registry = &mut *self.lock();
        let Some(queue) = registry.queues.get_mut(peer) else {
            registry.dropped += 1;
            return;
        };
        if queue.is_empty() {
            registry.turns.push_back(*peer);
        } else if queue.len() == WAITING {
            queue.pop_front();
            registry.dropped += 1;
        }
        queue.push_back(datagram);
        if let Some(reader) = registry.reader.take() {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn pop(&mut self) -> Option<(PeerId, Bytes)> {
        let peer = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&peer)?;
        let datagram = queue.pop_front()?;
        if !queue.is_empty() {
            self.turns.push_back(peer);
        }
        Some((peer, datagram))
    }
}

impl DatagramPath {
    /// The most bytes of a datagram. `None` if the peer takes none, or the connection is closed. It changes as the connection
    /// learns what the path carries.
    #[must_use]
    pub fn max_size(&self) -> Option<usize> {
        self.0.upgrade()?.max_size()
    }

    /// Whether a datagram that is longer than [`Self::max_size`] may go on a stream of the connection now. If not, it would wait long
    /// for others.
    #[must_use]
    pub fn admits_on_stream(&self, length: usize) -> bool {
        let carrier = self.0.upgrade();
        carrier.is_none_or(|carrier| carrier.admits_on_stream(length))
    }

    /// Sends `datagram`, once and without a confirmation. A datagram that would wait long for others is not sent.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn send(&self, datagram: Bytes) -> Result<(), DatagramError> {
        let carrier = self.0.upgrade().ok_or(DatagramError::Closed)?;
        carrier.send(datagram)
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").finish_non_exhaustive()
    }
}

impl fmt::Debug for DatagramPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.0.upgrade().map(|carrier| carrier.remote());
        f.debug_struct("DatagramPath")
            .field("remote", &remote)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use futures::FutureExt as _;

    use super::*;

    fn datagram(number: usize) -> Bytes {
        Bytes::from(number.to_be_bytes().to_vec())
    }

    #[test]
    fn a_peer_that_floods_keeps_a_short_queue_and_its_turn_only() {
        let datagrams = Datagrams::default();
        let (flood, other) = (PeerId::random(), PeerId::random());
        datagrams.admit(flood);
        datagrams.admit(other);
        for number in 0..10_000 {
            datagrams.received(&flood, datagram(number));
        }
        datagrams.received(&other, datagram(7));
        let received: Vec<_> = std::iter::from_fn(|| datagrams.receive().now_or_never()).collect();
        assert_eq!(received.len(), WAITING + 1);
        assert_eq!(received[0], (flood, datagram(10_000 - WAITING)));
        assert_eq!(received[1], (other, datagram(7)), "its turn");
        assert_eq!(
            received.last().unwrap().1,
            datagram(9_999),
            "the newest are kept"
        );
        assert_eq!(datagrams.dropped(), 10_000 - WAITING as u64);
    }

    #[test]
    fn datagrams_of_a_peer_that_is_not_admitted_are_dropped() {
        let datagrams = Datagrams::default();
        let peer = PeerId::random();
        datagrams.received(&peer, datagram(1));
        datagrams.admit(peer);
        assert!(datagrams.receive().now_or_never().is_none());
        datagrams.received(&peer, datagram(2));
        datagrams.exclude(&peer);
        datagrams.received(&peer, datagram(3));
        assert!(datagrams.receive().now_or_never().is_none());
        assert_eq!(datagrams.dropped(), 2);
    }
}
