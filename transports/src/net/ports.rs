//! The ports of a running node: the pool, the punch ports, and the claims that sockets hold on them.

use p2pnode_protocol::{Family, Transport};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::UdpSocket,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::net::{
    alternatives::Alternatives,
    files::explained,
    holder::{self, HeldBy, Holder},
    pool::{Exhausted, PoolCounts, PortPool},
    range::PortRange,
    sock_diag, socket,
};

/// How long a port is left alone after another program was found on it. Long enough that a dial does not try a large range again,
/// short enough that a freed port is used soon.
const TAKEN: Duration = Duration::from_secs(5);

/// How long the kernel keeps the 4-tuple of a connection that this side closed (TIME_WAIT, fixed on Linux).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// How long closing takes if the 4-tuple can be used again in TIME_WAIT: the exchange of the last segments.
const CLOSING: Duration = Duration::from_secs(1);

/// How many holders an [`Exhausted`] names: what fits in a line.
const NAMED: usize = 3;

/// The shortest interval of looking up the holders: that reads all of `/proc`, and a node without ports dials often.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// How far from a port another one still stands for it.
const NEAR: u16 = 8;

pub(crate) struct Ports {
    range: PortRange,
    inner: Mutex<Inner>,
}

struct Inner {
    pool: PortPool,
    punch: BTreeMap<(Transport, Family), u16>,
    alternatives: BTreeMap<(Transport, Family), Alternatives>,
    exhausted: BTreeMap<(Transport, Family), (Instant, Exhausted)>,
    /// What locks the number of a TCP punch port that the punch port of QUIC has left.
    locks: BTreeMap<Family, (u16, UdpSocket)>,
}

/// Why a socket could not be opened. `socket` is its transport: TCP takes a UDP socket as a lock as well.
pub(crate) struct OpenError {
    pub(crate) socket: Transport,
    pub(crate) error: io::Error,
}

/// Why there is no punch socket.
#[derive(Debug)]
pub(crate) enum NoPort {
    /// No port of the range could be bound.
    Exhausted(Exhausted),
    /// The host lacks the family, or forbids the socket.
    NoSocket {
        transport: Transport,
        family: Family,
        reason: String,
    },
}

/// A port that could not be had: the transport of the socket, the number, and why.
type Failed = (Transport, u16, io::Error);

impl Ports {
    pub(crate) fn new(range: PortRange, seed: &[u8]) -> Arc<Self> {
        let inner = Inner {
            pool: PortPool::new(range, seed),
            punch: BTreeMap::new(),
            alternatives: BTreeMap::new(),
            exhausted: BTreeMap::new(),
            locks: BTreeMap::new(),
        };
        Arc::new(Self {
            range,
            inner: Mutex::new(inner),
        })
    }

    pub(crate) const fn range(&self) -> PortRange {
        self.range
    }

    pub(crate) fn punch_ports(&self) -> BTreeMap<(Transport, Family), u16> {
        self.lock().punch.clone()
    }

    pub(crate) fn punch_port(&self, transport: Transport, family: Family) -> Option<u16> {
        self.lock().punch.get(&(transport, family)).copied()
    }

    pub(crate) fn counts(&self) -> PoolCounts {
        self.lock().pool.counts(Instant::now())
    }

    /// How long until a cooling port is free.
    pub(crate) fn next_free_in(&self) -> Option<Duration> {
        self.lock().pool.next_free_in(Instant::now())
    }

    pub(crate) fn exhausted(&self) -> Option<Exhausted> {
        self.lock()
            .exhausted
            .values()
            .next()
            .map(|(_, exhausted)| exhausted.clone())
    }

    /// The exhaustion of a transport and family that has no punch socket for it.
    pub(crate) fn unbound(&self) -> Option<Exhausted> {
        let inner = self.lock();
        let mut exhausted = inner.exhausted.iter();
        let (_, (_, exhausted)) =
            exhausted.find(|(socket, _)| !inner.punch.contains_key(socket))?;
        Some(exhausted.clone())
    }

    /// The same of one transport and family.
    pub(crate) fn unbound_for(&self, transport: Transport, family: Family) -> Option<Exhausted> {
        let (inner, of) = (self.lock(), (transport, family));
        let (_, exhausted) = inner.exhausted.get(&of)?;
        (!inner.punch.contains_key(&of)).then(|| exhausted.clone())
    }

