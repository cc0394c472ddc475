//! Introductions: where the relay sees each peer, which of them take introductions, and who is introduced to whom.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, StreamProtocol, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_protocol::{
    Family, Network, Scope, Source, Transport,
    addr::is_circuit,
    hop::{self, Near, PrivateIps},
    introduction::{self, Introduction, MAX_ADDRS, Refusal, Request},
    port_search::Offer,
};
use p2pnode_transports::{HostAddress, to_socket_addr};

use super::front::Front;

/// What a peer may ask: it does once for each dial, and again as often as the circuit is asked for.
const ASKS: Measure = Measure {
    burst: 64,
    period: Duration::from_millis(100),
};

/// What the peers of one source may ask together, as many times as its network has the budget of one: peer ids cost nothing.
const SOURCE_ASKS: Measure = Measure {
    burst: 256,
    period: Duration::from_millis(250),
};

/// How often a peer is introduced to others that ask: each time it sends packets to addresses that it has from here.
const IS_ASKED_FOR: Measure = Measure {
    burst: 128,
    period: Duration::from_millis(100),
};

/// Who is introduced to whom.
#[derive(Debug)]
pub(crate) struct Introductions {
    pub(crate) seen: Seen,
    asks: Limiter<PeerId>,
    source_asks: Limiter<(Network, u32)>,
    is_asked_for: Limiter<PeerId>,
}

impl Default for Introductions {
    fn default() -> Self {
        Self {
            seen: Seen::default(),
            asks: Limiter::new(ASKS),
            source_asks: Limiter::new(SOURCE_ASKS),
            is_asked_for: Limiter::new(IS_ASKED_FOR),
        }
    }
}

impl Introductions {
    /// The peer is no longer connected.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.asks.forget(peer);
        self.is_asked_for.forget(peer);
    }

    /// Whether `asker` and the peer that it asks for are introduced to each other: on which connection that peer is, and what the
    /// asker learns. `place` is where the peer holds its reservation.
    pub(crate) fn introduce(
        &mut self,
        asker: PeerId,
        request: &Request,
        place: Option<ConnectionId>,
        now: Instant,
    ) -> Result<(ConnectionId, Introduction), Refusal> {
        let peer = request.peer;
        if !self.asks.admits(asker, now) {
            return Err(Refusal::TooOften);
        }
        let place = place.ok_or(Refusal::NoReservation)?;
        if !self.seen.takes(&peer, place) {
            return Err(Refusal::Unsupported);
        }
        let introduction = Introduction {
            addrs: self.seen.addresses(&peer),
            own_addrs: with_its_own(self.seen.addresses(&asker), &request.addrs),
        };
        let names_others =
            |offer: &Offer| !offer.is_of(self.seen.seen_ips(&asker).collect::<Vec<_>>());
        if request.search.as_ref().is_some_and(names_others) {
            return Err(Refusal::NothingInCommon);
        }
        if asker == peer || !have_in_common(&introduction.addrs, &introduction.own_addrs) {
            return Err(Refusal::NothingInCommon);
        }
        // Neither the source nor the peer has been asked unless both have something left.
        let sources = self.source_buckets(&asker, now);
        let sources = sources.ok_or(Refusal::TooOften)?;
        if !self.is_asked_for.admits(peer, now) {
            return Err(Refusal::TooOften);
        }
        for bucket in sources {
            self.source_asks.admits(bucket, now);
        }
        Ok((place, introduction))
    }

    /// A bucket with something left of each network that the asker is part of; a larger network has several. `None` if one of the
    /// networks has no such bucket.
    fn source_buckets(&mut self, asker: &PeerId, now: Instant) -> Option<Vec<(Network, u32)>> {
        let networks: BTreeSet<Network> = self
            .seen
            .ips(asker)
            .flat_map(|ip| Source::from(ip).networks())
            .collect();
        let bucket_of = |network: Network| {
            let mut buckets = (0..network.weight()).map(|bucket| (network, bucket));
            buckets.find(|bucket| self.source_asks.has_left(bucket, now))
        };
        networks.into_iter().map(bucket_of).collect()
    }
}

