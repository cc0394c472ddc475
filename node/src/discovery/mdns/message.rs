//! The messages of [libp2p's discovery by multicast DNS](https://github.com/libp2p/specs/blob/master/discovery/mdns.md).
//!
//! Pure. A question asks for the PTR records of `_p2p._udp.local`. Each peer answers with one, which points to a random name, and
//! with TXT records of that name. Each of these holds one address: `dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{PTR, RData, TXT},
};

/// The service of libp2p's peers.
const SERVICE: &str = "_p2p._udp.local";

/// Where DNS-SD keeps the names of all services ([RFC 6763](https://www.rfc-editor.org/rfc/rfc6763), section 9).
const SERVICES: &str = "_services._dns-sd._udp.local";

/// How long an answer to one question may be kept, in seconds: the most that
/// [RFC 6762](https://www.rfc-editor.org/rfc/rfc6762), section 6.7, allows.
const TTL: u32 = 10;

/// The most addresses in an answer: with an IPv6 address each, compressed, they fit into 1232 bytes, which pass everywhere.
pub(super) const ADDRESSES: usize = 8;

/// What a string of a TXT record begins with.
const KEY: &[u8] = b"dnsaddr";

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Peers.
    Peers,
    /// Services of any kind.
    Services,
}

/// A question that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: u16,
    pub(super) subject: Subject,
}

/// The question for peers. It asks for answers to the asker alone.
pub(super) fn question(id: u16) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.questions.push(echo(Subject::Peers, true));
    bytes(&packet)
}

/// What a datagram asks for, if that is to be answered.
pub(super) fn asked(datagram: &[u8]) -> Option<Asked> {
    let packet = Packet::parse(datagram).ok()?;
    let is_query =
        !packet.has_flags(PacketFlag::RESPONSE) && packet.opcode() == OPCODE::StandardQuery;
    let subjects = packet.questions.iter().filter_map(|question| {
        let is_ptr = matches!(question.qtype, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY);
        let is_in = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        subject(&question.qname).filter(|_| is_ptr && is_in)
    });
    let subject = subjects.min_by_key(|subject| *subject == Subject::Services)?;
    is_query.then_some(Asked {
        id: packet.id(),
        subject,
    })
}

/// The answer of `peer`, with the first [`ADDRESSES`] of `addrs`; `instance` is its random name. `None` if there is no address.
/// For a one-shot query (`is_legacy`) the answer repeats the question.
pub(super) fn answer(
    asked: Asked,
    is_legacy: bool,
    instance: &str,
    peer: PeerId,
    addrs: &[Multiaddr],
) -> Option<Vec<u8>> {
    let record = |name, data| ResourceRecord::new(name, CLASS::IN, TTL, data);
    let mut packet = Packet::new_reply(if is_legacy { asked.id } else { 0 });
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    if is_legacy {
        packet.questions.push(echo(asked.subject, false));
    }
    let texts: Vec<String> = addrs
        .iter()
        .take(ADDRESSES)
        .map(|addr| format!("dnsaddr={addr}/p2p/{peer}"))
        .collect();
    match asked.subject {
        Subject::Services => {
            let service = RData::PTR(PTR(Name::new_unchecked(SERVICE)));
            packet
                .answers
                .push(record(Name::new_unchecked(SERVICES), service));
        }
        Subject::Peers if texts.is_empty() => return None,
        Subject::Peers => {
            let peer = RData::PTR(PTR(Name::new(instance).ok()?));
            packet
                .answers
                .push(record(Name::new_unchecked(SERVICE), peer));
            for text in &texts {
                let text = RData::TXT(TXT::new().with_string(text).ok()?);
                packet
                    .additional_records
                    .push(record(Name::new(instance).ok()?, text));
            }
        }
    }
    Some(bytes(&packet))
}

/// The addresses of `peer` in a datagram, without its id.
pub(super) fn addrs_of(datagram: &[u8], peer: &PeerId) -> Vec<Multiaddr> {
    let Ok(packet) = Packet::parse(datagram) else {
        return Vec::new();
    };
    if !packet.has_flags(PacketFlag::RESPONSE) || packet.rcode() != RCODE::NoError {
        return Vec::new();
    }
    let records = packet.answers.iter().chain(&packet.additional_records);
    let strings = records.filter_map(|record| {
        if let RData::TXT(text) = &record.rdata {
            Some(text.iter_raw())
        } else {
            None
        }
    });
    let addrs = strings.flatten().filter_map(|(key, value)| {
        let text = value.filter(|_| key.eq_ignore_ascii_case(KEY))?;
        let mut addr: Multiaddr = std::str::from_utf8(text).ok()?.parse().ok()?;
        (addr.pop()? == Protocol::P2p(*peer)).then_some(addr)
    });
    addrs.take(ADDRESSES).collect()
}

