//! How often a peer may ask, and how often all peers of a source may.
//!
//! A source may ask as often as the peers do that `limits.reservations_per_ip4` or `..._per_ip6_net` lets it have and that start
//! within the same minute, as after a restart of the relay. What goes beyond is refused without work. A peer that goes on is
//! disconnected. What a peer has asked is forgotten when it is no longer connected: the source remembers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_protocol::{Network, Source, bucket::Bucket, guarded::Verdict};

use crate::config::PerSource;

/// What a remote can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A stream of the circuit relay protocol, whatever is sent on it.
    CircuitStream,
    /// A reservation, or its renewal.
    Reserve,
    /// A circuit.
    Connect,
    /// The other leg of a circuit.
    Hop,
    /// An introduction.
    Introduction,
    /// Admission by a token.
    Join,
    /// Any message of the directory.
    Directory,
    /// A record to keep: its signature is checked.
    Record,
    /// Identify, or an identify push.
    Identify,
    /// A notice that the peer drains.
    Draining,
    /// A request that is malformed.
    Malformed,
}

/// The measure of a request.
struct Terms {
    /// Requests of a peer at once.
    burst: u32,
    /// Requests of a peer in a second after that.
    per_second: u32,
    /// Requests of a peer that starts: one for each of four connections, and again for one that was lost meanwhile.
    start: u32,
}

impl Request {
    const ALL: [Self; 11] = [
        Self::CircuitStream,
        Self::Reserve,
        Self::Connect,
        Self::Hop,
        Self::Introduction,
        Self::Join,
        Self::Directory,
        Self::Record,
        Self::Identify,
        Self::Draining,
        Self::Malformed,
    ];

    fn terms(self) -> Terms {
        let (burst, per_second, start) = match self {
            Self::CircuitStream => (1280, 32, 12),
            Self::Reserve => (32, 1, 8),
            // A peer that calls every peer of a large fleet, each with a lookup and an introduction.
            Self::Connect => (1024, 16, 8),
            // Its stream and its messages count.
            Self::Directory => (2048, 32, 16),
            // Also every 30 s for each circuit.
            Self::Hop => (1024, 34, 4),
            Self::Introduction => (1024, 16, 4),
            Self::Join => (32, 1, 8),
            Self::Record => (32, 1, 4),
            Self::Identify => (64, 4, 16),
            Self::Draining => (8, 1, 1),
            Self::Malformed => (64, 1, 1),
        };
        Terms {
            burst,
            per_second,
            start,
        }
    }

    fn of_peer(self) -> Measure {
        let Terms {
            burst, per_second, ..
        } = self.terms();
        let period = Duration::from_secs(1) / per_second;
        Measure { burst, period }
    }

    /// For a source with that many times `peers`; `None` is no limit.
    fn of_source(self, peers: usize, weight: u32) -> Option<Measure> {
        if peers == 0 {
            return None;
        }
        let Terms { burst, start, .. } = self.terms();
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        let burst = peers
            .saturating_mul(start)
            .max(PEERS * burst)
            .saturating_mul(weight);
        let period = (RESTART / burst).max(Duration::from_nanos(1));
        Some(Measure { burst, period })
    }
}

/// A source may have this many peers that use all of theirs, however few its limit says.
const PEERS: u32 = 4;

/// In this time all peers of a source may start once.
const RESTART: Duration = Duration::from_secs(60);

/// Refusals of a peer, of whatever it asks, after which it is disconnected.
const PATIENCE: Measure = Measure {
    burst: 1024,
    period: Duration::from_secs(1),
};

/// Floods of a source that only end a connection. After one more nobody connects from there for [`SHUT_OUT`], and peers without a
/// reservation are disconnected by the first refusal.
const FLOODS: Measure = Measure {
    burst: 4,
    period: Duration::from_secs(10),
};

/// How long that is.
const SHUT_OUT: Duration = Duration::from_secs(10);

/// Sources that are shut out at once. When there are more, those are let in that have been shut out longest.
const MAX_SHUT_OUT: usize = 4096;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) peer: PeerId,
    /// From where it is connected, if that is an IP address.
    pub(crate) source: Option<Source>,
    /// Whether it holds a reservation. Those that do share what their source may ask only with each other.
    pub(crate) holds: bool,
}

