//! First flights to addresses of which nobody vouches that a peer is there.
//!
//! A peer may list a third party's address. Such an address gets the first flight of a dial. Until a datagram comes from there,
//! everything else is dropped on its way out: repetitions, and the close of a dial that timed out.

use std::{
    collections::HashMap,
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use crate::net::{
    budget::Budgets,
    punches::{Punches, Remote},
};

/// How long an address is restrained: longer than a dial takes and quinn may keep what it closed.
const LASTS: Duration = Duration::from_secs(60);

/// The most addresses that are restrained. Beyond that an address gets no packet at all.
const ADDRESSES: usize = 4096;

/// The addresses that get no more than a first flight.
#[derive(Default)]
pub(super) struct Restraint {
    /// Who has come to be vouched for since the dial.
    punches: Arc<Punches>,
    table: Mutex<HashMap<(IpAddr, u16), Restrained>>,
    /// How many they are, so that no datagram waits for the lock while there are none.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Restrained {
    /// Datagrams that may still leave: a first flight is one.
    left: usize,
    until: Instant,
}

impl Restraint {
    pub(super) fn new(punches: Arc<Punches>) -> Self {
        Self {
            punches,
            ..Self::default()
        }
    }

    /// From now on `remote` gets one flight. `false` if there are too many such addresses.
    pub(super) fn restrain(&self, remote: SocketAddr, now: Instant) -> bool {
        let mut table = self.table();
        if table.len() >= ADDRESSES {
            table.retain(|_, restrained| restrained.until > now);
        }
        let fits = table.len() < ADDRESSES;
        if fits {
            let until = now + LASTS;
            table.insert(key(remote), Restrained { left: 1, until });
        }
        self.count.store(table.len(), Ordering::Release);
        fits
    }

    /// A datagram came from `remote`, or somebody vouches for it.
    pub(super) fn lift(&self, remote: SocketAddr) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut table = self.table();
            table.remove(&key(remote));
            self.count.store(table.len(), Ordering::Release);
        }
    }

    /// Whether packets may go to `remote`.
    fn admits(&self, remote: SocketAddr) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let has_left = |restrained: &Restrained| restrained.left > 0;
        if self.table().get(&key(remote)).is_none_or(has_left) {
            return true;
        }
        let known = self.punches.is_expected_over_quic(remote);
        let is_vouched = known.is_some_and(|known| known != Remote::Unvouched);
        if is_vouched {
            self.lift(remote);
        }
        is_vouched
    }

    /// Datagrams have left for `remote`.
    fn sent(&self, remote: SocketAddr, datagrams: usize) {
        if self.count.load(Ordering::Acquire) > 0
            && let Some(restrained) = self.table().get_mut(&key(remote))
        {
            restrained.left = restrained.left.saturating_sub(datagrams);
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<(IpAddr, u16), Restrained>> {
        // Nothing panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flow label and scope of an IPv6 socket address do not identify the remote.
fn key(remote: SocketAddr) -> (IpAddr, u16) {
    (remote.ip(), remote.port())
}

/// A socket below which the restraint holds, and which drops what there is no memory for.
pub(super) struct RestrainedSocket {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    pub(super) restraint: Arc<Restraint>,
    pub(super) budgets: Budgets,
}

impl fmt::Debug for RestrainedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for RestrainedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.restraint.admits(transmit.destination) {
            return Ok(());
        }
        self.socket.try_send(transmit)?;
        let datagrams = transmit
            .segment_size
            .map_or(1, |size| transmit.contents.len().div_ceil(size.max(1)));
        self.restraint.sent(transmit.destination, datagrams);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for meta in &mut meta[..received] {
            if self.budgets.drops(meta.addr, meta.len) {
                meta.len = 0;
            }
        }
        if self.restraint.count.load(Ordering::Acquire) > 0 {
            for meta in &meta[..received] {
                self.restraint.lift(meta.addr);
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_one_flight_until_something_comes_from_it() {
        let (restraint, now) = (Restraint::default(), Instant::now());
        let remote = SocketAddr::from(([203, 0, 113, 1], 5000));
        let other = SocketAddr::from(([203, 0, 113, 1], 5001));
        assert!(restraint.admits(remote) && restraint.admits(remote));
        assert!(restraint.restrain(remote, now));
        // A datagram that the socket did not take has not left.
        assert!(restraint.admits(remote) && restraint.admits(remote));
        restraint.sent(remote, 1);
        assert!(!restraint.admits(remote));
        assert!(restraint.admits(other) && restraint.admits(other));
        restraint.lift(remote);
        assert!(restraint.admits(remote) && restraint.admits(remote));
    }

    #[test]
    fn an_address_that_somebody_comes_to_vouch_for_is_restrained_no_longer() {
        let punches = Arc::<Punches>::default();
        let restraint = Restraint::new(Arc::clone(&punches));
        let remote = SocketAddr::from(([203, 0, 113, 1], 5000));
        assert!(restraint.restrain(remote, Instant::now()));
        restraint.sent(remote, 1);
        let expect = |known| Punches::expect(&punches, Vec::new(), vec![remote], known);
        let _unvouched = expect(Remote::Unvouched);
        assert!(!restraint.admits(remote));
        let _vouched = expect(Remote::Unknown);
        assert!(restraint.admits(remote));
        restraint.sent(remote, 1);
        assert!(restraint.admits(remote));
    }

    #[test]
    fn addresses_beyond_the_limit_are_refused_until_others_expire() {
        let (restraint, now) = (Restraint::default(), Instant::now());
        let remote = |port: usize| {
            let port = u16::try_from(port).expect("a port");
            SocketAddr::from(([203, 0, 113, 1], port))
        };
        assert!((0..ADDRESSES).all(|port| restraint.restrain(remote(port), now)));
        assert!(!restraint.restrain(remote(ADDRESSES), now));
        assert!(restraint.restrain(remote(ADDRESSES), now + LASTS));
    }
}
