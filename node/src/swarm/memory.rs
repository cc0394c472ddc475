//! Has connections closed while the process is above `limits.memory`.

use p2pnode_daemon::memory::Holders;
use p2pnode_transports::{Budgets, Largest};
use prometheus_client::metrics::counter::Counter;

/// The connections of a node, and where those are counted that are closed.
pub(crate) struct Connections {
    pub(crate) budgets: Budgets,
    pub(crate) closed: Counter,
}

impl Holders for Connections {
    fn set_room(&mut self, bytes: u64) {
        self.budgets.set_room(bytes);
    }

    fn close(&mut self, bytes: u64, of_others: u64) -> u64 {
        let closed = self.budgets.close(bytes, of_others);
        for largest in &closed {
            self.closed.inc();
            tracing::warn!(peer = %largest.peer, bytes = largest.held, "closed a connection: too little is left of limits.memory");
        }
        closed.iter().map(Largest::frees).sum()
    }
}
