//! Which sockets a dial used. A swarm reports only the remote address of a dialed connection, and for a name not even that.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use libp2p::multiaddr::Multiaddr;
use p2pnode_protocol::Transport;

use crate::net::addr::without_peer;

/// Both ends of a connection as this host sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// The transport.
    pub transport: Transport,
    /// The local end. Its IP is unspecified if QUIC was dialed and the host's routes do not give the source address.
    pub local: SocketAddr,
    /// The remote end.
    pub remote: SocketAddr,
}

/// How many dialed addresses are remembered: far more than a node has connections, and still under 200 KiB.
const CAPACITY: usize = 1024;

/// The sockets of the last successful dial of each address, oldest first out.
#[derive(Debug, Default)]
pub(crate) struct Records {
    by_address: HashMap<Multiaddr, Sockets>,
    order: VecDeque<Multiaddr>,
}

impl Records {
    /// Remembers a success. A trailing `/p2p/PEER` makes no difference.
    pub(crate) fn insert(&mut self, dialed: &Multiaddr, sockets: Sockets) {
        let key = without_peer(dialed);
        if self.by_address.insert(key.clone(), sockets).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_address.remove(&oldest);
        }
    }

    pub(crate) fn lookup(&self, dialed: &Multiaddr) -> Option<Sockets> {
        self.by_address.get(&without_peer(dialed)).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn sockets(port: u16) -> Sockets {
        Sockets {
            transport: Transport::Tcp,
            local: ([127, 0, 0, 1], port).into(),
            remote: ([192, 0, 2, 1], 443).into(),
        }
    }

    #[test]
    fn an_address_is_found_with_and_without_its_peer() {
        let bare: Multiaddr = "/dns/relay.example.net/tcp/443".parse().unwrap();
        let full: Multiaddr =
            format!("{bare}/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
                .parse()
                .unwrap();
        let mut records = Records::default();
        records.insert(&full, sockets(1));
        assert_eq!(records.lookup(&bare), Some(sockets(1)));
        records.insert(&bare, sockets(2));
        assert_eq!(records.lookup(&full), Some(sockets(2)));
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let addr = |n: usize| -> Multiaddr {
            format!("/ip4/10.0.{}.{}/tcp/1", n / 256, n % 256)
                .parse()
                .unwrap()
        };
        let mut records = Records::default();
        for n in 0..=CAPACITY {
            records.insert(&addr(n), sockets(1));
        }
        assert_eq!(records.lookup(&addr(0)), None);
        assert_eq!(records.lookup(&addr(CAPACITY)), Some(sockets(1)));
        assert_eq!(
            (records.by_address.len(), records.order.len()),
            (CAPACITY, CAPACITY)
        );
    }
}
