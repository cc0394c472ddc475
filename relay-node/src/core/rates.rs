//! How often a peer may ask, and how often all peers of a source may.
//!
//! A source may ask as often as all its peers do that start within the same minute, as after a restart of the relay. It may have
//! as many peers as `limits.reservations_per_ip4` or `..._per_ip6_net` lets it have. What goes beyond is refused without work. A
//! peer that goes on is disconnected. What a peer has asked is forgotten when it is no longer connected: the source remembers.

mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_protocol::{Network, Source, bucket::Bucket, guarded::Verdict};

pub use request::Request;

use crate::config::PerSource;

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

    fn of(&mut self, network: Network) -> Option<&mut Limiter<Network>> {
        let limiter = match network {
            Network::Ip4(_) => &mut self.ip4,
            Network::Net64(_) => &mut self.net64,
            Network::Net56(_) => &mut self.net56,
            Network::Net48(_) => &mut self.net48,
        };
        limiter.as_mut()
    }

    /// Whether each network of a source may ask once more.
    fn have_left(&mut self, source: Option<Source>, now: Instant) -> bool {
        let mut networks = source.into_iter().flat_map(Source::networks);
        networks.all(|network| {
            let limiter = self.of(network);
            limiter.is_none_or(|limiter| limiter.has_left(&network, now))
        })
    }

    /// They have asked.
    fn count(&mut self, source: Option<Source>, now: Instant) {
        for network in source.into_iter().flat_map(Source::networks) {
            if let Some(limiter) = self.of(network) {
                limiter.admits(network, now);
            }
        }
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
        let asked = self.peers.get_mut(&peer);
        let source_has_left = sources.have_left(source, now);
        // What a peer is refused uses up nothing of what its source may ask. A peer without an entry is connected for so short a
        // time that the relay does not know of it, or no longer.
        let is_served = match (source_has_left, asked) {
            (true, Some(asked)) => asked.admits(request, now),
            (has_left, _) => has_left,
        };
        if is_served {
            sources.count(source, now);
            return Verdict::Serve;
        }
        let Some(asked) = self.peers.get_mut(&peer) else {
            return Verdict::Refuse;
        };
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
