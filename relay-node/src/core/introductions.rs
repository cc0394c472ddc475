//! Introductions: where the relay sees each peer, which of them take introductions, and who is introduced to whom.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, StreamProtocol, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_protocol::{
    Family, Transport,
    addr::is_circuit,
    introduction::{self, Introduction, MAX_ADDRS, Refusal, Request},
};
use p2pnode_transports::to_socket_addr;

/// What a peer may ask: it does once for each dial, and again as often as the circuit is asked for.
const ASKS: Measure = Measure {
    burst: 64,
    period: Duration::from_millis(100),
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
    is_asked_for: Limiter<PeerId>,
}

impl Default for Introductions {
    fn default() -> Self {
        Self {
            seen: Seen::default(),
            asks: Limiter::new(ASKS),
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
        if asker == peer || !have_in_common(&introduction.addrs, &introduction.own_addrs) {
            return Err(Refusal::NothingInCommon);
        }
        if !self.is_asked_for.admits(peer, now) {
            return Err(Refusal::TooOften);
        }
        Ok((place, introduction))
    }
}

/// The connections that peers have made, by peer.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<PeerId, BTreeMap<ConnectionId, Connection>>);

#[derive(Debug)]
struct Connection {
    /// From where it was made; `None` if that is no address that can be punched.
    remote: Option<Multiaddr>,
    /// Whether introductions are taken on it.
    takes: bool,
}

impl Seen {
    /// A peer has connected from there.
    pub(crate) fn connected(&mut self, peer: PeerId, connection: ConnectionId, from: &Multiaddr) {
        let connections = self.0.entry(peer).or_default();
        connections.insert(
            connection,
            Connection {
                remote: punchable(from),
                takes: false,
            },
        );
    }

    /// A peer speaks these protocols on a connection.
    pub(crate) fn identified(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        let connections = self.0.get_mut(peer);
        if let Some(connection) = connections.and_then(|of| of.get_mut(&connection)) {
            connection.takes = protocols.contains(&introduction::PROTOCOL);
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(connections) = self.0.get_mut(peer) {
            connections.remove(&connection);
            if connections.is_empty() {
                self.0.remove(peer);
            }
        }
    }

    /// Whether a peer takes introductions on a connection.
    pub(crate) fn takes(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        let connections = self.0.get(peer);
        connections
            .and_then(|of| of.get(&connection))
            .is_some_and(|connection| connection.takes)
    }

    /// From where a peer has connected: the newest of each transport and family, then the others, of which a NAT that maps by
    /// destination makes one for each connection; [`MAX_ADDRS`] at most.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let connections = self.0.get(peer).into_iter().flatten();
        let mut paths = HashSet::new();
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for remote in connections.rev().filter_map(|(_, of)| of.remote.as_ref()) {
            let list = match paths.insert(path(remote)) {
                true => &mut first,
                false => &mut others,
            };
            list.push(remote.clone());
        }
        distinct(first.into_iter().chain(others))
    }
}

/// What a peer learns of one that asks for it: where that was seen, and what it says of itself and can be punched.
fn with_its_own(seen: Vec<Multiaddr>, words: &[Multiaddr]) -> Vec<Multiaddr> {
    distinct(seen.into_iter().chain(words.iter().filter_map(punchable)))
}

/// Whether there is a transport and family in both lists.
fn have_in_common(ours: &[Multiaddr], theirs: &[Multiaddr]) -> bool {
    let paths: HashSet<_> = ours.iter().filter_map(path).collect();
    theirs
        .iter()
        .filter_map(path)
        .any(|path| paths.contains(&path))
}

fn distinct(addrs: impl Iterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut known = Vec::new();
    for addr in addrs {
        if known.len() < MAX_ADDRS && !known.contains(&addr) {
            known.push(addr);
        }
    }
    known
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
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn seen(peer: PeerId, from: &[&str]) -> Seen {
        let mut seen = Seen::default();
        for (number, from) in addrs(from).iter().enumerate() {
            seen.connected(peer, id(number), from);
        }
        seen
    }

    #[test]
    fn the_newest_of_each_transport_and_family_comes_first_and_each_once() {
        let peer = PeerId::random();
        let mut seen = seen(
            peer,
            &[
                "/ip4/198.51.100.7/udp/1/quic-v1",
                "/ip4/198.51.100.7/tcp/2",
                "/ip6/::ffff:198.51.100.7/udp/3/quic-v1",
                "/ip4/198.51.100.7/tcp/2",
                "/ip6/2001:db8::7/tcp/4",
                "/memory/5",
            ],
        );
        let all = [
            "/ip6/2001:db8::7/tcp/4",
            "/ip4/198.51.100.7/tcp/2",
            "/ip4/198.51.100.7/udp/3/quic-v1",
            "/ip4/198.51.100.7/udp/1/quic-v1",
        ];
        assert_eq!(seen.addresses(&peer), addrs(&all));
        for number in 0..6 {
            seen.closed(&peer, id(number));
        }
        assert!(seen.addresses(&peer).is_empty() && seen.0.is_empty());
    }

    #[test]
    fn lists_are_bounded() {
        let peer = PeerId::random();
        let many: Vec<String> = (1..100)
            .map(|port| format!("/ip4/1.2.3.4/tcp/{port}"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(seen(peer, &many).addresses(&peer).len(), MAX_ADDRS);
        let own = addrs(&["/ip4/5.6.7.8/tcp/9"]);
        let sent = with_its_own(own.clone(), &addrs(&many));
        assert_eq!((sent.len(), &sent[..1]), (MAX_ADDRS, &own[..]));
    }

    #[test]
    fn nothing_but_sockets_is_passed_on() {
        let words = [
            "/dns4/example.net/tcp/5",
            "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt/p2p-circuit",
            "/ip4/1.2.3.4/tcp/6/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt",
        ];
        let sent = with_its_own(Vec::new(), &addrs(&words));
        assert_eq!(sent, addrs(&["/ip4/1.2.3.4/tcp/6"]));
    }

    #[test]
    fn two_have_in_common_what_both_have_in_one_family() {
        let a = addrs(&["/ip6/2001:db8::1/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/2"]);
        assert!(have_in_common(&a, &addrs(&["/ip4/5.6.7.8/tcp/2"])));
        assert!(!have_in_common(&a, &addrs(&["/ip4/5.6.7.8/udp/2/quic-v1"])));
        assert!(!have_in_common(&a, &[]));
    }

    #[test]
    fn introductions_are_for_those_who_say_so() {
        let peer = PeerId::random();
        let mut seen = seen(peer, &["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"]);
        seen.identified(&peer, id(0), &[introduction::PROTOCOL]);
        seen.identified(&peer, id(1), &[]);
        assert!(seen.takes(&peer, id(0)) && !seen.takes(&peer, id(1)));
        assert!(!seen.takes(&PeerId::random(), id(0)));
    }
}