fn subject(name: &Name<'_>) -> Option<Subject> {
    let name = name.to_string();
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match () {
        () if is(SERVICE) => Some(Subject::Peers),
        () if is(SERVICES) => Some(Subject::Services),
        () => None,
    }
}

fn echo(subject: Subject, unicast: bool) -> Question<'static> {
    let name = match subject {
        Subject::Peers => SERVICE,
        Subject::Services => SERVICES,
    };
    Question::new(
        Name::new_unchecked(name),
        TYPE::PTR.into(),
        CLASS::IN.into(),
        unicast,
    )
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    // The names, strings and counts are made here, within their bounds.
    packet.build_bytes_vec_compressed().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INSTANCE: &str = "nae6ahkei5ooGhoo8aiquoo3ohthoo8i";

    fn addrs(count: u16) -> Vec<Multiaddr> {
        let long = |n| format!("/ip6/2001:db8:1111:2222:3333:4444:5555:{n:x}/udp/40000/quic-v1");
        (0x1000..0x1000 + count)
            .map(|n| long(n).parse().unwrap())
            .collect()
    }

    fn peers(id: u16) -> Asked {
        Asked {
            id,
            subject: Subject::Peers,
        }
    }

    #[test]
    fn a_question_is_understood_and_its_answer_as_well() {
        let peer = PeerId::random();
        assert_eq!(asked(&question(7)), Some(peers(7)));
        for is_legacy in [true, false] {
            let answer = answer(peers(7), is_legacy, INSTANCE, peer, &addrs(3)).unwrap();
            assert_eq!(addrs_of(&answer, &peer), addrs(3));
            assert_eq!(
                addrs_of(&answer, &PeerId::random()),
                Vec::<Multiaddr>::new()
            );
            assert_eq!(asked(&answer), None, "an answer is no question");
            let packet = Packet::parse(&answer).unwrap();
            let expected = if is_legacy { (7, 1) } else { (0, 0) };
            assert_eq!((packet.id(), packet.questions.len()), expected);
        }
        assert_eq!(addrs_of(&question(7), &peer), Vec::<Multiaddr>::new());
    }

    #[test]
    fn an_answer_fits_into_a_datagram_and_one_without_addresses_is_none() {
        let peer: PeerId = libp2p::identity::Keypair::generate_ed25519()
            .public()
            .to_peer_id();
        let answer_at = |addrs: &[Multiaddr]| answer(peers(0), true, INSTANCE, peer, addrs);
        let datagram = answer_at(&addrs(100)).unwrap();
        assert_eq!(addrs_of(&datagram, &peer).len(), ADDRESSES);
        assert!(datagram.len() <= 1232, "{} bytes", datagram.len());
        assert_eq!(answer_at(&[]), None);
    }

    #[test]
    fn the_question_of_the_specification_is_answered_whatever_its_case() {
        // The bytes of libp2p-mdns 0.49, with other letters.
        let mut datagram = vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        datagram.extend(b"\x04_P2p\x04_udp\x05LOCAL\x00\x00\x0c\x00\x01");
        assert_eq!(asked(&datagram), Some(peers(9)));
        let mut services = vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        services.extend(b"\x09_services\x07_dns-sd\x04_udp\x05local\x00\x00\x0c\x00\x01");
        let asked = asked(&services).unwrap();
        assert_eq!(asked.subject, Subject::Services);
        let answer = answer(asked, true, INSTANCE, PeerId::random(), &[]).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        let RData::PTR(PTR(name)) = &packet.answers[0].rdata else {
            panic!("{packet:?}");
        };
        assert_eq!(name.to_string(), SERVICE);
    }

    #[test]
    fn other_questions_are_nobodys_business_here() {
        for (name, kind) in [("_ipp._tcp.local", TYPE::PTR), (SERVICE, TYPE::A)] {
            let mut packet = Packet::new_query(1);
            let name = Name::new_unchecked(name);
            let question = Question::new(name, kind.into(), CLASS::IN.into(), false);
            packet.questions.push(question);
            assert_eq!(asked(&bytes(&packet)), None);
        }
    }

    proptest! {
        #[test]
        fn no_datagram_panics(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0..200_usize, byte in any::<u8>()) {
            let peer = PeerId::random();
            asked(&noise);
            addrs_of(&noise, &peer);
            let mut datagram = answer(peers(7), true, INSTANCE, peer, &addrs(2)).unwrap();
            if let Some(slot) = datagram.get_mut(at) {
                *slot = byte;
            }
            asked(&datagram);
            addrs_of(&datagram, &peer);
        }
    }
}
