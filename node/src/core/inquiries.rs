//! About which circuits to ask the relay, and when.
//!
//! Pure: the time is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::hop::{HopReply, MAX_IPS, Refusal, Request};

/// How old an answer may get while the circuit lives: round trip times change, the rest does not.
const REFRESH: Duration = Duration::from_secs(30);

/// The wait before a question is asked again that was not fully answered, the first times. The relay may not have measured a
/// round trip yet, or not yet know of the circuit.
const AGAIN: Duration = Duration::from_secs(1);

/// How often a question is asked again that soon.
const EARLY: u32 = 3;

/// A circuit whose other leg is to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Circuit {
    /// Its connection.
    pub(crate) connection: ConnectionId,
    /// The peer at its far end.
    pub(crate) peer: PeerId,
    /// Whether this node dialed it.
    pub(crate) dialed: bool,
    /// The relay.
    pub(crate) relay: PeerId,
    /// The connection to the relay that carries it.
    pub(crate) via: ConnectionId,
}

impl Circuit {
    /// The question about it.
    fn request(&self, ips: Vec<IpAddr>) -> Request {
        Request {
            peer: self.peer,
            dialed: self.dialed,
            ips,
        }
    }
}

/// The open circuits.
#[derive(Debug, Default)]
pub(crate) struct Inquiries {
    inquiries: BTreeMap<ConnectionId, Inquiry>,
    /// What to ask next.
    actions: VecDeque<(Circuit, Request)>,
}

#[derive(Debug)]
struct Inquiry {
    circuit: Circuit,
    state: State,
    /// What the peer lists as its own.
    ips: Vec<IpAddr>,
    /// Whether it has listed more since the question that is under way.
    is_stale: bool,
    /// Questions that were not fully answered.
    incomplete: u32,
    /// Whether any was answered in any way.
    answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due(Instant),
    Asking,
    /// The relay does not support the protocol. Only a connection to another relay could change that.
    Mute,
}

impl Inquiries {
    /// A circuit is open.
    pub(crate) fn handle_opened(&mut self, circuit: Circuit, now: Instant) {
        self.inquiries.insert(
            circuit.connection,
            Inquiry {
                circuit,
                state: State::Due(now),
                ips: Vec::new(),
                is_stale: false,
                incomplete: 0,
                answered: false,
            },
        );
    }

    /// A connection was closed.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId) {
        self.inquiries.remove(&connection);
    }

    /// A peer lists these addresses, and no relay has seen it there: the relays of its circuits are asked.
    pub(crate) fn handle_listed(&mut self, peer: PeerId, ips: &[IpAddr], now: Instant) {
        for inquiry in self.inquiries.values_mut() {
            if inquiry.circuit.peer != peer {
                continue;
            }
            inquiry.ips = ips[..ips.len().min(MAX_IPS)].to_vec();
            match inquiry.state {
                State::Due(_) => inquiry.state = State::Due(now),
                State::Asking => inquiry.is_stale = true,
                State::Mute => {}
            }
        }
    }

    /// A question about a circuit has ended. Returns the circuit if it is still open.
    pub(crate) fn handle_reply(
        &mut self,
        connection: ConnectionId,
        reply: &HopReply,
        now: Instant,
    ) -> Option<Circuit> {
        let inquiry = self.inquiries.get_mut(&connection)?;
        inquiry.answered = true;
        let full = match reply {
            HopReply::Leg(leg) => leg.rtt.is_some(),
            // Asking soon again would be the wrong answer to that.
            HopReply::Refused(Refusal::TooOften) => true,
            HopReply::Refused(Refusal::NotAParty | Refusal::Unknown) | HopReply::NoAnswer => false,
            HopReply::Unsupported => {
                inquiry.state = State::Mute;
                return Some(inquiry.circuit);
            }
        };
        let wait = if std::mem::take(&mut inquiry.is_stale) {
            Duration::ZERO
        } else if full || inquiry.incomplete >= EARLY {
            REFRESH
        } else {
            inquiry.incomplete += 1;
            AGAIN
        };
        inquiry.state = State::Due(now + wait);
        Some(inquiry.circuit)
    }

    /// The next circuit to ask about, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<(Circuit, Request)> {
        self.actions.pop_front()
    }

    /// Asks about the circuits whose turn it is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for inquiry in self.inquiries.values_mut() {
            if matches!(inquiry.state, State::Due(at) if at <= now) {
                inquiry.state = State::Asking;
                let request = inquiry.circuit.request(inquiry.ips.clone());
                self.actions.push_back((inquiry.circuit, request));
            }
        }
    }

    /// When [`Inquiries::handle_timeout`] may have something to ask, if nothing else happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self
            .inquiries
            .values()
            .filter_map(|inquiry| match inquiry.state {
                State::Due(at) => Some(at),
                State::Asking | State::Mute => None,
            });
        due.min()
    }

    /// Whether the first answer about a circuit is still awaited.
    pub(crate) fn is_awaited(&self, connection: ConnectionId) -> bool {
        self.inquiries
            .get(&connection)
            .is_some_and(|inquiry| !inquiry.answered)
    }
}

#[cfg(test)]
mod tests {
    use p2pnode_protocol::{Family, Transport, hop::Leg};

    use super::*;

    fn circuit(number: usize) -> Circuit {
        Circuit {
            connection: ConnectionId::new_unchecked(number),
            peer: PeerId::random(),
            dialed: true,
            relay: PeerId::random(),
            via: ConnectionId::new_unchecked(number + 100),
        }
    }

