//! Join tokens: a relay signs that one peer may use it until some time.
//!
//! As text, a token is [`PREFIX`] and the base64url (without padding) of a libp2p [signed
//! envelope](https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md) of the relay's key. The payload is the
//! token's id (8 bytes), its expiry in seconds since 1970 (8 bytes, big endian), and the peer id. A relay can judge a token by
//! its content, the time and the revoked ids.
//!
//! A token names the peer, whose key the connection proves. Another peer cannot use it.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p::{PeerId, core::SignedEnvelope, identity::Keypair};
use multibase::Base;

pub use libp2p::identity::SigningError;

/// The start of every token, by which people and secret scanners recognize one.
pub const PREFIX: &str = "p2pjoin1_";

/// The most bytes of a token as text. With a usual key it has 240.
pub const MAX_TOKEN: usize = 512;

/// Separates tokens from everything else that the key of a relay signs.
const DOMAIN: &str = "p2pnode-join-token";
const PAYLOAD_TYPE: &[u8] = b"/p2pnode/join-token/1";

/// The last second of the year 9999, for dates with four digits of a year.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// A token with a valid signature. Whether a relay accepts it depends on the time, on the peer, on the relay, and on the revoked
/// ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The id, by which the relay can revoke the token.
    pub id: TokenId,
    /// The relay whose key signed the token.
    pub relay: PeerId,
    /// The peer that may present the token.
    pub peer: PeerId,
    /// When the token expires, in whole seconds.
    pub expires: SystemTime,
}

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The text does not begin with [`PREFIX`].
    #[error("does not begin with {PREFIX}; give a token as `relay-node token create` prints it")]
    Prefix,
    /// The text is longer than [`MAX_TOKEN`].
    #[error(
        "is longer than {MAX_TOKEN} bytes; give one token as `relay-node token create` prints it"
    )]
    TooLong,
    /// The text cannot be decoded.
    #[error("is damaged; copy the whole of what `relay-node token create` has printed")]
    Damaged,
    /// The signature is invalid.
    #[error(
        "has a signature that does not match; copy it again, or create another with `relay-node token create`"
    )]
    Signature,
}

impl Token {
    /// The text of a new token of the relay with this key. `expires` counts in whole seconds.
    ///
    /// # Errors
    ///
    /// If the key cannot sign.
    pub fn sign(
        key: &Keypair,
        id: TokenId,
        peer: &PeerId,
        expires: SystemTime,
    ) -> Result<String, SigningError> {
        let mut payload = id.0.to_vec();
        payload.extend(seconds(expires).to_be_bytes());
        payload.extend(peer.to_bytes());
        let envelope = SignedEnvelope::new(key, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)?;
        let bytes = envelope.into_protobuf_encoding();
        Ok(PREFIX.to_owned() + &Base::Base64Url.encode(bytes))
    }

    /// Decodes a token and verifies its signature.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn read(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_TOKEN {
            return Err(Malformed::TooLong);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(Malformed::Prefix)?;
        let damaged = |_| Malformed::Damaged;
        let bytes = Base::Base64Url.decode(encoded).map_err(damaged)?;
        let envelope =
            SignedEnvelope::from_protobuf_encoding(&bytes).map_err(|_| Malformed::Damaged)?;
        let (payload, key) = envelope
            .payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE)
            .map_err(|_| Malformed::Signature)?;
        let (id, rest) = payload.split_first_chunk().ok_or(Malformed::Damaged)?;
        let (expires, peer) = rest.split_first_chunk().ok_or(Malformed::Damaged)?;
        let expires = Duration::from_secs(u64::from_be_bytes(*expires));
        if expires > LATEST {
            return Err(Malformed::Damaged);
        }
        Ok(Self {
            id: TokenId(*id),
            relay: key.to_peer_id(),
            peer: PeerId::from_bytes(peer).map_err(|_| Malformed::Damaged)?,
            expires: UNIX_EPOCH + expires,
        })
    }

    /// Whether the token has expired at `now`.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires <= now
    }

    /// When the token expires, in the format of [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339).
    #[must_use]
    pub fn date(&self) -> String {
        humantime::format_rfc3339_seconds(self.expires).to_string()
    }
}

/// Seconds from 1970 to `time`, limited to what a token can hold.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.min(LATEST).as_secs()
}

/// The id of a token: 8 bytes, printed as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 8]);

