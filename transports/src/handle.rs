//! What a node reads of its transport and tells it, while the swarm owns the transport itself.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use libp2p::multiaddr::Multiaddr;
use p2pnode_protocol::{Family, Transport};

use crate::{
    datagrams::Datagrams,
    error::Error,
    net::{
        addr::to_socket_addr,
        pool::{Exhausted, PoolCounts},
        ports::Ports,
        range::PortRange,
        socket,
    },
    record::{Records, Sockets},
    tcp::{
        Unanswered,
        punch::{PunchGuard, Punches, Remote},
    },
};

/// What the parts of one transport share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) ports: Arc<Ports>,
    pub(crate) punches: Arc<Punches>,
    pub(crate) unanswered: Arc<Unanswered>,
    records: Arc<Mutex<Records>>,
}

impl Shared {
    pub(crate) fn new(ports: Arc<Ports>) -> Self {
        Self {
            ports,
            punches: Arc::default(),
            unanswered: Arc::default(),
            records: Arc::default(),
        }
    }

    /// Remembers which sockets a dial used.
    pub(crate) fn record(&self, dialed: &Multiaddr, sockets: Sockets) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(dialed, sockets);
    }

    pub(crate) fn sockets(&self, dialed: &Multiaddr) -> Option<Sockets> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lookup(dialed)
    }
}

/// The node's side of the transport that [`build`](crate::build) made. Cheap to clone; works from any thread, without the
/// swarm.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Shared,
}

impl Handle {
    /// The range of source ports.
    pub fn range(&self) -> PortRange {
        self.shared.ports.range()
    }

    /// The active punch port of each transport and family: it dials and it accepts. A pair is missing where the
    /// configuration or the host excludes it, and as long as the range is exhausted.
    pub fn punch_ports(&self) -> BTreeMap<(Transport, Family), u16> {
        self.shared.ports.punch_ports()
    }

    /// How many ports of the range are in which state.
    pub fn pool_counts(&self) -> PoolCounts {
        self.shared.ports.counts()
    }

    /// That no port could be had and what held them, until one can be had again.
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.shared.ports.exhausted()
    }

    /// That a punch socket could not be had for want of a port, until it can: [`exhausted`](Self::exhausted) without the dials
    /// that wanted a port besides.
    pub fn unbound(&self) -> Option<Exhausted> {
        self.shared.ports.unbound()
    }

    /// The sockets of the last successful dial of this address, with or without its `/p2p/PEER`. Of a name: those of the
    /// address that won. The last 1024 addresses are remembered.
    pub fn sockets(&self, dialed: &Multiaddr) -> Option<Sockets> {
        self.shared.sockets(dialed)
    }

    /// The address that this host's routes give packets to `remote` as their source; `None` without a route. Sends nothing.
    ///
    /// QUIC sockets are bound to the wildcard address, so this is how the local address of a QUIC connection is known.
    pub fn source_ip(&self, remote: IpAddr) -> Option<IpAddr> {
        socket::source_ip(remote).ok()
    }

    /// A UDP socket on a port of the range that nothing else of this node uses, for as long as it lives. Must be called inside a
    /// tokio runtime with IO enabled.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] where no port is left, [`Error::NoSocket`] where the system refuses.
    pub fn datagrams(&self, family: Family) -> Result<Datagrams, Error> {
        Datagrams::new(&self.shared.ports, family)
    }

    /// Announces a punch towards these addresses. While the guard lives, a QUIC dial of one of them begins anew when its first
    /// packet has no answer, rather than wait for the second that quinn takes to repeat it. A TCP dial of one of them stays on the punch port, goes on for some seconds where it is refused, and is completed, in the role of the dial,
    /// by a connection that comes in from the remote instead: from the very address, or else from its IP, since a symmetric
    /// NAT has another port for us. A connection that comes before the dial is kept for it.
    ///
    /// Where `remote` is known to take TLS, a TCP dial does not wait for its consent, which saves a round trip. There is no way
    /// back from that in a punch: the connection could not be made a second time.
    ///
    /// Drop the guard when the punch is decided: until then other peers at that IP may be taken for the remote, and their
    /// connections fail. A dial in the role of the listener implies a guard of its own.
    #[must_use = "the punch is expected only as long as the guard lives"]
    pub fn expect_punch(&self, remotes: &[Multiaddr], remote: Remote) -> PunchGuard {
        let of_transport = |transport| {
            let addrs = remotes
                .iter()
                .filter(move |addr| Transport::of(addr) == Some(transport));
            addrs.filter_map(to_socket_addr).collect()
        };
        Punches::expect(
            &self.shared.punches,
            of_transport(Transport::Tcp),
            of_transport(Transport::Quic),
            remote,
        )
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("range", &self.range())
            .field("punch_ports", &self.punch_ports())
            .finish()
    }
}
