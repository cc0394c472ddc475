//! `/p2pnode/meet/1`: a relay introduces two peers to each other, so that both punch while their circuit is still being
//! opened.
//!
//! DCUtR carries each side's addresses over the circuit, which takes several round trips to open. The relay already sees the
//! mappings of both. When the dialing peer asks, the relay sends both sides a message at the same moment. Each message has what
//! the relay observes of the other side, and what it sent there. Both dial as soon as the message arrives.
//!
//! The dialing peer asks on a stream of its own: one [`Request`] and one [`Answer`]. The relay opens a stream to the other peer
//! and sends one [`Notice`]; the peer closes the stream. All are [`json`](frame::json) frames of at most [`MAX_MESSAGE`] bytes.
//! Readers ignore unknown fields, addresses that cannot be decoded and those beyond [`MAX_ADDRS`].
//!
//! A peer that supports the protocol accepts `/tls/1.0.0` over TCP. The side that dials as the TLS client sends its first flight
//! along with the proposal, without waiting for consent.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, future::BoxFuture};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::{
    Transport,
    exchange::{self, Reply},
    frame,
    port_search::{self, Offer},
};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/meet/1");

/// The most addresses in a list: it bounds what a peer dials because of an introduction.
pub const MAX_ADDRS: usize = 8;

/// The most sockets on one IP address in a list: a mapping for each transport.
const SOCKETS_PER_IP: usize = 2;

/// The most bytes of an address as text. The longest that can be punched has 65.
const MAX_ADDR: usize = 128;

/// The most bytes of JSON in a frame: two full lists of the longest addresses, and room for fields of later versions.
pub const MAX_MESSAGE: usize = 4096;

/// What a peer asks of a relay, for [`exchange`].
#[derive(Debug)]
pub enum Introduce {}

impl exchange::Protocol for Introduce {
    const NAME: StreamProtocol = PROTOCOL;
    const MAX_MESSAGE: usize = MAX_MESSAGE;
    type Request = Request;
    type Answer = Answer;
}

/// How a request ended for the peer that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntroductionReply {
    /// The relay introduced both peers in this moment.
    Introduced(Introduction),
    /// The relay did not introduce them.
    Refused(Refusal),
    /// The relay does not support the protocol: another implementation.
    Unsupported,
    /// No answer came in time.
    NoAnswer,
}

impl From<Reply<Answer>> for IntroductionReply {
    fn from(reply: Reply<Answer>) -> Self {
        match reply {
            Reply::Answer(Answer::Introduced(introduction)) => Self::Introduced(introduction),
            Reply::Answer(Answer::Refused(refusal)) => Self::Refused(refusal),
            Reply::Unsupported => Self::Unsupported,
            Reply::NoAnswer => Self::NoAnswer,
        }
    }
}

/// What a relay sends to the peer that was asked for, for [`exchange`]. The answer is the end of the stream.
#[derive(Debug)]
pub enum Notify {}

impl exchange::Protocol for Notify {
    const NAME: StreamProtocol = PROTOCOL;
    const MAX_MESSAGE: usize = MAX_MESSAGE;
    type Request = Notice;
    type Answer = Received;

    /// Waits for the end. Without that, a stream that is negotiated lazily may end before the remote has agreed.
    fn read_answer(stream: &mut Stream) -> BoxFuture<'_, io::Result<Received>> {
        Box::pin(async {
            // A byte is not part of the protocol; nothing behind it is awaited.
            let _end = stream.read(&mut [0]).await?;
            Ok(Received)
        })
    }

    fn write_answer(_: &mut Stream, _: Received) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A peer has read a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received;

/// Asks to be introduced to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The peer to be introduced to.
    #[serde(with = "frame::json::peer_id")]
    pub peer: PeerId,
    /// Addresses of the asking peer that the relay cannot see.
    #[serde(default, with = "addresses")]
    pub addrs: Vec<Multiaddr>,
    /// For a search for ports, what the asking peer offers. The relay passes it on if it names no other address.
    #[serde(
        default,
        deserialize_with = "port_search::lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub search: Option<Offer>,
}

/// What the relay answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The relay sends a [`Notice`] to the other peer in this moment.
    Introduced(Introduction),
    /// The relay does not introduce the two.
    Refused(Refusal),
}

/// Where two peers are, for one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The other peer's addresses, which the receiver dials.
    #[serde(default, with = "addresses")]
    pub addrs: Vec<Multiaddr>,
    /// The receiver's own addresses, as the relay sends them to the other peer.
    #[serde(rename = "told", default, with = "addresses")]
    pub own_addrs: Vec<Multiaddr>,
}

