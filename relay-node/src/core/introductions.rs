//! Introductions: where the relay sees each peer, which of them take introductions, and who is introduced to whom.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
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
    peers: HashMap<PeerId, BTreeMap<ConnectionId, Connection>>,
    pub(crate) front: Front,
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
        connections.insert(connection, Connection { remote, takes });
    }

    /// The host has these addresses and routers, and peers reach it at these addresses.
    pub(crate) fn host(
        &mut self,
        addresses: &BTreeSet<HostAddress>,
        gateways: &BTreeSet<IpAddr>,
        external: impl Iterator<Item = IpAddr>,
    ) {
        let of = |(peer, connections): (&PeerId, &BTreeMap<_, _>)| {
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
        ip(self.peers.get(peer)?.get(&connection)?.remote.as_ref()?)
    }

    /// A peer speaks these protocols on a connection.
    pub(crate) fn identified(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        let connections = self.peers.get_mut(peer);
        if let Some(connection) = connections.and_then(|of| of.get_mut(&connection)) {
            connection.takes = Some(protocols.contains(&introduction::PROTOCOL));
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(ip) = self.source(peer, connection) {
            self.front.closed(peer, ip);
        }
        if let Some(connections) = self.peers.get_mut(peer) {
            connections.remove(&connection);
            if connections.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// Whether a peer takes introductions on a connection.
    pub(crate) fn takes(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        let connections = self.peers.get(peer);
        connections
            .and_then(|of| of.get(&connection))
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

    fn sources(connections: &BTreeMap<ConnectionId, Connection>) -> impl Iterator<Item = IpAddr> {
        let connections = connections.values();
        connections.filter_map(|of| ip(of.remote.as_ref()?))
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
        let from = [
            "/ip4/198.51.100.7/udp/1/quic-v1",
            "/ip4/198.51.100.7/tcp/2",
            "/ip6/::ffff:198.51.100.7/udp/3/quic-v1",
            "/ip4/198.51.100.7/tcp/2",
            "/ip6/2001:db8::7/tcp/4",
            "/memory/5",
        ];
        let mut seen = seen(peer, &from);
        let all = [
            "/ip6/2001:db8::7/tcp/4",
            "/ip4/198.51.100.7/tcp/2",
            "/ip4/198.51.100.7/udp/3/quic-v1",
        ];
        assert_eq!(seen.addresses(&peer), addrs(&all));
        for number in 0..6 {
            seen.closed(&peer, id(number));
        }
        assert!(seen.addresses(&peer).is_empty() && seen.peers.is_empty());
    }

    #[test]
    fn lists_are_bounded() {
        let peer = PeerId::random();
        let many: Vec<String> = (1..100)
            .flat_map(|n| [1, 2, 3].map(|port| format!("/ip4/1.2.3.{n}/tcp/{port}")))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let listed = seen(peer, &many).addresses(&peer);
        assert_eq!(listed.len(), MAX_ADDRS);
        assert_eq!(
            listed[..2],
            addrs(&["/ip4/1.2.3.99/tcp/3", "/ip4/1.2.3.99/tcp/2"])
        );
        assert_eq!(
            ip(&listed[2]),
            Some([1, 2, 3, 98].into()),
            "two on one address"
        );
    }

    #[test]
    fn of_the_askers_words_only_sockets_where_it_was_seen_are_passed_on() {
        let words = [
            "/dns4/example.net/tcp/5",
            "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt/p2p-circuit",
            "/ip4/5.6.7.8/tcp/6",
            "/ip4/10.0.0.1/tcp/6",
            "/ip6/2001:db8::1/tcp/6",
            "/ip4/1.2.3.4/tcp/6/p2p/12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt",
            "/ip4/1.2.3.4/tcp/7",
        ];
        let seen = addrs(&["/ip4/1.2.3.4/udp/5/quic-v1"]);
        let sent = with_its_own(seen.clone(), &addrs(&words));
        let own = addrs(&["/ip4/1.2.3.4/tcp/6"]);
        assert_eq!(sent, [seen, own].concat());
        assert!(with_its_own(Vec::new(), &addrs(&words)).is_empty());
    }

    #[test]
    fn two_peers_are_near_where_the_relay_sees_both_in_one_network() {
        let [a, b] = [PeerId::random(), PeerId::random()];
        let near = |ours: &str, theirs: &str| {
            let at = |ip: &str| {
                format!(
                    "/{}/{ip}/tcp/1",
                    if ip.contains(':') { "ip6" } else { "ip4" }
                )
            };
            let mut all = seen(a, &[&at(ours)]);
            all.connected(b, id(9), &at(theirs).parse().unwrap());
            all.near(&a, &b)
        };
        for (ours, theirs, same_network, is_private) in [
            ("1.2.3.4", "1.2.3.4", true, false),
            ("1.2.3.4", "1.2.3.5", false, false),
            ("2001:db8::1", "2001:db8::2", true, false),
            ("2001:db8::1", "2001:db8:0:1::1", false, false),
            ("10.0.0.1", "1.2.3.4", false, false),
            ("10.0.0.1", "127.0.0.1", false, false),
            ("10.0.0.1", "10.9.0.1", false, true),
            ("127.0.0.1", "127.0.0.1", false, true),
        ] {
            let private = is_private.then(|| PrivateIps {
                other: theirs.parse().unwrap(),
                own: ours.parse().unwrap(),
            });
            let expected = Near {
                same_network,
                private,
            };
            assert_eq!(near(ours, theirs), expected, "{ours} {theirs}");
        }
    }

    #[test]
    fn a_peer_is_seen_at_addresses_that_it_has_and_only_so_many_are_looked_up() {
        let peer = PeerId::random();
        let seen = seen(peer, &["/ip4/1.2.3.4/tcp/1", "/ip6/2001:db8::1/tcp/1"]);
        let ips =
            |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|ip| ip.parse().unwrap()).collect() };
        let asked = ips(&["1.2.3.5", "2001:db8::1", "1.2.3.4"]);
        assert_eq!(
            seen.seen_at(&peer, &asked),
            ips(&["2001:db8::1", "1.2.3.4"])
        );
        let late = [vec![asked[0]; hop::MAX_IPS], ips(&["1.2.3.4"])].concat();
        assert_eq!(seen.seen_at(&peer, &late), ips(&[]));
        assert_eq!(seen.seen_at(&PeerId::random(), &asked), ips(&[]));
    }

    #[test]
    fn peers_behind_a_translator_in_front_of_the_relay_are_neither_near_nor_introduced() {
        let [a, b] = [PeerId::random(), PeerId::random()];
        for source in ["10.0.0.1", "203.0.113.1"] {
            let mut all = seen(a, &[&format!("/ip4/{source}/tcp/1")]);
            all.connected(b, id(9), &format!("/ip4/{source}/tcp/2").parse().unwrap());
            assert_ne!(all.near(&a, &b), Near::default());
            let gateways = [source.parse().unwrap()].into();
            all.host(&BTreeSet::new(), &gateways, std::iter::empty());
            assert_eq!(all.near(&a, &b), Near::default());
            assert!(all.addresses(&a).is_empty());
            assert_eq!(all.front.translated().map(|of| of.peers), Some(2));
        }
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
        assert_eq!(seen.addresses(&peer), addrs(&["/ip4/1.2.3.4/tcp/1"]));
        assert!(!seen.takes(&PeerId::random(), id(0)));
    }

    /// Four peers that take introductions, and how many of 64 requests for the first `wanted` of them a new asker is granted.
    struct Asking(Introductions, [PeerId; 4], Instant);

    impl Asking {
        fn new() -> Self {
            let (mut introductions, wanted) =
                (Introductions::default(), [(); 4].map(|()| PeerId::random()));
            for (number, peer) in wanted.iter().enumerate() {
                let from = "/ip4/198.51.100.9/tcp/1".parse().unwrap();
                introductions.seen.connected(*peer, id(number), &from);
                let protocols = [introduction::PROTOCOL];
                introductions.seen.identified(peer, id(number), &protocols);
            }
            Self(introductions, wanted, Instant::now())
        }

        fn asks(&mut self, number: usize, from: &str, wanted: usize) -> usize {
            let Self(introductions, peers, now) = self;
            let asker = PeerId::random();
            let from = from.parse().unwrap();
            introductions.seen.connected(asker, id(number), &from);
            let made = (0..64).filter(|n| {
                let request = Request {
                    peer: peers[n % wanted],
                    addrs: Vec::new(),
                    search: None,
                };
                let place = Some(id(n % wanted));
                introductions
                    .introduce(asker, &request, place, *now)
                    .is_ok()
            });
            made.count()
        }
    }

    #[test]
    fn the_peers_of_one_source_share_what_it_may_ask_and_another_source_is_served() {
        let mut asking = Asking::new();
        let of_one: usize = (100..120)
            .map(|number| asking.asks(number, "/ip4/203.0.113.5/tcp/1", 4))
            .sum();
        assert_eq!(of_one, 256);
        assert_eq!(asking.asks(200, "/ip4/203.0.113.6/tcp/1", 4), 64);
    }

    #[test]
    fn what_a_source_asks_of_a_peer_that_others_ask_too_often_is_not_taken_from_its_share() {
        let mut asking = Asking::new();
        let of_one: usize = (100..104)
            .map(|number| asking.asks(number, "/ip4/203.0.113.5/tcp/1", 1))
            .sum();
        assert_eq!(of_one, 128, "as often as one peer may be asked for");
        assert_eq!(asking.asks(200, "/ip4/203.0.113.6/tcp/1", 1), 0);
        let of_six: usize = (201..210)
            .map(|number| asking.asks(number, "/ip4/203.0.113.6/tcp/1", 4))
            .sum();
        assert_eq!(of_six, 256, "three of four peers can be asked for");
    }
}
