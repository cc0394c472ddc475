//! Multicast DNS, one question at a time.
//!
//! Questions leave from a port of the range, like every packet that this node originates. So they are one-shot queries
//! ([RFC 6762](https://www.rfc-editor.org/rfc/rfc6762), sections 5.1 and 6.7), and the answers are unicast. The responder also
//! answers by unicast, from port 5353, as a listener does. Nothing is announced, and nothing is cached.

mod datagrams;
mod message;
mod responder;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use libp2p::PeerId;
use p2pnode_transports::{Family, Handle, Transport, to_multiaddr, to_socket_addr};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

pub(crate) use responder::{Presence, Responder};

use datagrams::Datagrams;

use super::{
    links::{Link, Links},
    search::{EventSender, Means, SearchEvent},
};
use crate::core::{
    dialer::{Candidate, Standing},
    event::FoundBy,
};

/// The port of multicast DNS.
const PORT: u16 = 5353;

/// When a question is sent, after the start of the search. A datagram may be lost. The RFC wants a second between the first two
/// questions, and more after that.
const ASKED: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// How long a search waits for answers: as long as a dial waits for a peer that is absent from a relay.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most datagrams that one search reads. On a link with a thousand peers each question has a thousand answers.
const DATAGRAMS: usize = 4096;

/// The most sockets that one search reports, as many as a dial tries.
const SOCKETS: usize = 64;

/// The most sockets that one responder names. A peer has one for each transport, and a host may have two addresses on a link. More
/// of them are probably false, and must not take the place of what others answer.
const SOCKETS_PER_RESPONDER: usize = 4;

/// A datagram of multicast DNS has at most so many bytes (RFC 6762, section 17).
const DATAGRAM: usize = 9000;

/// The group that questions go to.
fn group(family: Family) -> IpAddr {
    match family {
        Family::Ip4 => Ipv4Addr::new(224, 0, 0, 251).into(),
        Family::Ip6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(),
    }
}

/// For the fuzz target: reads a datagram as a question and as an answer.
///
/// # Panics
///
/// If a question that was read has no answer.
#[cfg(any(fuzzing, test))]
#[allow(unreachable_pub, reason = "the fuzz targets are programs of their own")]
pub fn datagram(bytes: &[u8]) {
    let peer = PeerId::random();
    let addrs = ["/ip4/192.0.2.1/tcp/4001".parse().expect("an address")];
    if let Some(asked) = message::asked(bytes) {
        for is_legacy in [true, false] {
            let answer = message::answer(asked, is_legacy, "instance", peer, &addrs);
            let answer = answer.expect("there is an address");
            assert_eq!(message::asked(&answer), None);
        }
    }
    assert!(message::addrs_of(bytes, &peer).len() <= message::ADDRESSES);
}

/// A link, for people.
fn name(link: Link) -> String {
    match link {
        Link::Ip4(address) => format!("the link of {address}"),
        Link::Ip6(index) => format!("interface {index}"),
    }
}

/// The interface that a datagram came in on, if its source address has a scope.
fn scope(from: SocketAddr) -> u32 {
    match from {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(from) => from.scope_id(),
    }
}

/// The sockets that were heard of, each with the address of the responder that named it first.
#[derive(Debug, Default)]
struct Heard(BTreeMap<SocketAddr, IpAddr>);

impl Heard {
    /// Whether a socket is new, and has a place.
    fn take(&mut self, responder: IpAddr, socket: SocketAddr) -> bool {
        let by_it = self.0.values().filter(|by| **by == responder).count();
        let has_place = self.0.len() < SOCKETS && by_it < SOCKETS_PER_RESPONDER;
        has_place && !self.0.contains_key(&socket) && {
            self.0.insert(socket, responder);
            true
        }
    }
}

/// A search for a peer.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) peer: PeerId,
    pub(super) means: Means,
    pub(super) sockets: Handle,
    pub(super) links: watch::Receiver<Links>,
}

impl Question {
    /// Asks in each family and sends the answers as events, until no further answer is expected.
    pub(super) async fn ask(mut self, events: &EventSender) {
        let end = Instant::now() + PATIENCE;
        // A node that has just started does not know its links yet.
        let known = self.links.wait_for(|links| !links.all().is_empty());
        if !matches!(timeout_at(end, known).await, Ok(Ok(_))) {
            let reason = "cannot ask by multicast DNS: this host has no link; connect it, or set discovery.mdns to false";
            return events.send(SearchEvent::Failed(reason.to_owned())).await;
        }
        let families = [Family::Ip4, Family::Ip6];
        let asked = families
            .into_iter()
            .filter(|family| self.means.family.allows(*family))
            .map(|family| self.ask_over(family, end, events));
        futures::future::join_all(asked).await;
    }