impl TokenId {
    /// The id of 64 random bits.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        Self(bits.to_be_bytes())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        bits.map(Self::new).ok_or_else(|| {
            let remedy = if text.starts_with(PREFIX) {
                "is a whole token; give its id, as `relay-node token show` prints it"
            } else {
                "is not the id of a token; give 16 hexadecimal digits, as `relay-node token show` prints them"
            };
            format!("{} {remedy}", crate::quote(text))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signed() -> (Token, String) {
        let key = Keypair::generate_ed25519();
        let token = Token {
            id: TokenId::new(0x0123_4567_89ab_cdef),
            relay: key.public().to_peer_id(),
            peer: PeerId::random(),
            expires: at(1_800_000_000),
        };
        let text = Token::sign(&key, token.id, &token.peer, token.expires).unwrap();
        (token, text)
    }

    /// An envelope with another content than that of a token.
    fn enveloped(domain: &str, payload_type: &[u8], payload: &[u8]) -> String {
        let key = Keypair::generate_ed25519();
        let envelope =
            SignedEnvelope::new(&key, domain.to_owned(), payload_type.into(), payload.into());
        PREFIX.to_owned() + &Base::Base64Url.encode(envelope.unwrap().into_protobuf_encoding())
    }

    #[test]
    fn a_token_holds_what_was_signed() {
        let (token, text) = signed();
        assert_eq!(Token::read(&text), Ok(token));
        assert!(text.len() < MAX_TOKEN, "{}", text.len());
        assert_eq!(token.date(), "2027-01-15T08:00:00Z");
        assert_eq!(token.id.to_string(), "0123456789abcdef");
        assert!(!token.is_expired(at(1_799_999_999)));
        assert!(token.is_expired(at(1_800_000_000)));
    }

    #[test]
    fn a_token_that_is_cut_changed_or_signed_for_another_purpose_is_refused() {
        let (_, text) = signed();
        assert_eq!(Token::read(""), Err(Malformed::Prefix));
        assert_eq!(Token::read(&text[1..]), Err(Malformed::Prefix));
        assert_eq!(
            Token::read(&(text.clone() + &text)),
            Err(Malformed::Damaged)
        );
        assert_eq!(
            Token::read(&(PREFIX.to_owned() + &"A".repeat(MAX_TOKEN))),
            Err(Malformed::TooLong)
        );
        for end in PREFIX.len()..text.len() {
            assert!(Token::read(&text[..end]).is_err(), "cut at {end}");
        }
        let right: Vec<u8> = [[0_u8; 16].as_slice(), &PeerId::random().to_bytes()].concat();
        assert!(Token::read(&enveloped(DOMAIN, PAYLOAD_TYPE, &right)).is_ok());
        for (domain, payload_type) in [("other", PAYLOAD_TYPE), (DOMAIN, b"other")] {
            let text = enveloped(domain, payload_type, &right);
            assert_eq!(Token::read(&text), Err(Malformed::Signature));
        }
        let far: Vec<u8> = [[0xff_u8; 16].as_slice(), &PeerId::random().to_bytes()].concat();
        for payload in [&[][..], &right[..7], &right[..16], &right[..30], &far] {
            let text = enveloped(DOMAIN, PAYLOAD_TYPE, payload);
            assert_eq!(Token::read(&text), Err(Malformed::Damaged), "{payload:?}");
        }
    }

    #[test]
    fn any_time_can_be_written() {
        let key = Keypair::generate_ed25519();
        let peer = PeerId::random();
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let never = UNIX_EPOCH + Duration::from_secs(1 << 60);
        for (expires, date) in [
            (before, "1970-01-01T00:00:00Z"),
            (never, "9999-12-31T23:59:59Z"),
        ] {
            let text = Token::sign(&key, TokenId::new(1), &peer, expires).unwrap();
            assert_eq!(Token::read(&text).unwrap().date(), date);
        }
    }

    #[test]
    fn ids_are_sixteen_digits() {
        let id = TokenId::new(7);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "",
            "7",
            "+00000000000000f",
            "00000000000000007",
            "000000000000000g",
        ] {
            let error = wrong.parse::<TokenId>().unwrap_err();
            assert!(error.contains("16 hexadecimal digits"), "{error}");
        }
        let error = signed().1.parse::<TokenId>().unwrap_err();
        assert!(error.contains("give its id"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(p2pjoin1_)?\\PC{0,80}") {
            let _ = Token::read(&text);
        }

        #[test]
        fn a_token_with_another_byte_anywhere_is_refused(place in 9_usize..240, byte in "[A-Za-z0-9_-]") {
            let (token, mut text) = signed();
            let place = place.min(text.len() - 1);
            text.replace_range(place..=place, &byte);
            // The last digit holds bits that stand for nothing.
            if let Ok(read) = Token::read(&text) {
                prop_assert_eq!(read, token);
            }
        }
    }
}
