//! The search for the peer without any relay: at the addresses of services in the DNS, and on the links of this host.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::Multiaddr;

use crate::core::event::FoundBy;

/// The head start of the search before the dial asks relays for circuits and records. Within a cluster, the resolver answers and
/// a handshake completes in a few milliseconds. A dial that needs a relay after all loses little: the legs do not wait, and take
/// most of this time.
const HEAD_START: Duration = Duration::from_millis(100);

/// How many places one dial tries in all. If there are more, the dial finds the peer by its relays.
const CANDIDATES: usize = 64;

/// How many places a dial tries at once. Each costs a handshake, and all but one reach another peer.
const AT_ONCE: usize = 8;

/// Where a dial looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// In the DNS.
    pub dns: bool,
    /// On the links, by multicast DNS.
    pub mdns: bool,
}

/// A place where the peer may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The socket.
    pub host: SocketAddr,
    /// It, in each transport that is to be dialed.
    pub addrs: Vec<Multiaddr>,
    /// Its source: [`FoundBy::Dns`] or [`FoundBy::Mdns`].
    pub by: FoundBy,
    /// What earlier dials found there.
    pub standing: Standing,
}

/// What earlier dials found at a place. Places are dialed in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// The peer was there a moment ago: nowhere else is dialed as long as this place is.
    Here,
    /// The peer was there some time ago.
    WasHere,
    /// Nothing is known.
    New,
    /// Nobody answered a moment ago: the place is dialed when the search is over and no other is left. Anybody on a link may name
    /// many such places.
    Silent,
}

/// Why a candidate is not the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LocalFailure {
    /// Another peer answered.
    OtherPeer,
    /// No peer answered, for this reason.
    NoAnswer(String),
}

/// The search of one dial.
#[derive(Debug, Default)]
pub(super) struct Local {
    sources: Sources,
    state: State,
    /// Until when relays wait for it.
    holds_until: Option<Instant>,
    waiting: VecDeque<Candidate>,
    under_way: Vec<Candidate>,
    /// All that were found, so that none is dialed twice.
    seen: BTreeSet<SocketAddr>,
    /// Where the peer was.
    reached: Option<Candidate>,
    others: usize,
    silent: usize,
    /// Why the first of these did not answer.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Off,
    /// To be begun.
    Due,
    UnderWay,
    Over,
}

impl Local {
    /// Looks in these places.
    pub(super) fn search(&mut self, sources: Sources, now: Instant) {
        *self = Self::default();
        if sources != Sources::default() {
            self.sources = sources;
            self.state = State::Due;
            self.holds_until = Some(now + HEAD_START);
        }
    }

    /// Begins again.
    pub(super) fn again(&mut self, now: Instant) {
        let reached = self.reached.take();
        self.search(self.sources, now);
        // Not lost with the search: who dials the peer again dials it there.
        self.reached = reached;
    }

    /// Whether to begin now; then it has.
    pub(super) fn begin(&mut self) -> bool {
        let begins = self.state == State::Due;
        if begins {
            self.state = State::UnderWay;
        }
        begins
    }

    /// The peer may be there.
    pub(super) fn found(&mut self, candidates: impl IntoIterator<Item = Candidate>) {
        for candidate in candidates {
            if self.seen.len() < CANDIDATES && self.seen.insert(candidate.host) {
                let before = |known: &Candidate| known.standing <= candidate.standing;
                let at = self.waiting.partition_point(before);
                self.waiting.insert(at, candidate);
            }
        }
    }

    /// There is nothing more to be found.
    pub(super) fn searched(&mut self) {
        if self.state == State::UnderWay {
            self.state = State::Over;
        }
    }

    /// The next place to dial.
    pub(super) fn next(&mut self) -> Option<Candidate> {
        let is_here = |candidate: &Candidate| candidate.standing == Standing::Here;
        if self.under_way.len() >= AT_ONCE || self.under_way.iter().any(is_here) {
            return None;
        }
        let is_last = self.state == State::Over;
        let has_turn = |next: &&Candidate| next.standing != Standing::Silent || is_last;
        self.waiting.front().filter(has_turn)?;
        let candidate = self.waiting.pop_front()?;
        self.under_way.push(candidate.clone());
        Some(candidate)
    }

    /// The peer is not there.
    pub(super) fn failed(&mut self, host: SocketAddr, failure: LocalFailure) {
        let Some(at) = self.under_way.iter().position(|known| known.host == host) else {
            return;
        };
        self.under_way.remove(at);
        match failure {
            LocalFailure::OtherPeer => self.others += 1,
            LocalFailure::NoAnswer(reason) => {
                self.silent += 1;
                self.reason.get_or_insert(reason);
            }
        }
    }

    /// A direct connection to the peer is there.
    pub(super) fn connected(&mut self, remote: SocketAddr) {
        if let Some(at) = self.under_way.iter().position(|known| known.host == remote) {
            self.reached = Some(self.under_way.remove(at));
        }
        self.waiting.clear();
    }

    /// The source of this place, if the peer was dialed there.
    pub(super) fn found_by(&self, remote: SocketAddr) -> Option<FoundBy> {
        let mut dialed = self.under_way.iter().chain(&self.reached);
        dialed
            .find(|known| known.host == remote)
            .map(|known| known.by)
    }

    /// The addresses at which the peer was reached.
    pub(super) fn reached(&self) -> impl Iterator<Item = &Multiaddr> {
        self.reached.iter().flat_map(|candidate| &candidate.addrs)
    }

