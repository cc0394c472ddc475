//! `/p2pnode/join/1`: a peer shows a relay that it may use it.
//!
//! A relay that requires [tokens](Token) admits a peer once the peer has presented one, on any of its connections. Until then the
//! relay grants that peer nothing, and soon closes the connection. A peer without a token asks as well, and so learns
//! whether it needs one.
//!
//! A stream carries one [`Request`] and one [`Answer`], each in a [`json`](crate::frame::json) frame.

mod token;

use std::fmt;

use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};

pub use token::{MAX_TOKEN, Malformed, PREFIX, SigningError, Token, TokenId, seconds};

pub use crate::frame::{read, write};

use crate::exchange::{self, Reply};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/join/1");

/// The protocol, for [`exchange`].
#[derive(Debug)]
pub enum Join {}

impl exchange::Protocol for Join {
    const NAME: StreamProtocol = PROTOCOL;
    type Request = Request;
    type Answer = Answer;
}

/// How a request ended for the peer that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinReply {
    /// The peer may use the relay.
    Admitted,
    /// The peer may not use the relay.
    Refused(Refusal),
    /// The relay does not support the protocol, and so requires no token.
    Unsupported,
    /// No answer came in time.
    NoAnswer,
}

impl From<Reply<Answer>> for JoinReply {
    fn from(reply: Reply<Answer>) -> Self {
        match reply {
            Reply::Answer(Answer::Admitted(_)) => Self::Admitted,
            Reply::Answer(Answer::Refused(refusal)) => Self::Refused(refusal),
            Reply::Unsupported => Self::Unsupported,
            Reply::NoAnswer => Self::NoAnswer,
        }
    }
}

/// Asks to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Request {
    /// A [`Token`] as text. `None`: the relay may admit the peer by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A random number that the process drew when it started. Two that differ are two processes: see
    /// [`shared_key`](crate::shared_key).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
}

/// What the relay decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The peer may use the relay.
    Admitted(Admitted),
    /// The peer may not use the relay.
    Refused(Refusal),
}

/// How a peer is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// When the admission ends, in seconds since 1970. `None`: it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

crate::named! {
    /// Why a peer is not admitted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(from = "String", into = "&'static str")]
    pub enum Refusal {
        /// The relay requires a token, and the peer presented none.
        NoToken => "no_token",
        /// The text is not a token.
        Malformed => "malformed",
        /// Another relay signed the token.
        OtherRelay => "other_relay",
        /// The token names another peer.
        OtherPeer => "other_peer",
        /// The token has expired.
        Expired => "expired",
        /// The relay has revoked the token.
        Revoked => "revoked",
        /// The relay does not accept tokens, and its access rules do not allow the peer.
        NotAllowed => "not_allowed",
        /// The peer has presented too many invalid tokens.
        TooOften => "too_often",
        /// A reason that this version does not know.
        Other => "other",
    }
}

impl From<String> for Refusal {
    fn from(name: String) -> Self {
        let mut known = Self::ALL.into_iter();
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_the_json_that_the_protocol_says() {
        let json = |message: &Answer| serde_json::to_string(message).unwrap();
        let admitted = Answer::Admitted(Admitted { until: Some(7) });
        assert_eq!(json(&admitted), r#"{"admitted":{"until":7}}"#);
        let known = Answer::Admitted(Admitted { until: None });
        assert_eq!(json(&known), r#"{"admitted":{}}"#);
        assert_eq!(
            json(&Answer::Refused(Refusal::NoToken)),
            r#"{"refused":"no_token"}"#
        );
        assert_eq!(serde_json::to_string(&Request::default()).unwrap(), "{}");
        let named = Request {
            token: None,
            instance: Some(u64::MAX),
        };
        let json = serde_json::to_string(&named).unwrap();
        assert_eq!(json, r#"{"instance":18446744073709551615}"#);
    }

    #[test]
    fn each_reason_has_a_name_of_its_own_and_one_of_a_later_version_is_read() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from(refusal.to_string()), refusal);
        }
        let later = serde_json::from_str::<Answer>(r#"{"refused":"full_moon","by":3}"#);
        assert!(later.is_err(), "two answers at once are none");
        let later = serde_json::from_str::<Answer>(r#"{"refused":"full_moon"}"#);
        assert_eq!(later.unwrap(), Answer::Refused(Refusal::Other));
        let later = serde_json::from_str::<Request>(r#"{"token":"t","since":3}"#);
        assert_eq!(later.unwrap().token.as_deref(), Some("t"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = block_on(read::<Request>(&mut Cursor::new(&bytes)));
            let _ = block_on(read::<Answer>(&mut Cursor::new(&bytes)));
        }
    }
}
