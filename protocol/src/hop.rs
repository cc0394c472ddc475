//! `/p2pnode/hop/1`: a relay describes one leg of a circuit to the peer at the other end.
//!
//! A peer sees only the leg of a circuit that ends at itself. The relay sees both. It reports transport, IP family and round trip
//! time of the other leg to the two peers of the circuit, and to no other peer. It reports whether both are in one network.
//! Addresses it reports only if they are private ones in the network that the relay shares with both peers. Of addresses that the
//! asking peer names it reports at which it sees the other. A peer that guesses learns whether it guessed right.
//!
//! A stream carries one [`Request`] and one [`Answer`], each in a [`json`](frame::json) frame.

use std::{net::IpAddr, time::Duration};

use libp2p::{PeerId, StreamProtocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::frame::{MAX_MESSAGE, read, write};

use crate::{
    Family, Transport,
    exchange::{self, Reply},
    frame,
};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/hop/1");

/// The most addresses that a request names; the relay ignores the others.
pub const MAX_IPS: usize = 8;

/// A longer round trip time is discarded: no connection survives it.
const MAX_RTT: Duration = Duration::from_secs(60);

/// The protocol, for [`exchange`].
#[derive(Debug)]
pub enum Hop {}

impl exchange::Protocol for Hop {
    const NAME: StreamProtocol = PROTOCOL;
    type Request = Request;
    type Answer = Answer;
}

/// How a request ended for the peer that asked.
#[derive(Debug, Clone, PartialEq)]
pub enum HopReply {
    /// The other leg.
    Leg(Leg),
    /// The relay does not describe the leg.
    Refused(Refusal),
    /// The relay does not support the protocol: another implementation.
    Unsupported,
    /// No answer came in time.
    NoAnswer,
}

impl From<Reply<Answer>> for HopReply {
    fn from(reply: Reply<Answer>) -> Self {
        match reply {
            Reply::Answer(Answer::Leg(leg)) => Self::Leg(leg),
            Reply::Answer(Answer::Refused(refusal)) => Self::Refused(refusal),
            Reply::Unsupported => Self::Unsupported,
            Reply::NoAnswer => Self::NoAnswer,
        }
    }
}

/// Asks for the other leg of a circuit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The peer at the other end of the circuit.
    #[serde(with = "frame::json::peer_id")]
    pub peer: PeerId,
    /// Whether the asking peer dialed the circuit. Two peers may have dialed each other.
    pub dialed: bool,
    /// Addresses of which the other peer says that they are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
}

/// What the relay answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The other leg.
    Leg(Leg),
    /// The relay does not describe the leg.
    Refused(Refusal),
}

/// A connection between the relay and a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// Its transport.
    pub transport: Transport,
    /// Its IP family.
    pub family: Family,
    /// The round trip time that the relay's last ping measured; `None` before the first answer.
    #[serde(
        rename = "rtt_ms",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_rtt",
        deserialize_with = "read_rtt"
    )]
    pub rtt: Option<Duration>,
    /// What the two peers share.
    #[serde(default, flatten)]
    pub near: Near,
    /// At which of the addresses in the request the relay sees the other peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<IpAddr>,
}

/// What a relay sees that two peers share. The peers may then dial each other's private addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// Both show one public address (of IPv6, one /64).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_network: bool,
    /// The relay sees both at private addresses, or both on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<PrivateIps>,
}

/// The private addresses at which a relay sees the two peers of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateIps {
    /// The other peer's.
    pub other: IpAddr,
    /// The asking peer's.
    pub own: IpAddr,
}

/// Why the relay does not describe a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No circuit of this kind connects the asking peer with the other one.
    NotAParty,
    /// The relay does not know over which connection the circuit runs.
    Unknown,
    /// The peer asks too often.
    TooOften,
}

/// Milliseconds with one decimal: no ping is more precise.
fn write_rtt<S: Serializer>(rtt: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    rtt.map(|rtt| (rtt.as_secs_f64() * 10_000.0).round() / 10.0)
        .serialize(serializer)
}

