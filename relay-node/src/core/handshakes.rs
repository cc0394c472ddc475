//! Who may have how many of the handshakes that `limits.pending_connections` admits.
//!
//! The source of a TCP connection is known: the kernel has exchanged packets with it. That of the first packet of a QUIC
//! connection may be forged until the handshake is over, so what is refused because of it may hit somebody who has not sent it.
//! Two rules hold for both, and each transport is counted by itself, so that a forged packet can only harm those who come over QUIC:
//!
//! - One transport has three quarters of the handshakes at most. What fills one leaves room for the other.
//! - Once half of all are taken, a source that has a quarter of them over one transport is refused. Before that no address is refused.
//!   To get that far, an attacker with forged addresses needs half the packets that would shut out everybody without this rule.

use std::collections::HashMap;

use libp2p::{Multiaddr, swarm::ConnectionId};
use p2pnode_protocol::{Source, Transport};

use crate::core::{denied::Denied, source::decrement};

/// The handshakes of incoming connections that are not over.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// 0 is none.
    limit: usize,
    open: HashMap<ConnectionId, (Transport, Source)>,
    of_transports: HashMap<Transport, usize>,
    of_sources: HashMap<(Transport, Source), usize>,
}

impl Handshakes {
    /// None yet, of `limit` at once; 0 is no limit.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            open: HashMap::new(),
            of_transports: HashMap::new(),
            of_sources: HashMap::new(),
        }
    }

    /// One begins, if it may. What is no IP address is nobody's.
    pub(crate) fn begin(
        &mut self,
        connection: ConnectionId,
        remote: &Multiaddr,
    ) -> Result<(), Denied> {
        let (Some(transport), Some(source)) = (Transport::of(remote), Source::of(remote)) else {
            return Ok(());
        };
        // Without a limit there are no parts of it, and nothing to count.
        if self.limit == 0 {
            return Ok(());
        }
        if self.open.len() >= self.limit {
            return Err(Denied::Handshakes);
        }
        let quarter = self.limit.div_ceil(4);
        let of_transport = self
            .of_transports
            .get(&transport)
            .copied()
            .unwrap_or_default();
        if of_transport >= (self.limit - self.limit / 4) {
            return Err(Denied::TransportHandshakes(transport));
        }
        let of_source = self.of_sources.get(&(transport, source)).copied();
        if self.open.len() >= self.limit / 2 && of_source.unwrap_or_default() >= quarter {
            return Err(Denied::SourceHandshakes(transport, source));
        }
        self.open.insert(connection, (transport, source));
        *self.of_transports.entry(transport).or_default() += 1;
        *self.of_sources.entry((transport, source)).or_default() += 1;
        Ok(())
    }

    /// One is over, one way or the other.
    pub(crate) fn end(&mut self, connection: ConnectionId) {
        if let Some((transport, source)) = self.open.remove(&connection) {
            decrement(&mut self.of_transports, transport);
            decrement(&mut self.of_sources, (transport, source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 16;

    /// Handshakes that begin one after the other.
    struct Many {
        handshakes: Handshakes,
        next: usize,
    }

    impl Many {
        fn new(limit: usize) -> Self {
            Self {
                handshakes: Handshakes::new(u32::try_from(limit).expect("a small limit")),
                next: 0,
            }
        }

        fn begin(&mut self, remote: &str) -> Result<ConnectionId, Denied> {
            let connection = ConnectionId::new_unchecked(self.next);
            self.next += 1;
            let remote = remote.parse().expect("a multiaddr");
            self.handshakes
                .begin(connection, &remote)
                .map(|()| connection)
        }

        /// How many of many can be begun from there.
        fn flood(&mut self, remote: &str) -> usize {
            (0..4 * LIMIT)
                .filter(|_| self.begin(remote).is_ok())
                .count()
        }
    }

    fn tcp(host: u8) -> String {
        format!("/ip4/198.51.100.{host}/tcp/4")
    }

    fn quic(host: u8) -> String {
        format!("/ip4/198.51.100.{host}/udp/4/quic-v1")
    }

    #[test]
    fn one_source_alone_gets_half_and_then_others_still_get_a_quarter_each() {
        for of in [tcp, quic] {
            let mut many = Many::new(LIMIT);
            assert_eq!(many.flood(&of(1)), LIMIT / 2);
            let refused = many.begin(&of(1)).expect_err("it has its part");
            assert!(matches!(refused, Denied::SourceHandshakes(..)), "{refused}");
            assert_eq!(many.flood(&of(2)), LIMIT / 4);
        }
    }

    #[test]
    fn a_source_that_has_less_than_its_part_is_not_refused_for_another() {
        let mut many = Many::new(LIMIT);
        assert_eq!(many.flood(&tcp(1)), LIMIT / 2);
        for _ in 0..LIMIT / 4 {
            assert!(many.begin(&tcp(2)).is_ok());
        }
        assert!(many.begin(&tcp(2)).is_err());
    }

    #[test]
    fn what_is_forged_over_quic_leaves_room_for_tcp_from_the_same_address_and_the_other_way_round()
    {
        for (flood, other) in [
            (quic as fn(u8) -> String, tcp as fn(u8) -> String),
            (tcp, quic),
        ] {
            let mut many = Many::new(LIMIT);
            let begun: usize = (1..=LIMIT).map(|host| many.flood(&flood(host as u8))).sum();
            assert_eq!(begun, LIMIT * 3 / 4);
            let refused = many.begin(&flood(99)).expect_err("the transport is full");
            assert!(
                matches!(refused, Denied::TransportHandshakes(_)),
                "{refused}"
            );
            assert_eq!(many.flood(&other(1)), LIMIT / 4);
        }
    }

    #[test]
    fn a_handshake_that_is_over_makes_room_once_and_nothing_is_kept() {
        let mut many = Many::new(LIMIT);
        let first = many.begin(&tcp(1)).expect("the first");
        many.flood(&tcp(1));
        for _ in 0..LIMIT / 4 + 1 {
            let connection = ConnectionId::new_unchecked(1);
            many.handshakes.end(connection);
        }
        many.handshakes.end(first);
        for number in 0..many.next {
            many.handshakes.end(ConnectionId::new_unchecked(number));
        }
        assert!(many.handshakes.open.is_empty());
        assert!(many.handshakes.of_transports.is_empty());
        assert!(many.handshakes.of_sources.is_empty());
        assert_eq!(many.flood(&tcp(1)), LIMIT / 2);
    }

    #[test]
    fn an_ipv6_64_is_one_source() {
        let mut many = Many::new(LIMIT);
        assert_eq!(many.flood("/ip6/2001:db8:0:7::1/tcp/4"), LIMIT / 2);
        assert!(many.begin("/ip6/2001:db8:0:7::2/tcp/4").is_err());
        assert!(many.begin("/ip6/2001:db8:0:8::2/tcp/4").is_ok());
    }

    #[test]
    fn a_small_limit_admits_somebody_and_no_limit_everybody() {
        for limit in 1..4 {
            let mut many = Many::new(limit);
            assert!(many.begin(&tcp(1)).is_ok(), "{limit}");
        }
        assert_eq!(Many::new(0).flood(&tcp(1)), 4 * LIMIT);
    }

    #[test]
    fn a_refusal_names_the_source_and_the_key() {
        let source = Source::of(&tcp(7).parse().expect("a multiaddr")).expect("a source");
        let text = Denied::SourceHandshakes(Transport::Tcp, source).to_string();
        assert!(
            text.contains("198.51.100.7") && text.contains("TCP"),
            "{text}"
        );
        let text = Denied::TransportHandshakes(Transport::Quic).to_string();
        assert!(
            text.contains("limits.pending_connections") && text.contains("QUIC"),
            "{text}"
        );
    }
}