/// The connections that peers have made, by peer. What is behind a translator in front of the relay counts as not seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    peers: HashMap<PeerId, Connections>,
    pub(crate) front: Front,
}

/// The newest last. Nearly every peer has one: a map would have room for eleven.
type Connections = Vec<(ConnectionId, Connection)>;

fn of(connections: &Connections, id: ConnectionId) -> Option<&Connection> {
    let mut connections = connections.iter();
    connections.find_map(|(of, connection)| (*of == id).then_some(connection))
}

#[derive(Debug)]
struct Connection {
    /// From where it was made; `None` if that is no address that can be punched.
    remote: Option<Multiaddr>,
    /// Whether introductions are taken on it, once the peer has identified itself there.
    takes: Option<bool>,
}

impl Seen {
    /// A peer has connected from there.
    pub(crate) fn connected(&mut self, peer: PeerId, connection: ConnectionId, from: &Multiaddr) {
        let remote = punchable(from);
        if let Some(ip) = remote.as_ref().and_then(ip) {
            self.front.connected(peer, ip);
        }
        let connections = self.peers.entry(peer).or_default();
        let takes = None;
        connections.reserve_exact(1);
        connections.push((connection, Connection { remote, takes }));
    }

    /// The host has these addresses and routers, and peers reach it at these addresses.
    pub(crate) fn host(
        &mut self,
        addresses: &BTreeSet<HostAddress>,
        gateways: &BTreeSet<IpAddr>,
        external: impl Iterator<Item = IpAddr>,
    ) {
        let of = |(peer, connections): (&PeerId, &Connections)| {
            let peer = *peer;
            Self::sources(connections)
                .map(|ip| (peer, ip))
                .collect::<Vec<_>>()
        };
        let connected = self.peers.iter().flat_map(of);
        self.front.set(addresses, gateways, external, connected);
    }

    /// From where a connection was made.
    pub(crate) fn source(&self, peer: &PeerId, connection: ConnectionId) -> Option<IpAddr> {
        ip(of(self.peers.get(peer)?, connection)?.remote.as_ref()?)
    }