    async fn ask_over(&self, family: Family, end: Instant, events: &EventSender) {
        let links = self.links.borrow().clone();
        let is_of_family = |link: &Link| match link {
            Link::Ip4(_) => family == Family::Ip4,
            Link::Ip6(_) => family == Family::Ip6,
        };
        let over: Vec<_> = links.all().into_iter().filter(is_of_family).collect();
        if over.is_empty() {
            return;
        }
        let mut socket = match Datagrams::claim(&self.sockets, family) {
            Ok(socket) => socket,
            Err(error) => {
                let reason = format!(
                    "cannot ask by multicast DNS over {family}: {error}; widen dial.port_range"
                );
                return events.send(SearchEvent::Failed(reason)).await;
            }
        };
        let start = end - PATIENCE;
        let mut seen = Heard::default();
        let mut left = DATAGRAMS;
        let mut failed = None;
        for (n, after) in ASKED.iter().enumerate() {
            sleep_until(start + *after).await;
            for link in &over {
                let group = SocketAddr::new(group(family), PORT);
                if let Err(error) = socket
                    .send_over(*link, group, &message::question(fastrand::u16(..)))
                    .await
                {
                    failed = Some(format!(
                        "cannot ask by multicast DNS over {}: {error}; let UDP from {} to port {PORT} out, or set discovery.mdns to false",
                        name(*link),
                        self.sockets.range()
                    ));
                }
            }
            let until = ASKED.get(n + 1).map_or(end, |next| start + *next);
            let hear = self.hear(&socket, &links, &mut seen, &mut left, events);
            // It ends only by the deadline.
            let _ = timeout_at(until, hear).await;
        }
        if let (Some(reason), true) = (failed, seen.0.is_empty()) {
            events.send(SearchEvent::Failed(reason)).await;
        }
    }

    /// Sends the candidates of each answer as events.
    async fn hear(
        &self,
        socket: &Datagrams,
        links: &Links,
        seen: &mut Heard,
        left: &mut usize,
        events: &EventSender,
    ) {
        let mut buffer = vec![0; DATAGRAM];
        while *left > 0 {
            *left -= 1;
            let Ok((length, from)) = socket.receive(&mut buffer).await else {
                // An error of an earlier question, such as an ICMP refusal; the next datagram may be an answer.
                continue;
            };
            let datagram = buffer.get(..length).unwrap_or_default();
            let candidates = self.candidates(datagram, from, links, seen);
            if !candidates.is_empty() {
                tracing::debug!(peer = %self.peer, %from, ?candidates, "multicast DNS named a place");
                events.send(SearchEvent::Found(candidates)).await;
            }
        }
        std::future::pending().await
    }

    /// The candidates of an answer: sockets on a link of this host, in an answer that a responder on the link sent.
    fn candidates(
        &self,
        datagram: &[u8],
        from: SocketAddr,
        links: &Links,
        seen: &mut Heard,
    ) -> Vec<Candidate> {
        if from.port() != PORT || !links.is_on(from.ip(), scope(from)) {
            return Vec::new();
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for addr in message::addrs_of(datagram, &self.peer) {
            let Some((transport, host)) = Transport::of(&addr).zip(to_socket_addr(&addr)) else {
                continue;
            };
            let is_plain = addr == to_multiaddr(transport, host);
            if !is_plain
                || !self.means.transports.contains(&transport)
                || !links.is_on(host.ip(), 0)
            {
                continue;
            }
            match candidates.iter_mut().find(|known| known.host == host) {
                Some(known) => known.addrs.push(addr),
                None if seen.take(from.ip(), host) => candidates.push(Candidate {
                    host,
                    addrs: vec![addr],
                    by: FoundBy::Mdns,
                    standing: Standing::New,
                }),
                None => {}
            }
        }
        // A responder knows its own address best, and cannot be sent to others by it.
        candidates.sort_by_key(|candidate| candidate.host.ip() != from.ip());
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], port))
    }

    #[test]
    fn what_one_responder_names_takes_no_place_of_another_ones() {
        let mut heard = Heard::default();
        let (liar, honest) = (socket(66, 0).ip(), socket(7, 0).ip());
        let taken = (0..4096).filter(|port| heard.take(liar, socket(66, *port)));
        assert_eq!(taken.count(), SOCKETS_PER_RESPONDER);
        assert!(heard.take(honest, socket(7, 1)) && !heard.take(honest, socket(7, 1)));
        let many = (0..255).filter(|n| heard.take(socket(*n, 0).ip(), socket(*n, 9)));
        assert_eq!(many.count(), SOCKETS - SOCKETS_PER_RESPONDER - 1);
    }
}
