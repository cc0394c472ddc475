//! What runs apart from sessions.

use std::net::SocketAddr;

use tokio::{sync::watch, task::AbortHandle};

#[derive(Debug, Default)]
pub(super) struct Servers {
    pub(super) socks: Option<SocksServer>,
    pub(super) flows: Option<AbortHandle>,
}

/// A SOCKS5 server that runs as long as this exists.
#[derive(Debug)]
pub(super) struct SocksServer {
    /// Where it listens, as configured.
    pub(super) wanted: SocketAddr,
    /// Of its sessions, as of those of a forward.
    pub(super) number: u64,
    /// Its clients that have not asked yet see the end of this.
    pub(super) _alive: watch::Sender<()>,
    pub(super) task: AbortHandle,
}

impl Drop for SocksServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