/// Who has asked for what.
#[derive(Debug)]
pub(crate) struct Rates {
    peers: HashMap<PeerId, Asked>,
    /// For each request: of peers without a reservation and of peers with one.
    sources: Vec<[OfSources; 2]>,
    floods: [Limiter<Network>; 3],
    shut_out: HashMap<Network, Instant>,
}

/// Limiters for the networks of sources.
#[derive(Debug)]
struct OfSources {
    ip4: Option<Limiter<Network>>,
    net64: Option<Limiter<Network>>,
    net56: Option<Limiter<Network>>,
    net48: Option<Limiter<Network>>,
}

impl OfSources {
    fn new(request: Request, peers: PerSource) -> Self {
        let limiter = |peers, weight| request.of_source(peers, weight).map(Limiter::new);
        Self {
            ip4: limiter(peers.ip4, 1),
            net64: limiter(peers.ip6_net, 1),
            net56: limiter(peers.ip6_net, 2),
            net48: limiter(peers.ip6_net, 4),
        }
    }

    fn admits(&mut self, network: Network, now: Instant) -> bool {
        let limiter = match network {
            Network::Ip4(_) => &mut self.ip4,
            Network::Net64(_) => &mut self.net64,
            Network::Net56(_) => &mut self.net56,
            Network::Net48(_) => &mut self.net48,
        };
        let limiter = limiter.as_mut();
        limiter.is_none_or(|limiter| limiter.admits(network, now))
    }
}

/// What is left of the measures of a peer. A measure of which nothing is used has no entry.
#[derive(Debug, Default)]
struct Asked {
    of: Vec<(Request, Bucket)>,
    refused: Option<Bucket>,
    /// Whether it is being disconnected.
    floods: bool,
}

impl Asked {
    fn admits(&mut self, request: Request, now: Instant) -> bool {
        self.of
            .retain_mut(|(of, bucket)| *of == request || !bucket.is_full(of.of_peer(), now));
        let measure = request.of_peer();
        match self.of.iter_mut().find(|(of, _)| *of == request) {
            Some((_, bucket)) => bucket.admits(measure, now),
            None => {
                let mut bucket = Bucket::full(measure, now);
                let admitted = bucket.admits(measure, now);
                self.of.push((request, bucket));
                admitted
            }
        }
    }

    fn refused(&mut self, now: Instant) -> Verdict {
        let left = self
            .refused
            .get_or_insert_with(|| Bucket::full(PATIENCE, now));
        match left.admits(PATIENCE, now) {
            true => Verdict::Refuse,
            false => Verdict::Close,
        }
    }
}

impl Rates {
    /// Rates for sources that may have so many peers each; 0 is no limit.
    pub(crate) fn new(peers: PerSource) -> Self {
        let sources = Request::ALL.map(|request| [(); 2].map(|()| OfSources::new(request, peers)));
        let floods = [1, 2, 4].map(|weight| {
            Limiter::new(Measure {
                burst: FLOODS.burst * weight,
                period: FLOODS.period / weight,
            })
        });
        Self {
            peers: HashMap::new(),
            sources: sources.into(),
            floods,
            shut_out: HashMap::new(),
        }
    }

    /// A peer is connected.
    pub(crate) fn connected(&mut self, peer: PeerId) {
        self.peers.entry(peer).or_default();
    }

    /// It is no longer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Whether nobody may connect from there now.
    pub(crate) fn shuts_out(&self, source: Source, now: Instant) -> bool {
        let mut until = source
            .networks()
            .filter_map(|network| self.shut_out.get(&network));
        until.any(|until| now < *until)
    }

    /// Whether a request is served.
    pub(crate) fn judge(&mut self, request: Request, asker: Asker, now: Instant) -> Verdict {
        let Asker {
            peer,
            source,
            holds,
        } = asker;
        let sources = &mut self.sources[request as usize][usize::from(holds)];
        let mut networks = source.into_iter().flat_map(Source::networks);
        let of_source = networks.all(|network| sources.admits(network, now));
        // Without an entry its connection is so new that the relay does not know of it, or has ended.
        let Some(asked) = self.peers.get_mut(&peer) else {
            return match of_source {
                true => Verdict::Serve,
                false => Verdict::Refuse,
            };
        };
        if of_source && asked.admits(request, now) {
            return Verdict::Serve;
        }
        let verdict = asked.refused(now);
        let begins = verdict == Verdict::Close && !asked.floods;
        asked.floods |= begins;
        let Some(source) = source else {
            return verdict;
        };
        match verdict {
            Verdict::Serve | Verdict::Refuse if !holds && self.shuts_out(source, now) => {
                Verdict::Close
            }
            Verdict::Serve | Verdict::Refuse => verdict,
            Verdict::Close => {
                if begins {
                    self.flooded(source, now);
                }
                Verdict::Close
            }
        }
    }

