//! The addresses of this host's interfaces, as they come and go.

use std::{collections::BTreeSet, io};

use futures::StreamExt as _;
use if_watch::{IfEvent, tokio::IfWatcher};
use ipnet::IpNet;

/// Watches the interfaces.
pub(crate) struct Interfaces {
    /// `None` where the host does not let them be watched: private candidates are then missing, nothing else.
    watcher: Option<IfWatcher>,
    networks: BTreeSet<IpNet>,
}

impl Interfaces {
    pub(crate) fn watch() -> Self {
        let watcher = IfWatcher::new()
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the network interfaces; their addresses are not offered for punches"))
            .ok();
        Self {
            watcher,
            networks: BTreeSet::new(),
        }
    }

    /// Waits until the set of addresses changes.
    ///
    /// # Errors
    ///
    /// Those of the netlink socket; the watch goes on.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let Some(watcher) = &mut self.watcher else {
            return std::future::pending().await;
        };
        loop {
            match watcher.select_next_some().await? {
                IfEvent::Up(net) if self.networks.insert(net) => return Ok(()),
                IfEvent::Down(net) if self.networks.remove(&net) => return Ok(()),
                IfEvent::Up(_) | IfEvent::Down(_) => {}
            }
        }
    }

    /// The address of each interface, with its network.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.networks.iter().copied()
    }
}