/// Introduces a peer that asked to the one that it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The peer that asked.
    #[serde(with = "frame::json::peer_id")]
    pub peer: PeerId,
    /// Where the two are.
    #[serde(flatten)]
    pub introduction: Introduction,
    /// For a search for ports, what the peer offers, or how it answers. Then there is nothing to punch.
    #[serde(
        default,
        deserialize_with = "port_search::lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub search: Option<Offer>,
}

/// Why the relay does not introduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The peer holds no reservation here.
    NoReservation,
    /// The peer does not accept introductions: another implementation, or it does not punch.
    Unsupported,
    /// The relay has seen no transport and IP family that the two have in common.
    NothingInCommon,
    /// The asking peer asks too often, or too many ask for the other one.
    TooOften,
    /// The relay shuts down.
    Draining,
}

/// Keeps two sockets on each IP address: the first of each transport, or else the first two. So a list of addresses that somebody
/// else chose costs no host more than that.
pub fn cap_per_ip<T>(list: &mut Vec<T>, of: impl Fn(&T) -> (IpAddr, Transport)) {
    let mut first = HashSet::new();
    let mut kept = HashMap::<IpAddr, usize>::new();
    for item in list.iter() {
        let (ip, transport) = of(item);
        if first.insert((ip, transport)) {
            *kept.entry(ip).or_default() += 1;
        }
    }
    list.retain(|item| {
        let (ip, transport) = of(item);
        let kept = kept.entry(ip).or_default();
        first.remove(&(ip, transport)) || {
            let fits = *kept < SOCKETS_PER_IP;
            *kept += usize::from(fits);
            fits
        }
    });
}

/// Writes one message.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` if the message is longer than [`MAX_MESSAGE`].
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    frame::write_up_to(MAX_MESSAGE, stream, message).await
}

/// Reads one message.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` if the message is longer than [`MAX_MESSAGE`] or is not a `T`.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    frame::read_up_to(MAX_MESSAGE, stream).await
}

/// A list of addresses as text, cut to [`MAX_ADDRS`] by the writer and by the reader.
mod addresses {
    use super::{Deserialize as _, Deserializer, MAX_ADDR, MAX_ADDRS, Multiaddr, Serializer};