    /// Whether a candidate may still come, or answer.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, State::Due | State::UnderWay)
            || !self.waiting.is_empty()
            || !self.under_way.is_empty()
    }

    /// Whether relays are not asked yet.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.holds_until().is_some_and(|until| now < until)
    }

    /// Time has passed.
    pub(super) fn elapse(&mut self, now: Instant) {
        self.holds_until = self.holds_until.filter(|until| now < *until);
    }

    /// Until when relays are not asked, if nothing else happens before.
    pub(super) fn holds_until(&self) -> Option<Instant> {
        self.holds_until.filter(|_| self.is_under_way())
    }

    /// Why the peer was not found.
    pub(super) fn failure(&self) -> Option<String> {
        let mut places = Vec::new();
        if self.sources.dns {
            places.push("discovery.dns");
        }
        if self.sources.mdns {
            places.push("multicast DNS");
        }
        let (places, seen) = (places.join(" and "), self.seen.len());
        if places.is_empty() {
            return None;
        }
        if seen == 0 {
            return Some(format!("{places} told no place where it may be"));
        }
        let mut text = format!(
            "of {seen} place(s) that {places} told, {} are other peers",
            self.others
        );
        if let Some(reason) = &self.reason {
            text += &format!(" and {} failed: {reason}", self.silent);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DNS: Sources = Sources {
        dns: true,
        mdns: false,
    };

    fn candidate(last: u8) -> Candidate {
        Candidate {
            host: SocketAddr::from(([10, 0, 0, last], 443)),
            addrs: vec![
                format!("/ip4/10.0.0.{last}/tcp/443")
                    .parse()
                    .expect("a multiaddr"),
            ],
            by: FoundBy::Dns,
            standing: Standing::New,
        }
    }

    fn dialed(local: &mut Local) -> Vec<u8> {
        let next = std::iter::from_fn(|| local.next());
        next.map(|candidate| match candidate.host.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        })
        .collect()
    }

    #[test]
    fn where_nothing_is_configured_nothing_is_held() {
        let now = Instant::now();
        let mut local = Local::default();
        local.search(Sources::default(), now);
        assert!(!local.begin() && !local.holds(now) && !local.is_under_way());
        assert_eq!((local.holds_until(), local.failure()), (None, None));
    }

    #[test]
    fn relays_wait_for_the_head_start_and_no_longer_than_for_the_end_of_a_search_that_finds_nothing()
     {
        let now = Instant::now();
        let mut local = Local::default();
        local.search(DNS, now);
        assert!(local.begin() && !local.begin());
        assert!(local.holds(now) && !local.holds(now + HEAD_START));
        local.found([candidate(1)]);
        local.searched();
        assert_eq!(dialed(&mut local), [1]);
        assert!(local.holds(now), "it may answer");
        local.failed(candidate(1).host, LocalFailure::OtherPeer);
        assert!(!local.holds(now) && !local.is_under_way());
        assert_eq!(
            local.failure().as_deref(),
            Some("of 1 place(s) that discovery.dns told, 1 are other peers")
        );
    }

    #[test]
    fn places_are_dialed_once_a_few_at_a_time_and_not_without_end() {
        let mut local = Local::default();
        local.search(DNS, Instant::now());
        local.found((1..=200).map(candidate));
        local.found((1..=200).map(candidate));
        let mut all = dialed(&mut local);
        while let Some(first) = local.under_way.first().map(|first| first.host) {
            assert!(local.under_way.len() <= AT_ONCE);
            local.failed(first, LocalFailure::OtherPeer);
            all.extend(dialed(&mut local));
        }
        let expected: Vec<u8> = (1..=64).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn where_nobody_answered_a_moment_ago_is_dialed_last_and_where_the_peer_once_was_first() {
        let mut local = Local::default();
        local.search(DNS, Instant::now());
        assert!(local.begin());
        let with = |standing, last| Candidate {
            standing,
            ..candidate(last)
        };
        local.found((1..=20).map(|last| with(Standing::Silent, last)));
        assert!(dialed(&mut local).is_empty());
        local.found([candidate(30), with(Standing::WasHere, 40), candidate(31)]);
        assert_eq!(dialed(&mut local), [40, 30, 31]);
        local.searched();
        assert_eq!(dialed(&mut local), [1, 2, 3, 4, 5]);
        assert!(local.is_under_way());
    }

    #[test]
    fn where_the_peer_was_a_moment_ago_is_dialed_alone_and_the_rest_if_it_has_moved() {
        let mut local = Local::default();
        local.search(DNS, Instant::now());
        let known = Candidate {
            standing: Standing::Here,
            ..candidate(2)
        };
        local.found([candidate(1), known, candidate(3)]);
        assert_eq!(dialed(&mut local), [2]);
        local.failed(
            candidate(2).host,
            LocalFailure::NoAnswer("refused".to_owned()),
        );
        assert_eq!(dialed(&mut local), [1, 3]);
        assert_eq!(local.found_by(candidate(3).host), Some(FoundBy::Dns));
        local.connected(candidate(3).host);
        assert_eq!(local.reached().count(), 1);
        assert_eq!(local.found_by(candidate(3).host), Some(FoundBy::Dns));
        local.again(Instant::now());
        assert!(local.begin());
        assert_eq!(local.reached().count(), 1, "it is dialed again there");
    }
}
