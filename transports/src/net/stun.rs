//! STUN from the punch sockets of QUIC: requests leave from them, and answers find who waits for them.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use p2pnode_protocol::{
    Family,
    port_search::PROBE,
    stun::{Message, Transaction},
};
use tokio::sync::{mpsc, oneshot};

use crate::net::stun_socket::{Received, StunHandler, StunSocket, WeakStunSocket};

/// What came for a transaction: the answer, or the request itself where a NAT has sent it back.
#[derive(Debug, Clone)]
pub struct StunAnswer {
    /// The message.
    pub message: Message,
    /// Where it came from.
    pub remote: SocketAddr,
    /// When.
    pub at: Instant,
}

/// The transactions that are waited for, and the sockets.
#[derive(Debug, Default)]
pub struct StunClient(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sockets: BTreeMap<Family, WeakStunSocket>,
    waiting: HashMap<Transaction, oneshot::Sender<StunAnswer>>,
    /// Where probes of a search for ports go, as long as one runs.
    probes: Option<mpsc::Sender<(SocketAddr, [u8; PROBE])>>,
}

/// Probes that wait to be read. More of them are dropped.
const PROBES: usize = 64;

/// Waits for what comes for a transaction.
#[derive(Debug)]
pub struct Expected<'a> {
    client: &'a StunClient,
    transaction: Transaction,
    answer: oneshot::Receiver<StunAnswer>,
}

impl StunClient {
    /// From now on what comes for this transaction is kept.
    pub fn expect(&self, transaction: Transaction) -> Expected<'_> {
        let (sender, answer) = oneshot::channel();
        self.lock().waiting.insert(transaction, sender);
        Expected {
            client: self,
            transaction,
            answer,
        }
    }

    /// From now on probes that come to the punch sockets come here, until this is dropped or called again.
    pub fn probes(&self) -> mpsc::Receiver<(SocketAddr, [u8; PROBE])> {
        let (sender, receiver) = mpsc::channel(PROBES);
        self.lock().probes = Some(sender);
        receiver
    }

    /// Sends a datagram from the punch socket of the family of `to`.
    ///
    /// # Errors
    ///
    /// `NotConnected` without such a socket, and what the system says.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = self.lock().sockets.get(&Family::from(to.ip())).cloned();
        let socket = socket.and_then(|socket| socket.upgrade());
        socket
            .ok_or(io::ErrorKind::NotConnected)?
            .send(bytes, to, None)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected<'_> {
    /// What came. May be called again after it was dropped before it was ready.
    pub async fn answer(&mut self) -> Option<StunAnswer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.client.lock().waiting.remove(&self.transaction);
    }
}

impl StunHandler for StunClient {
    fn bound(&self, socket: &StunSocket) {
        if let Ok(local) = socket.local_addr() {
            let mut inner = self.lock();
            inner.sockets.insert(local.ip().into(), socket.downgrade());
        }
    }

    fn probe(&self, received: Received<'_>) {
        let Ok(probe) = received.bytes.try_into() else {
            return;
        };
        // An error means that nobody searches, or that probes come faster than they are read.
        let _ = match &self.lock().probes {
            Some(probes) => probes.try_send((received.remote, probe)).is_ok(),
            None => false,
        };
    }

    fn datagram(&self, _: &StunSocket, received: Received<'_>) {
        let Ok(message) = Message::decode(received.bytes) else {
            return;
        };
        let waiting = self.lock().waiting.remove(&message.transaction);
        if let Some(waiting) = waiting {
            let answer = StunAnswer {
                message,
                remote: received.remote,
                at: Instant::now(),
            };
            // An error means that nobody waits any more.
            drop(waiting.send(answer));
        }
    }
}