    /// A peer of `source` is disconnected because it asks without end.
    fn flooded(&mut self, source: Source, now: Instant) {
        for network in source.networks() {
            let limiter = match network.weight() {
                1 => &mut self.floods[0],
                2 => &mut self.floods[1],
                _ => &mut self.floods[2],
            };
            if limiter.admits(network, now) {
                continue;
            }
            if self.shut_out.len() >= MAX_SHUT_OUT {
                self.shut_out.retain(|_, until| now < *until);
            }
            if self.shut_out.len() >= MAX_SHUT_OUT {
                let first = self.shut_out.iter().min_by_key(|(_, until)| **until);
                if let Some(first) = first.map(|(network, _)| *network) {
                    self.shut_out.remove(&first);
                }
            }
            self.shut_out.insert(network, now + SHUT_OUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITED: PerSource = PerSource {
        ip4: 1024,
        ip6_net: 1024,
    };
    const HOST: Option<Source> = Some(Source::Ip4(Ipv4Addr::LOCALHOST));

    fn asker(peer: PeerId, source: Option<Source>) -> Asker {
        Asker {
            peer,
            source,
            holds: false,
        }
    }

    fn net(prefix: [u16; 4]) -> Option<Source> {
        Some(Source::Net6(prefix))
    }

    /// How many of `times` requests, by a peer of its own each or by one, are served.
    fn served(
        rates: &mut Rates,
        times: usize,
        request: Request,
        peer: Option<PeerId>,
        source: Option<Source>,
        now: Instant,
    ) -> usize {
        let serves = |_: &usize| {
            let peer = peer.unwrap_or_else(|| {
                let peer = PeerId::random();
                rates.connected(peer);
                peer
            });
            rates.judge(request, asker(peer, source), now) == Verdict::Serve
        };
        (0..times).filter(serves).count()
    }

    #[test]
    fn a_request_is_the_index_of_its_measures() {
        for (index, request) in Request::ALL.into_iter().enumerate() {
            assert_eq!(request as usize, index);
        }
    }

    #[test]
    fn a_peer_that_asks_without_end_is_served_its_measure_then_refused_then_disconnected() {
        let (mut rates, peer, now) = (Rates::new(LIMITED), PeerId::random(), Instant::now());
        rates.connected(peer);
        let mut verdicts = (0..6000).map(|_| rates.judge(Request::Reserve, asker(peer, HOST), now));
        let mut count = |wanted| verdicts.by_ref().take_while(|is| *is == wanted).count();
        assert_eq!(count(Verdict::Serve), 32);
        // The verdict that ends a row is taken with it.
        assert_eq!(count(Verdict::Refuse), 1023);
        assert!(verdicts.all(|verdict| verdict == Verdict::Close));
        assert_eq!(
            rates.judge(Request::Connect, asker(peer, HOST), now),
            Verdict::Serve,
            "what it asks otherwise"
        );
        let later = now + Duration::from_secs(5);
        assert_eq!(
            served(&mut rates, 32, Request::Reserve, Some(peer), HOST, later),
            5
        );
    }

    #[test]
    fn many_ids_of_one_source_share_its_measure_and_other_sources_have_theirs() {
        let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
        let other = Some(Source::Ip4([198, 51, 100, 1].into()));
        assert_eq!(
            served(&mut rates, 20_000, Request::Reserve, None, HOST, now),
            8192
        );
        assert_eq!(
            served(&mut rates, 100, Request::Reserve, None, other, now),
            100
        );
        let later = now + Duration::from_secs(1);
        let sustained = served(&mut rates, 20_000, Request::Reserve, None, HOST, later);
        assert!((136..138).contains(&sustained), "{sustained}");
    }

    #[test]
    fn ipv6_networks_have_twice_and_four_times_the_measure_of_one_of_them() {
        let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
        let mut in_all = 0;
        for net64 in 0..64 {
            let source = net([0x2001, 0xdb8, 1, net64]);
            in_all += served(&mut rates, 10_000, Request::Reserve, None, source, now);
            if net64 == 3 {
                assert_eq!(in_all, 2 * 8192, "of a /56");
            }
        }
        assert_eq!(in_all, 2 * 8192);
        for net56 in 1..8 {
            let source = net([0x2001, 0xdb8, 1, net56 << 8]);
            in_all += served(&mut rates, 10_000, Request::Reserve, None, source, now);
        }
        assert_eq!(in_all, 4 * 8192, "of a /48");
        let other = net([0x2001, 0xdb8, 2, 0]);
        assert_eq!(
            served(&mut rates, 10, Request::Reserve, None, other, now),
            10
        );
    }

    #[test]
    fn as_many_peers_as_a_source_may_have_start_at_once_and_without_a_limit_any_number() {
        let starts = |peers: usize, limits| {
            let (mut rates, now) = (Rates::new(limits), Instant::now());
            (0..peers).all(|_| {
                let peer = PeerId::random();
                rates.connected(peer);
                Request::ALL.into_iter().all(|request| {
                    let times = request.terms().start as usize;
                    served(&mut rates, times, request, Some(peer), HOST, now) == times
                })
            })
        };
        assert!(starts(1024, LIMITED));
        assert!(!starts(2048, LIMITED));
        assert!(starts(2048, PerSource { ip4: 0, ip6_net: 0 }));
    }

    #[test]
    fn peers_with_a_reservation_do_not_share_with_those_that_have_none() {
        let (mut rates, now) = (Rates::new(LIMITED), Instant::now());
        served(&mut rates, 20_000, Request::Reserve, None, HOST, now);
        let peer = PeerId::random();
        rates.connected(peer);
        let holder = Asker {
            holds: true,
            ..asker(peer, HOST)
        };
        let verdict = rates.judge(Request::Reserve, holder, now);
        assert_eq!(verdict, Verdict::Serve, "a renewal");
    }

    #[test]
    fn a_source_whose_peers_flood_again_and_again_is_shut_out_for_a_while() {
        let large = PerSource {
            ip4: 8192,
            ..LIMITED
        };
        let (mut rates, now) = (Rates::new(large), Instant::now());
        let source = Source::Ip4(Ipv4Addr::LOCALHOST);
        let mut asked = 0;
        while !rates.shuts_out(source, now) {
            let peer = PeerId::random();
            rates.connected(peer);
            while rates.judge(Request::Reserve, asker(peer, HOST), now) != Verdict::Close {
                asked += 1;
            }
            rates.forget(&peer);
        }
        assert_eq!(asked, 5 * (32 + 1024));
        let peers = [(); 2].map(|()| PeerId::random());
        for peer in peers {
            rates.connected(peer);
        }
        assert_eq!(
            served(&mut rates, 32, Request::Reserve, Some(peers[0]), HOST, now),
            32
        );
        let refused = rates.judge(Request::Reserve, asker(peers[0], HOST), now);
        assert_eq!(refused, Verdict::Close, "without patience");
        let holder = Asker {
            holds: true,
            ..asker(peers[1], HOST)
        };
        for _ in 0..32 {
            assert_eq!(rates.judge(Request::Reserve, holder, now), Verdict::Serve);
        }
        assert_eq!(rates.judge(Request::Reserve, holder, now), Verdict::Refuse);
        assert!(!rates.shuts_out(Source::Ip4([198, 51, 100, 1].into()), now));
        assert!(!rates.shuts_out(source, now + SHUT_OUT));
    }

    #[test]
    fn a_peer_leaves_nothing_behind_and_one_at_rest_takes_no_room() {
        let (mut rates, peer, now) = (Rates::new(LIMITED), PeerId::random(), Instant::now());
        rates.connected(peer);
        for request in Request::ALL {
            rates.judge(request, asker(peer, HOST), now);
        }
        let later = now + Duration::from_secs(3600);
        rates.judge(Request::Join, asker(peer, HOST), later);
        assert_eq!(rates.peers[&peer].of.len(), 1);
        rates.forget(&peer);
        rates.judge(Request::Join, asker(peer, HOST), later);
        assert!(rates.peers.is_empty());
    }
}
