//! STUN at the punch sockets: requests leave from those of QUIC, and what comes to any of them finds the task that waits for it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use p2pnode_protocol::{
    Family,
    port_search::PROBE,
    stun::{HEADER, LARGEST, Message, Transaction},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Duration, timeout},
};

use crate::net::stun_socket::{Received, StunHandler, StunSocket, WeakStunSocket};

/// How long a connection that begins like STUN has for its message.
const MESSAGE: Duration = Duration::from_secs(2);

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
pub struct StunClient(Arc<Mutex<Inner>>);

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

    /// Whether something is waited for.
    pub fn is_awaited(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// A message came from `remote`. Whether it was waited for.
    pub fn came(&self, message: Message, remote: SocketAddr) -> bool {
        self.lock().came(message, remote)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn came(&mut self, message: Message, remote: SocketAddr) -> bool {
        let Some(waiting) = self.waiting.remove(&message.transaction) else {
            return false;
        };
        let answer = StunAnswer {
            message,
            remote,
            at: Instant::now(),
        };
        // An error means that the task no longer waits.
        waiting.send(answer).is_ok()
    }
}

/// Reads one message from a stream.
///
/// # Errors
///
/// What the system says, and `Other` for what is no message.
pub async fn read_stun(stream: &mut TcpStream) -> io::Result<Message> {
    let mut buffer = [0; LARGEST];
    stream.read_exact(&mut buffer[..HEADER]).await?;
    let length = HEADER + usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
    let rest = buffer.get_mut(HEADER..length);
    let rest = rest.ok_or_else(|| io::Error::other("the message is too long"))?;
    stream.read_exact(rest).await?;
    Message::decode(&buffer[..length]).map_err(io::Error::other)
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
        self.came(message, received.remote);
    }

    fn stream(&self, mut stream: TcpStream) {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let remote = stream.peer_addr();
            let message = timeout(MESSAGE, read_stun(&mut stream)).await;
            if let (Ok(remote), Ok(Ok(message))) = (remote, message) {
                let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
                inner.came(message, remote);
            }
        });
    }
}
