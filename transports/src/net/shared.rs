//! What the parts of one node's transport share, and its handle sees.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::multiaddr::Multiaddr;
use p2pnode_protocol::Reach;

use crate::net::{
    budget::{Budgets, Class},
    datagrams::Datagrams,
    found::Found,
    identify::Identifying,
    kin::Kin,
    learned::{Learned, Lessons, Trouble},
    ports::Ports,
    punches::Punches,
    record::{Records, Sockets},
    stun::StunClient,
};

/// What the parts of one transport share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) ports: Arc<Ports>,
    pub(crate) punches: Arc<Punches>,
    pub(crate) budgets: Budgets,
    pub(crate) kin: Kin,
    pub(crate) datagrams: Datagrams,
    pub(crate) stun: Arc<StunClient>,
    pub(crate) found: Arc<Found>,
    pub(crate) identifying: Arc<Identifying>,
    records: Arc<Mutex<Records>>,
    reach: Arc<Mutex<Option<Reach>>>,
    lessons: Arc<Mutex<Lessons>>,
}

impl Shared {
    pub(crate) fn new(ports: Arc<Ports>) -> Self {
        Self {
            ports,
            punches: Arc::default(),
            budgets: Budgets::new(Class::Carrying),
            kin: Kin::default(),
            datagrams: Datagrams::default(),
            stun: Arc::default(),
            found: Arc::default(),
            identifying: Arc::default(),
            records: Arc::default(),
            reach: Arc::default(),
            lessons: Arc::default(),
        }
    }

    /// Where the dials that begin now may lead; `None` is no limit.
    pub(crate) fn reach(&self) -> Option<Reach> {
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_reach(&self, reach: Option<Reach>) {
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = reach;
    }

    /// Remembers what a dial has learned.
    pub(crate) fn learn(&self, remote: SocketAddr, trouble: Trouble) {
        let learned = Learned { remote, trouble };
        self.lessons().add(learned, Instant::now());
    }

    pub(crate) fn lessons(&self) -> MutexGuard<'_, Lessons> {
        // Nothing panics while it holds the lock, and no state is half written if it did.
        self.lessons.lock().unwrap_or_else(PoisonError::into_inner)
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