    /// Opens a punch socket on a port of the range: the number of another punch socket if possible, so that one pinhole in a
    /// firewall serves all; otherwise the first that can be bound. Ports of which the kernel still ends a connection come
    /// last. If it leads to a relay, the connection to that relay would need another port.
    pub(crate) fn open<T>(
        self: &Arc<Self>,
        transport: Transport,
        family: Family,
        mut open: impl FnMut(u16) -> Result<T, OpenError>,
    ) -> Result<(PunchClaim, T), NoPort> {
        let (shared, candidates) = {
            let inner = self.lock();
            let shared: BTreeSet<u16> = inner.punch.values().copied().collect();
            // Also those that cool: to bind is the proof.
            (shared, inner.pool.candidates(Instant::now()))
        };
        let idle = candidates
            .iter()
            .copied()
            .filter(|port| !sock_diag::is_held(*port));
        let candidates = shared
            .into_iter()
            .chain(idle)
            .chain(candidates.iter().copied());
        let mut failed: Vec<Failed> = Vec::new();
        for port in candidates {
            if failed.iter().any(|(_, tried, _)| *tried == port) {
                continue;
            }
            match open(port) {
                Ok(opened) => {
                    let claim = self.claim_port(port);
                    self.lock().punch.insert((transport, family), port);
                    self.succeeded(transport, family);
                    let claim = PunchClaim {
                        claim,
                        transport,
                        family,
                    };
                    return Ok((claim, opened));
                }
                Err(OpenError { socket, error }) if is_about_the_port(&error) => {
                    failed.push((socket, port, error))
                }
                Err(OpenError { error, .. }) => {
                    return Err(NoPort::NoSocket {
                        transport,
                        family,
                        reason: explained(error).to_string(),
                    });
                }
            }
        }
        Err(NoPort::Exhausted(self.exhaust(transport, family, failed)))
    }

    /// A port of the range for one connection. Nothing else of this node uses it, and the number is locked as long as the lease
    /// lives.
    pub(crate) fn lease(self: &Arc<Self>, family: Family) -> Result<Lease, Exhausted> {
        self.lease_beside(&[], family)
    }

    /// The same; one of the `held` ports only if no other is free.
    pub(crate) fn lease_beside(
        self: &Arc<Self>,
        held: &[u16],
        family: Family,
    ) -> Result<Lease, Exhausted> {
        match self.lock_free_port(family, |inner, now| inner.pool.claim_beside(held, now).ok()) {
            Ok((claim, lock)) => Ok(Lease { claim, lock }),
            Err(failed) => Err(self.exhaust(Transport::Tcp, family, failed)),
        }
    }

    /// A port of the range to try in place of the punch port, which is silent: far from it and from those that were tried before. `None`
    /// beyond the budget of [`Alternatives`]: a silent host may be one that a stranger named.
    pub(crate) fn lease_far(
        self: &Arc<Self>,
        transport: Transport,
        family: Family,
    ) -> Option<Lease> {
        let of = (transport, family);
        let locked = self.lock_free_port(family, |inner, now| {
            let punch = inner.punch.get(&of).copied();
            let others = inner.alternatives.entry(of);
            let others = others.or_insert_with(|| Alternatives::new(now));
            others.claim(punch, &mut inner.pool, now)
        });
        let (claim, lock) = locked.ok()?;
        let mut inner = self.lock();
        let others = inner.alternatives.get_mut(&of)?;
        let is_tried = others.is_tried(Instant::now());
        drop(inner);
        is_tried.then_some(Lease { claim, lock })
    }

    /// A dial of this transport and family was answered.
    pub(crate) fn answered(&self, transport: Transport, family: Family) {
        if let Some(others) = self.lock().alternatives.get_mut(&(transport, family)) {
            others.answered();
        }
    }

    /// Makes the port of a lease the punch port. The claim of the earlier one is of no meaning from then on.
    pub(crate) fn move_punch(
        self: &Arc<Self>,
        transport: Transport,
        family: Family,
        port: u16,
    ) -> PunchClaim {
        let claim = self.claim_port(port);
        self.lock().punch.insert((transport, family), port);
        PunchClaim {
            claim,
            transport,
            family,
        }
    }

    /// Keeps the UDP socket of a punch port that QUIC leaves, as long as TCP punches from the number: it is the lock on it.
    pub(crate) fn keep_lock(&self, family: Family, port: u16, lock: UdpSocket) {
        let mut inner = self.lock();
        if inner.punch.get(&(Transport::Tcp, family)) == Some(&port) {
            inner.locks.insert(family, (port, lock));
        }
    }

    /// A UDP socket on a port of the range, for another protocol. If there is none, no transport lacks a port, so that is not
    /// noted.
    pub(crate) fn claim_udp(
        self: &Arc<Self>,
        family: Family,
    ) -> Result<(Claim, UdpSocket), Exhausted> {
        self.lock_free_port(family, |inner, now| inner.pool.claim_beside(&[], now).ok())
            .map_err(|_| Exhausted {
                range: self.range,
                holders: Vec::new(),
            })
    }

    /// The same at `port`, or at a port near it: `None` if they are taken.
    pub(crate) fn claim_udp_near(
        self: &Arc<Self>,
        family: Family,
        port: u16,
    ) -> Option<(Claim, UdpSocket)> {
        let away = (0..=NEAR).flat_map(|by| [port.checked_sub(by), port.checked_add(by)]);
        let mut near = away.flatten().filter(|port| self.range.contains(*port));
        near.find_map(|port| {
            if !self.lock().pool.claim_free(port, Instant::now()) {
                return None;
            }
            let mut claim = Claim {
                ports: Arc::clone(self),
                port,
                cool: None,
            };
            match socket::lock(family, port) {
                Ok(lock) => Some((claim, lock)),
                Err(_) => {
                    claim.cool = Some(TAKEN);
                    None
                }
            }
        })
    }