    pub(super) fn serialize<S: Serializer>(
        addrs: &[Multiaddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts = addrs.iter().map(Multiaddr::to_string);
        serializer.collect_seq(texts.filter(|text| text.len() <= MAX_ADDR).take(MAX_ADDRS))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Multiaddr>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let short = texts.iter().filter(|text| text.len() <= MAX_ADDR);
        Ok(short
            .filter_map(|text| text.parse().ok())
            .take(MAX_ADDRS)
            .collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::json::memory::{self, frame};

    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    fn written<T: Serialize>(message: &T) -> Vec<u8> {
        memory::written(MAX_MESSAGE, message)
    }

    fn read_from<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        memory::read(MAX_MESSAGE, bytes)
    }

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn introduction() -> Introduction {
        Introduction {
            addrs: addrs(&["/ip4/198.51.100.7/udp/40000/quic-v1"]),
            own_addrs: addrs(&["/ip4/203.0.113.9/tcp/40001"]),
        }
    }

    #[test]
    fn one_ip_address_has_two_sockets_in_a_list_one_of_each_transport_if_it_can() {
        let (one, other) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([1, 2, 3, 5]));
        let (quic, tcp) = (Transport::Quic, Transport::Tcp);
        let mut list = vec![
            (one, quic, 1),
            (one, quic, 2),
            (other, quic, 3),
            (other, quic, 4),
            (other, quic, 5),
            (one, tcp, 6),
            (one, tcp, 7),
        ];
        cap_per_ip(&mut list, |(ip, transport, _)| (*ip, *transport));
        let left: Vec<_> = list.into_iter().map(|(.., number)| number).collect();
        assert_eq!(left, [1, 3, 4, 6]);
    }

    #[test]
    fn messages_are_the_json_that_the_protocol_says() {
        let request = Request {
            peer: PEER.parse().unwrap(),
            addrs: addrs(&["/ip6/2001:db8::7/udp/40000/quic-v1"]),
            search: None,
        };
        let json = format!(r#"{{"peer":"{PEER}","addrs":["/ip6/2001:db8::7/udp/40000/quic-v1"]}}"#);
        assert_eq!(written(&request), frame(json.as_bytes()));
        let lists = r#""addrs":["/ip4/198.51.100.7/udp/40000/quic-v1"],"told":["/ip4/203.0.113.9/tcp/40001"]"#;
        let json = format!(r#"{{"introduced":{{{lists}}}}}"#);
        let introduced = Answer::Introduced(introduction());
        assert_eq!(written(&introduced), frame(json.as_bytes()));
        let refused = Answer::Refused(Refusal::NothingInCommon);
        assert_eq!(
            written(&refused),
            frame(br#"{"refused":"nothing_in_common"}"#)
        );
        let notice = Notice {
            peer: PEER.parse().unwrap(),
            introduction: introduction(),
            search: None,
        };
        let json = format!(r#"{{"peer":"{PEER}",{lists}}}"#);
        assert_eq!(written(&notice), frame(json.as_bytes()));
        assert_eq!(
            read_from::<Notice>(&frame(json.as_bytes())).unwrap(),
            notice
        );
    }

    fn offer() -> Offer {
        let json = r#"{"nonce":"000102030405060708090a0b0c0d0e0f","answers":"ff0102030405060708090a0b0c0d0e0f","side":{"mapped":"203.0.113.9:40001","ports":{"kind":"sequential","last":20000,"step":2},"sockets":50}}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_offer_to_search_travels_and_one_that_cannot_be_read_is_none() {
        let json = serde_json::json!({ "peer": PEER, "search": offer() }).to_string();
        let request = read_from::<Request>(&frame(json.as_bytes())).unwrap();
        assert_eq!(request.search, Some(offer()));
        let notice = read_from::<Notice>(&frame(json.as_bytes())).unwrap();
        assert_eq!(notice.search, Some(offer()));
        let json = json.replace("20000", "\"many\"");
        let request = read_from::<Request>(&frame(json.as_bytes())).unwrap();
        assert_eq!(request.search, None);
    }

    #[test]
    fn what_a_later_version_adds_is_ignored_and_what_is_missing_is_empty() {
        let json = format!(r#"{{"peer":"{PEER}","mood":"good"}}"#);
        let request = read_from::<Request>(&frame(json.as_bytes())).unwrap();
        assert!(request.addrs.is_empty());
        let json = br#"{"introduced":{"addrs":["/ip4/1.2.3.4/tcp/5","/new/7","nonsense"]}}"#;
        let answer = read_from::<Answer>(&frame(json)).unwrap();
        let Answer::Introduced(introduction) = answer else {
            panic!("refused")
        };
        assert_eq!(introduction.addrs, addrs(&["/ip4/1.2.3.4/tcp/5"]));
        assert!(introduction.own_addrs.is_empty());
    }

    #[test]
    fn lists_are_cut_by_the_writer_and_by_the_reader() {
        let many: Vec<String> = (1..=100)
            .map(|port| format!("/ip4/1.2.3.4/tcp/{port}"))
            .collect();
        let request = Request {
            peer: PEER.parse().unwrap(),
            addrs: many.iter().map(|text| text.parse().unwrap()).collect(),
            search: None,
        };
        let read = read_from::<Request>(&written(&request)).unwrap();
        assert_eq!(read.addrs, request.addrs[..MAX_ADDRS]);
        let json = serde_json::json!({ "peer": PEER, "addrs": many }).to_string();
        let read = read_from::<Request>(&frame(json.as_bytes())).unwrap();
        assert_eq!(read.addrs, request.addrs[..MAX_ADDRS]);
    }

    #[test]
    fn two_full_lists_of_the_longest_addresses_fit() {
        let longest = "/ip6/2001:db8:1111:2222:3333:4444:5555:6666/udp/40000/quic-v1";
        let full = addrs(&[longest; MAX_ADDRS]);
        let notice = Notice {
            peer: PEER.parse().unwrap(),
            introduction: Introduction {
                addrs: full.clone(),
                own_addrs: full,
            },
            search: Some(offer()),
        };
        let read = read_from::<Notice>(&written(&notice)).unwrap();
        assert_eq!(read, notice);
    }

    #[test]
    fn a_message_longer_than_the_limit_is_refused_unread() {
        let error = read_from::<Request>(&u16::MAX.to_be_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read_from::<Request>(&bytes);
            let _ = read_from::<Answer>(&frame(&bytes));
            let _ = read_from::<Notice>(&frame(&bytes));
        }
    }
}
