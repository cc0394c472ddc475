//! The addresses of this host's interfaces, as they come and go.

use std::{collections::BTreeSet, future::poll_fn};

use ipnet::IpNet;
use p2pnode_transports::HostAddress;

/// Watches the interfaces.
pub(crate) struct Interfaces {
    /// `None` where the host does not let them be watched: private candidates are then missing, nothing else.
    watch: Option<p2pnode_transports::Interfaces>,
}

impl Interfaces {
    pub(crate) fn watch() -> Self {
        let watch = p2pnode_transports::Interfaces::watch()
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the network interfaces; their addresses are not offered for punches"));
        Self { watch: watch.ok() }
    }

    /// Waits until the set of addresses changes.
    pub(crate) async fn changed(&mut self) {
        match &mut self.watch {
            Some(watch) => poll_fn(|cx| watch.poll_changed(cx)).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn addresses(&self) -> BTreeSet<HostAddress> {
        let watch = self.watch.as_ref();
        watch
            .map(|watch| watch.addresses().clone())
            .unwrap_or_default()
    }

    /// The address of each interface, with its network.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        let addresses = self.watch.iter().flat_map(|watch| watch.addresses());
        addresses.filter_map(|address| IpNet::new(address.ip, address.prefix_len).ok())
    }
}