    /// A peer speaks these protocols on a connection.
    pub(crate) fn identified(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        let mut connections = self.peers.get_mut(peer).into_iter().flatten();
        if let Some((_, connection)) = connections.find(|(id, _)| *id == connection) {
            connection.takes = Some(protocols.contains(&introduction::PROTOCOL));
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(ip) = self.source(peer, connection) {
            self.front.closed(peer, ip);
        }
        if let Some(connections) = self.peers.get_mut(peer) {
            connections.retain(|(id, _)| *id != connection);
            if connections.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// Whether a peer takes introductions on a connection.
    pub(crate) fn takes(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        let connections = self.peers.get(peer);
        connections
            .and_then(|connections| of(connections, connection))
            .is_some_and(|connection| connection.takes == Some(true))
    }

    /// From where a peer has connected: the newest of each transport and family, then the others, of which a NAT that maps by
    /// destination makes one for each connection; [`MAX_ADDRS`] at most. A node takes no introductions on a connection that does not have
    /// its punch port, and nothing of that node listens where such a connection comes from.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let connections = self.peers.get(peer).into_iter().flatten();
        let connections = connections.rev().map(|(_, connection)| connection);
        let punched_from = connections.filter(|connection| connection.takes != Some(false));
        let remotes = punched_from.filter_map(|connection| connection.remote.as_ref());
        let is_seen = |remote: &&Multiaddr| ip(remote).is_none_or(|ip| !self.front.hides(ip));
        let mut paths = HashSet::new();
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for remote in remotes.filter(is_seen) {
            let list = match paths.insert(path(remote)) {
                true => &mut first,
                false => &mut others,
            };
            list.push(remote.clone());
        }
        listed(first.into_iter().chain(others))
    }

    /// The newest connection on which a peer takes introductions, with or without a reservation.
    pub(crate) fn takes_on(&self, peer: &PeerId) -> Option<ConnectionId> {
        let connections = self.peers.get(peer)?.iter().rev();
        let mut takes = connections.filter(|(_, connection)| connection.takes == Some(true));
        takes.next().map(|(connection, _)| *connection)
    }

    /// Where a peer is seen.
    fn seen_ips(&self, peer: &PeerId) -> impl Iterator<Item = IpAddr> {
        self.ips(peer).filter(|ip| !self.front.hides(*ip))
    }

    /// The IP addresses from which a peer has connected.
    fn ips(&self, peer: &PeerId) -> impl Iterator<Item = IpAddr> {
        self.peers.get(peer).into_iter().flat_map(Self::sources)
    }

    fn sources(connections: &Connections) -> impl Iterator<Item = IpAddr> {
        let connections = connections.iter();
        connections.filter_map(|(_, of)| ip(of.remote.as_ref()?))
    }

    /// At which of these addresses a peer is seen.
    pub(crate) fn seen_at(&self, peer: &PeerId, asked: &[IpAddr]) -> Vec<IpAddr> {
        let seen: BTreeSet<IpAddr> = self.seen_ips(peer).collect();
        let asked = asked.iter().take(hop::MAX_IPS).copied();
        asked.filter(|ip| seen.contains(ip)).collect()
    }

    /// What two peers share: for one that asks, with `other`.
    pub(crate) fn near(&self, asker: &PeerId, other: &PeerId) -> Near {
        let public = |peer| {
            let ips = self.seen_ips(peer).filter(|ip| Scope::is_global(*ip));
            ips.map(Source::from).collect::<BTreeSet<_>>()
        };
        let in_scope = |peer, scope| self.seen_ips(peer).find(|ip| Scope::of(*ip) == scope);
        let private = [Scope::Private, Scope::Host].into_iter().find_map(|scope| {
            Some(PrivateIps {
                other: in_scope(other, scope)?,
                own: in_scope(asker, scope)?,
            })
        });
        Near {
            same_network: !public(asker).is_disjoint(&public(other)),
            private,
        }
    }
}

/// What a peer learns of one that asks for it: where that was seen, and of its own words the sockets on the IP addresses at which
/// it was seen. Other words could be the addresses of third parties.
fn with_its_own(seen: Vec<Multiaddr>, words: &[Multiaddr]) -> Vec<Multiaddr> {
    let ips: HashSet<IpAddr> = seen.iter().filter_map(ip).collect();
    let words = words.iter().filter_map(punchable);
    let words: Vec<_> = words
        .filter(|addr| ip(addr).is_some_and(|ip| ips.contains(&ip)))
        .collect();
    listed(seen.into_iter().chain(words))
}

/// Whether there is a transport and family in both lists.
fn have_in_common(ours: &[Multiaddr], theirs: &[Multiaddr]) -> bool {
    let paths: HashSet<_> = ours.iter().filter_map(path).collect();
    theirs
        .iter()
        .filter_map(path)
        .any(|path| paths.contains(&path))
}

/// A list to send: each address once, two on one IP address, [`MAX_ADDRS`] in all.
fn listed(addrs: impl Iterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut known = Vec::new();
    for addr in addrs {
        if !known.contains(&addr) {
            known.push(addr);
        }
    }
    // Each of them is the address of a socket.
    introduction::cap_per_ip(&mut known, |addr| {
        let unspecified = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let transport = Transport::of(addr).unwrap_or(Transport::Tcp);
        (ip(addr).unwrap_or(unspecified), transport)
    });
    known.truncate(MAX_ADDRS);
    known
}

fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    Some(to_socket_addr(addr)?.ip())
}

fn path(addr: &Multiaddr) -> Option<(Transport, Family)> {
    Some((Transport::of(addr)?, to_socket_addr(addr)?.ip().into()))
}

/// The address of one socket and transport, an IPv4 peer at a socket for both families as the IPv4 peer that it is.
fn punchable(addr: &Multiaddr) -> Option<Multiaddr> {
    if is_circuit(addr) {
        return None;
    }
    let (transport, socket) = (Transport::of(addr)?, to_socket_addr(addr)?);
    let ip = Multiaddr::from(socket.ip().to_canonical());
    Some(match transport {
        Transport::Quic => ip.with(Protocol::Udp(socket.port())).with(Protocol::QuicV1),
        Transport::Tcp => ip.with(Protocol::Tcp(socket.port())),
    })
}

#[cfg(test)]
mod tests;