    fn leg(rtt: Option<u64>) -> HopReply {
        HopReply::Leg(Leg {
            transport: Transport::Quic,
            family: Family::Ip4,
            rtt: rtt.map(Duration::from_millis),
            near: Default::default(),
            seen: Vec::new(),
        })
    }

    fn poll(inquiries: &mut Inquiries, now: Instant) -> Option<Circuit> {
        inquiries.handle_timeout(now);
        inquiries.poll_action().map(|(circuit, _)| circuit)
    }

    fn next_after(
        inquiries: &mut Inquiries,
        of: Circuit,
        reply: &HopReply,
        now: Instant,
    ) -> Duration {
        assert_eq!(poll(inquiries, now), Some(of));
        assert_eq!(poll(inquiries, now), None, "one question at a time");
        assert_eq!(inquiries.poll_timeout(), None);
        assert_eq!(inquiries.handle_reply(of.connection, reply, now), Some(of));
        inquiries
            .poll_timeout()
            .map_or(Duration::MAX, |at| at - now)
    }

    #[test]
    fn what_a_peer_lists_is_asked_about_at_once_and_after_a_question_that_is_under_way() {
        let (mut inquiries, now) = (Inquiries::default(), Instant::now());
        let (of, other) = (circuit(1), circuit(2));
        inquiries.handle_opened(of, now);
        inquiries.handle_opened(other, now);
        let ips = [IpAddr::from([198, 51, 100, 7]); MAX_IPS + 1];
        let asked = |inquiries: &mut Inquiries| {
            inquiries.handle_timeout(now);
            let asked = std::iter::from_fn(|| inquiries.poll_action());
            asked
                .map(|(of, request)| (of, request.ips.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(asked(&mut inquiries), [(of, 0), (other, 0)]);
        inquiries.handle_listed(of.peer, &ips, now);
        assert_eq!(asked(&mut inquiries), []);
        for circuit in [of, other] {
            inquiries.handle_reply(circuit.connection, &leg(Some(7)), now);
        }
        assert_eq!(asked(&mut inquiries), [(of, MAX_IPS)]);
        inquiries.handle_reply(of.connection, &leg(Some(7)), now);
        assert_eq!(asked(&mut inquiries), []);
        inquiries.handle_listed(of.peer, &ips[..1], now);
        assert_eq!(asked(&mut inquiries), [(of, 1)]);
    }

    #[test]
    fn a_circuit_is_asked_about_at_once_and_then_every_30_s_until_it_closes() {
        let (mut inquiries, of, now) = (Inquiries::default(), circuit(1), Instant::now());
        inquiries.handle_opened(of, now);
        assert!(inquiries.is_awaited(of.connection));
        assert_eq!(next_after(&mut inquiries, of, &leg(Some(7)), now), REFRESH);
        assert!(!inquiries.is_awaited(of.connection));
        let later = now + REFRESH;
        assert_eq!(poll(&mut inquiries, later - AGAIN), None);
        assert_eq!(
            next_after(&mut inquiries, of, &leg(Some(8)), later),
            REFRESH
        );
        inquiries.handle_closed(of.connection);
        assert_eq!(poll(&mut inquiries, later + REFRESH), None);
        assert_eq!(inquiries.poll_timeout(), None);
    }

    #[test]
    fn what_was_not_fully_answered_is_asked_again_soon_and_not_for_ever() {
        for reply in [
            leg(None),
            HopReply::NoAnswer,
            HopReply::Refused(Refusal::NotAParty),
            HopReply::Refused(Refusal::Unknown),
        ] {
            let (mut inquiries, of, mut now) = (Inquiries::default(), circuit(1), Instant::now());
            inquiries.handle_opened(of, now);
            for _ in 0..EARLY {
                assert_eq!(next_after(&mut inquiries, of, &reply, now), AGAIN);
                now += AGAIN;
            }
            assert_eq!(next_after(&mut inquiries, of, &reply, now), REFRESH);
        }
    }

    #[test]
    fn a_relay_that_asks_for_less_is_heard() {
        let (mut inquiries, of, now) = (Inquiries::default(), circuit(1), Instant::now());
        inquiries.handle_opened(of, now);
        let reply = HopReply::Refused(Refusal::TooOften);
        assert_eq!(next_after(&mut inquiries, of, &reply, now), REFRESH);
    }

    #[test]
    fn a_foreign_relay_is_asked_once_per_circuit() {
        let (mut inquiries, of, now) = (Inquiries::default(), circuit(1), Instant::now());
        inquiries.handle_opened(of, now);
        assert_eq!(
            next_after(&mut inquiries, of, &HopReply::Unsupported, now),
            Duration::MAX
        );
        assert!(!inquiries.is_awaited(of.connection));
        assert_eq!(poll(&mut inquiries, now + REFRESH * 10), None);
    }

    #[test]
    fn an_answer_about_a_circuit_that_has_closed_is_nobodys() {
        let (mut inquiries, of, now) = (Inquiries::default(), circuit(1), Instant::now());
        inquiries.handle_opened(of, now);
        poll(&mut inquiries, now);
        inquiries.handle_closed(of.connection);
        assert_eq!(
            inquiries.handle_reply(of.connection, &leg(Some(7)), now),
            None
        );
    }
}