/// A number that cannot be a round trip time becomes `None`.
fn read_rtt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let millis = Option::<f64>::deserialize(deserializer)?;
    Ok(millis
        .and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok())
        .filter(|rtt| *rtt <= MAX_RTT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io;

    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::frame::json::memory::{self, frame};

    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    fn written<T: Serialize>(message: &T) -> Vec<u8> {
        memory::written(MAX_MESSAGE, message)
    }

    fn read_from<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        memory::read(MAX_MESSAGE, bytes)
    }

    #[test]
    fn messages_are_the_json_that_the_protocol_says() {
        let request = Request {
            peer: PEER.parse().unwrap(),
            dialed: true,
            ips: Vec::new(),
        };
        let json = format!(r#"{{"peer":"{PEER}","dialed":true}}"#);
        assert_eq!(written(&request), frame(json.as_bytes()));
        let ips = vec![
            "198.51.100.7".parse().unwrap(),
            "2001:db8::7".parse().unwrap(),
        ];
        let json =
            format!(r#"{{"peer":"{PEER}","dialed":true,"ips":["198.51.100.7","2001:db8::7"]}}"#);
        assert_eq!(
            written(&Request {
                ips: ips.clone(),
                ..request
            }),
            frame(json.as_bytes())
        );
        let leg = Answer::Leg(Leg {
            transport: Transport::Quic,
            family: Family::Ip6,
            rtt: Some(Duration::from_micros(20_149)),
            near: Near::default(),
            seen: Vec::new(),
        });
        let json = r#"{"leg":{"transport":"quic","family":"ip6","rtt_ms":20.1}}"#;
        assert_eq!(written(&leg), frame(json.as_bytes()));
        let leg = Answer::Leg(Leg {
            transport: Transport::Tcp,
            family: Family::Ip4,
            rtt: None,
            near: Near::default(),
            seen: ips,
        });
        let json =
            r#"{"leg":{"transport":"tcp","family":"ip4","seen":["198.51.100.7","2001:db8::7"]}}"#;
        assert_eq!(written(&leg), frame(json.as_bytes()));
        let refused = Answer::Refused(Refusal::NotAParty);
        assert_eq!(written(&refused), frame(br#"{"refused":"not_a_party"}"#));
    }

    #[test]
    fn fields_of_a_later_version_are_ignored_and_a_missing_rtt_is_none() {
        let json = br#"{"leg":{"transport":"tcp","family":"ip4","jitter_ms":3}}"#;
        let Answer::Leg(leg) = read_from(&frame(json)).unwrap() else {
            panic!("no leg")
        };
        assert_eq!((leg.transport, leg.rtt), (Transport::Tcp, None));
    }

    #[test]
    fn a_number_that_is_no_round_trip_time_becomes_none() {
        for figure in ["-1", "1e300", "null", "60001"] {
            let json =
                format!(r#"{{"leg":{{"transport":"tcp","family":"ip4","rtt_ms":{figure}}}}}"#);
            let answer = read_from::<Answer>(&frame(json.as_bytes())).unwrap();
            let Answer::Leg(leg) = answer else {
                panic!("no leg")
            };
            assert_eq!(leg.rtt, None, "{figure}");
        }
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
            let _ = read_from::<Answer>(&bytes);
            if bytes.len() <= MAX_MESSAGE {
                let _ = read_from::<Answer>(&frame(&bytes));
            }
        }

        #[test]
        fn an_answer_is_read_as_it_was_written(quic in any::<bool>(), ip6 in any::<bool>(), rtt in prop::option::of(0_u64..600_000)) {
            let answer = Answer::Leg(Leg {
                transport: if quic { Transport::Quic } else { Transport::Tcp },
                family: if ip6 { Family::Ip6 } else { Family::Ip4 },
                rtt: rtt.map(|tenths| Duration::from_micros(tenths * 100)),
                near: Near::default(),
                seen: Vec::new(),
            });
            let Answer::Leg(read) = read_from(&written(&answer)).unwrap() else { panic!("no leg") };
            let Answer::Leg(sent) = answer else { panic!("no leg") };
            prop_assert_eq!((read.transport, read.family), (sent.transport, sent.family));
            let difference = read.rtt.unwrap_or_default().abs_diff(sent.rtt.unwrap_or_default());
            prop_assert!(read.rtt.is_some() == sent.rtt.is_some() && difference < Duration::from_micros(1));
        }
    }
}
