//! The addresses of this host's interfaces, as they come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use futures::StreamExt as _;
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::{Multiaddr, multiaddr::Protocol};
use p2pnode_transports::{Family, Kind};

/// Watches the interfaces.
pub(crate) struct Interfaces {
    /// `None` where the host does not let them be watched: private candidates are then missing, nothing else.
    watcher: Option<IfWatcher>,
    addresses: BTreeSet<IpAddr>,
}

impl Interfaces {
    pub(crate) fn watch() -> Self {
        let watcher = IfWatcher::new()
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the network interfaces; their addresses are not offered for punches"))
            .ok();
        Self {
            watcher,
            addresses: BTreeSet::new(),
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
                IfEvent::Up(net) if self.addresses.insert(net.addr()) => return Ok(()),
                IfEvent::Down(net) if self.addresses.remove(&net.addr()) => return Ok(()),
                IfEvent::Up(_) | IfEvent::Down(_) => {}
            }
        }
    }

    /// Each address at the punch port of its family, for each transport.
    pub(crate) fn at(&self, ports: &BTreeMap<(Kind, Family), u16>) -> Vec<Multiaddr> {
        let sockets = self.addresses.iter().flat_map(|ip| {
            let of_family = ports
                .iter()
                .filter(|((_, family), _)| *family == Family::from(*ip));
            of_family.map(|((kind, _), port)| (*ip, *kind, *port))
        });
        sockets
            .map(|(ip, kind, port)| match kind {
                Kind::Quic => Multiaddr::from(ip)
                    .with(Protocol::Udp(port))
                    .with(Protocol::QuicV1),
                Kind::Tcp => Multiaddr::from(ip).with(Protocol::Tcp(port)),
            })
            .collect()
    }
}
