//! The addresses of this host, as they come and go.
//!
//! A netlink socket rings when an address, an interface or a route changes. The lists are then read again, whole. What rang does not
//! matter, so an overrun of that socket (`ENOBUFS`) is a ring like another, and nothing is missed. See
//! `docs/decisions/0110-interfaces-are-read-whole.md`.

mod address;
pub(in crate::net) mod netlink;

use std::{
    collections::BTreeSet,
    future::Future as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use p2pnode_protocol::Family;
use tokio::time::Sleep;

use crate::net::files::explained;

pub use self::address::{HostAddress, Medium};

/// How long changes are gathered before the lists are read. Also bounds how often a router of the internet, whose routes change
/// all the time, reads its addresses.
const SETTLE: Duration = Duration::from_millis(100);

/// After a list could not be read, it is read again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// The most notifications that one look takes from the socket. The rest ring again.
const DRAINED: usize = 256;

/// Link, IPv4 address, IPv4 route, IPv6 address, IPv6 route (`RTMGRP_*` of `linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Addresses of the internet that no network has for its own: those of the root server A. Only the route to them is looked up.
const ABROAD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Watches the addresses of this host.
pub struct Interfaces {
    bell: TokioSocket,
    /// When the lists are read.
    due: Option<Pin<Box<Sleep>>>,
    addresses: BTreeSet<HostAddress>,
    gateways: BTreeSet<IpAddr>,
    /// Whether the first lists have been reported.
    is_known: bool,
}

impl Interfaces {
    /// Reads the lists and begins to watch.
    ///
    /// # Errors
    ///
    /// Where the host has no netlink, or forbids it. A list that cannot be read is empty and is read again a little later.
    pub fn watch() -> io::Result<Self> {
        let mut bell = TokioSocket::new(NETLINK_ROUTE)?;
        bell.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        let mut this = Self {
            bell,
            due: None,
            addresses: BTreeSet::new(),
            gateways: BTreeSet::new(),
            is_known: false,
        };
        this.read();
        Ok(this)
    }

    /// The addresses, without those that cannot be used: of interfaces that are down, and those whose uniqueness the kernel has not
    /// proved yet.
    pub const fn addresses(&self) -> &BTreeSet<HostAddress> {
        &self.addresses
    }

    /// The routers that the default routes lead to.
    pub const fn gateways(&self) -> &BTreeSet<IpAddr> {
        &self.gateways
    }

    /// Ready when the addresses or the routers have changed, and once at the beginning.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !self.is_known {
                self.is_known = true;
                return Poll::Ready(());
            }
            let Some(due) = &mut self.due else {
                ready!(self.poll_ring(cx));
                self.due = Some(Box::pin(tokio::time::sleep(SETTLE)));
                continue;
            };
            ready!(due.as_mut().poll(cx));
            self.due = None;
            // What changes while the lists are read rings again.
            for _ in 0..DRAINED {
                if self.poll_ring(cx).is_pending() {
                    break;
                }
            }
            if self.read() {
                return Poll::Ready(());
            }
        }
    }

    /// Takes one notification. An error is one too: some were lost.
    fn poll_ring(&self, cx: &mut Context<'_>) -> Poll<()> {
        // What does not fit is cut off, and not wanted.
        let mut buffer = Vec::with_capacity(16);
        self.bell.poll_recv(cx, &mut buffer).map(drop)
    }

    /// Whether the addresses are other ones than before.
    fn read(&mut self) -> bool {
        match netlink::addresses() {
            Ok(mut addresses) => {
                let gateways = mark_default_routes(&mut addresses);
                let addresses = addresses.into_iter().map(|(address, _)| address).collect();
                let before = (
                    std::mem::replace(&mut self.addresses, addresses),
                    std::mem::replace(&mut self.gateways, gateways),
                );
                (&before.0, &before.1) != (&self.addresses, &self.gateways)
            }
            Err(error) => {
                let error = explained(error);
                tracing::warn!(%error, "cannot read the addresses of this host; trying again");
                self.due = Some(Box::pin(tokio::time::sleep(RETRY)));
                false
            }
        }
    }
}

/// Marks the addresses of the interfaces that default routes lead out of. Returns the routers they lead to.
fn mark_default_routes(addresses: &mut [(HostAddress, u32)]) -> BTreeSet<IpAddr> {
    let mut gateways = BTreeSet::new();
    for abroad in ABROAD {
        let family = Family::from(abroad);
        let Some(way) = netlink::way(abroad) else {
            continue;
        };
        gateways.extend(way.gateway);
        for (address, interface) in &mut *addresses {
            address.has_default_route |=
                *interface == way.interface && Family::from(address.ip) == family;
        }
    }
    gateways
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[tokio::test]
    async fn the_first_look_finds_loopback_and_an_overrun_is_a_look_again() {
        let mut interfaces = Interfaces::watch().unwrap();
        std::future::poll_fn(|cx| interfaces.poll_changed(cx)).await;
        let loopback = interfaces.addresses().iter();
        let mut loopback = loopback.filter(|address| address.ip.is_loopback());
        assert!(loopback.all(|address| address.medium == Medium::Loopback));
        let before = std::mem::take(&mut interfaces.addresses);
        if before.is_empty() {
            return; // A namespace in which not even loopback is up.
        }
        interfaces.due = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
        std::future::poll_fn(|cx| interfaces.poll_changed(cx)).await;
        assert_eq!(interfaces.addresses, before);
    }
}
