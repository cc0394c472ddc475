//! `/p2pnode/probe/1`: a relay sends a nonce to a port of the address at which it sees the peer that asks.
//!
//! The nonce leaves from a port of the relay that has never been used for anything else. No NAT and no firewall expects it. If the
//! nonce arrives, the port is open to everybody. It is the transaction of a binding response of [STUN](crate::stun), in one datagram
//! or on one TCP connection.
//!
//! The answer says where the relay sends the nonce, and nothing about what becomes of it. Only the peer learns whether it arrives.
//!
//! A stream carries one [`Request`] and one [`Answer`], each in a [`json`](crate::frame::json) frame.

use std::{fmt, net::IpAddr, num::NonZeroU16};

use libp2p::StreamProtocol;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    exchange,
    mapping::Protocol,
    stun::{Class, Message, Transaction},
};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/probe/1");

/// The lowest port that is tried. Below are services of hosts, which no node maps.
pub const LOWEST_PORT: u16 = 1024;

/// The protocol, for [`exchange`].
#[derive(Debug)]
pub enum Probe {}

impl exchange::Protocol for Probe {
    const NAME: StreamProtocol = PROTOCOL;
    type Request = Request;
    type Answer = Answer;
}

/// What proves that a packet is an answer to a request: 96 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 12]);

impl Nonce {
    /// The transaction of the message that carries it.
    #[must_use]
    pub fn transaction(self) -> Transaction {
        Transaction::new(self.0)
    }

    /// The message that carries it to an address.
    #[must_use]
    pub fn message(self, to: std::net::SocketAddr) -> Vec<u8> {
        let mut message = Message::new(Class::Success, self.transaction());
        message.mapped = Some(to);
        message.encode()
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        let digits: Option<Vec<u32>> = text.as_bytes().iter().map(digit).collect();
        let bytes = digits.and_then(|digits| {
            let (pairs, []) = digits.as_chunks::<2>() else {
                return None;
            };
            let bytes = pairs
                .iter()
                .map(|[high, low]| u8::try_from(high * 16 + low).ok());
            <[u8; 12]>::try_from(bytes.collect::<Option<Vec<u8>>>()?).ok()
        });
        bytes
            .map(Self)
            .ok_or_else(|| D::Error::custom("a nonce has 24 hexadecimal digits"))
    }
}

/// Asks for a nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Over which protocol.
    pub protocol: Protocol,
    /// At which port.
    pub port: NonZeroU16,
    /// The nonce.
    pub nonce: Nonce,
}

/// What the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The nonce is on its way.
    Sent {
        /// The address at which the relay sees the peer.
        to: IpAddr,
    },
    /// The relay sends nothing.
    Refused(Refusal),
}

/// Why a relay sends no nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum Refusal {
    /// The port is below [`LOWEST_PORT`].
    Port,
    /// The relay does not see an address of the peer. The peer comes over a circuit or from the relay's own host, or a NAT in
    /// front of the relay hides it.
    Hidden,
    /// A reason that this version does not know.
    Other,
}

impl Refusal {
    /// The name in the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Hidden => "hidden",
            Self::Other => "other",
        }
    }
}

impl From<String> for Refusal {
    fn from(name: String) -> Self {
        let known = [Self::Port, Self::Hidden];
        let mut known = known.into_iter();
        known
            .find(|refusal| refusal.as_str() == name)
            .unwrap_or(Self::Other)
    }
}

impl From<Refusal> for &'static str {
    fn from(refusal: Refusal) -> Self {
        refusal.as_str()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_the_json_that_the_protocol_says() {
        let request = Request {
            protocol: Protocol::Udp,
            port: NonZeroU16::new(40017).unwrap(),
            nonce: Nonce([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xab, 0xff]),
        };
        let text = r#"{"protocol":"udp","port":40017,"nonce":"00010203040506070809abff"}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        let sent = Answer::Sent {
            to: "203.0.113.7".parse().unwrap(),
        };
        let json = |answer: &Answer| serde_json::to_string(answer).unwrap();
        assert_eq!(json(&sent), r#"{"sent":{"to":"203.0.113.7"}}"#);
        let refused = Answer::Refused(Refusal::Hidden);
        assert_eq!(json(&refused), r#"{"refused":"hidden"}"#);
        let later: Answer = serde_json::from_str(r#"{"refused":"full_moon"}"#).unwrap();
        assert_eq!(later, Answer::Refused(Refusal::Other));
        for wrong in [
            "",
            "00",
            "zz010203040506070809abff",
            "00010203040506070809abff00",
        ] {
            assert!(serde_json::from_str::<Nonce>(&format!("\"{wrong}\"")).is_err());
        }
        let zero = r#"{"protocol":"tcp","port":0,"nonce":"00010203040506070809abff"}"#;
        assert!(serde_json::from_str::<Request>(zero).is_err());
    }

    #[test]
    fn what_a_request_makes_a_relay_send_is_shorter_than_the_request() {
        let nonce = Nonce([255; 12]);
        let request = Request {
            protocol: Protocol::Udp,
            port: NonZeroU16::MAX,
            nonce,
        };
        let asked = serde_json::to_vec(&request).unwrap().len();
        for to in ["203.0.113.7:65535", "[2001:db8::7]:65535"] {
            let message = nonce.message(to.parse().unwrap());
            assert!(message.len() < asked);
            let read = Message::decode(&message).unwrap();
            assert_eq!(read.transaction, nonce.transaction());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,64}") {
            let _ = serde_json::from_str::<Nonce>(&serde_json::to_string(&text).unwrap());
            let _ = serde_json::from_str::<Request>(&text);
            let _ = serde_json::from_str::<Answer>(&text);
        }
    }
}