    /// The next free port, locked; or what each of them failed with.
    fn lock_free_port(
        self: &Arc<Self>,
        family: Family,
        claim: impl Fn(&mut Inner, Instant) -> Option<u16>,
    ) -> Result<(Claim, UdpSocket), Vec<Failed>> {
        let mut failed = Vec::new();
        loop {
            let now = Instant::now();
            let Some(port) = claim(&mut self.lock(), now) else {
                return Err(failed);
            };
            let mut claim = Claim {
                ports: Arc::clone(self),
                port,
                cool: None,
            };
            match socket::lock(family, port) {
                Ok(lock) => return Ok((claim, lock)),
                Err(error) => {
                    claim.cool = Some(TAKEN);
                    failed.push((Transport::Quic, port, error));
                }
            }
        }
    }

    /// Another claim on this port of the range, which may have some already.
    pub(crate) fn claim_port(self: &Arc<Self>, port: u16) -> Claim {
        self.lock().pool.claim_port(port);
        Claim {
            ports: Arc::clone(self),
            port,
            cool: None,
        }
    }

    /// Notes that a socket could be opened or dialed: the exhaustion is over.
    pub(crate) fn succeeded(&self, transport: Transport, family: Family) {
        self.lock().exhausted.remove(&(transport, family));
    }

    /// Notes and describes that every port failed: those in `failed`, and those that the pool has in use or cooling and that were
    /// not tried.
    fn exhaust(&self, transport: Transport, family: Family, failed: Vec<Failed>) -> Exhausted {
        let now = Instant::now();
        if let Some((noted, exhausted)) = self.lock().exhausted.get(&(transport, family))
            && now.duration_since(*noted) < LOOKUP_INTERVAL
        {
            return exhausted.clone();
        }
        // Without the lock: reading /proc takes a while.
        let mut holders: Vec<Holder> = failed
            .iter()
            .take(NAMED)
            .map(|(socket, port, error)| {
                let by = if error.kind() == io::ErrorKind::AddrInUse {
                    holder::find(*socket, family, *port)
                } else {
                    HeldBy::Refused(error.to_string())
                };
                Holder {
                    transport: *socket,
                    port: *port,
                    by,
                }
            })
            .collect();
        let mut inner = self.lock();
        let tried: BTreeSet<u16> = failed.iter().map(|(_, port, _)| *port).collect();
        let cooling: BTreeSet<u16> = inner.pool.candidates(now).into_iter().collect();
        for port in self.range.iter().filter(|port| !tried.contains(port)) {
            if holders.len() >= NAMED {
                break;
            }
            let by = if cooling.contains(&port) {
                HeldBy::Cooling
            } else {
                HeldBy::ThisNode
            };
            holders.push(Holder {
                transport,
                port,
                by,
            });
        }
        let exhausted = Exhausted {
            range: self.range,
            holders,
        };
        inner
            .exhausted
            .insert((transport, family), (now, exhausted.clone()));
        exhausted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock, and no state is half written if it did.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another port may do. Permission depends on the port as well: only ports below 1024 need it.
fn is_about_the_port(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

/// A claim on a port of the pool, given back when it is dropped.
pub(crate) struct Claim {
    ports: Arc<Ports>,
    port: u16,
    cool: Option<Duration>,
}

impl Claim {
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let until = self.cool.map(|time| Instant::now() + time);
        self.ports.lock().pool.release(self.port, until);
    }
}

/// The claim of a punch socket. As long as it lives its port is the punch port of its transport and family.
pub(crate) struct PunchClaim {
    claim: Claim,
    transport: Transport,
    family: Family,
}

impl PunchClaim {
    pub(crate) const fn port(&self) -> u16 {
        self.claim.port()
    }
}

impl Drop for PunchClaim {
    fn drop(&mut self) {
        let (of, port) = ((self.transport, self.family), self.claim.port);
        let mut inner = self.claim.ports.lock();
        // Unless it has moved.
        if inner.punch.get(&of) == Some(&port) {
            inner.punch.remove(&of);
        }
        let lock = inner.locks.get(&self.family);
        if self.transport == Transport::Tcp && lock.is_some_and(|(locked, _)| *locked == port) {
            inner.locks.remove(&self.family);
        }
    }
}

/// A port of the range that one connection has for itself.
pub(crate) struct Lease {
    claim: Claim,
    lock: UdpSocket,
}

impl Lease {
    pub(crate) const fn port(&self) -> u16 {
        self.claim.port()
    }

    /// The UDP socket that locks the number. It outlives this lease.
    pub(crate) fn lock(&self) -> io::Result<UdpSocket> {
        self.lock.try_clone()
    }

    /// Notes that the port was connected: it is not free the moment it is closed.
    pub(crate) fn connected(&mut self) {
        self.claim.cool = Some(if timestamps() { CLOSING } else { TIME_WAIT });
    }
}

/// Whether the kernel uses TCP timestamps, with which a port in TIME_WAIT can connect to the same remote again
/// ([RFC 6191](https://www.rfc-editor.org/rfc/rfc6191)). Governs IPv6 too. If it cannot be read: no.
pub(crate) fn timestamps() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_timestamps")
        .is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests;
