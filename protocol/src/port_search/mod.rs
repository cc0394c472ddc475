//! A search for a pair of ports through NATs that map by destination: what two nodes send each other, and their probes.
//!
//! Each side describes its NAT in an [`Offer`]. A relay passes it on with an introduction
//! ([`introduction`](crate::introduction)): the offer of the peer that asks, then the answer of the other one. From both, and
//! from the two nonces in them, each side makes the same plan and the same [`Key`]. [`Probe`]s carry a MAC by that key.

mod probe;

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use probe::{Key, Kind, PROBE, Part, Probe, is_probe};

/// The most sockets that a side opens: what a NAT of a home may give to one host among others.
pub const MAX_SOCKETS: u16 = 256;

/// Sockets of a side that have sent to nobody but the relay.
pub const FRESH: usize = 2;

/// The lowest port that NATs map to.
pub const LOWEST_PORT: u16 = 1024;

/// What one side offers, or how it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// This side's share of the key.
    pub nonce: Nonce,
    /// The nonce of the offer that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Nonce>,
    /// Where this side is, and how its NAT maps.
    pub side: Side,
}

/// One side of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The mapping of the punch socket of QUIC, as the relay sees it.
    pub mapped: SocketAddr,
    /// The ports of mappings to other destinations; `None` if they are the same for every destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// The sockets that this side opens if its ports are to be found.
    #[serde(default)]
    pub sockets: u16,
    /// Where the relay sees two sockets that have sent to nobody else, if the NAT has one mapping for every destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<[u16; FRESH]>,
}

/// Which ports a NAT gives to new mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Ports {
    /// Any.
    Random,
    /// Any from one to another, both included.
    Block {
        /// The lowest.
        from: u16,
        /// The highest.
        to: u16,
    },
    /// One after another.
    Sequential {
        /// The one that was given last.
        last: u16,
        /// From one to the next.
        step: u16,
    },
}

impl Offer {
    /// Whether a relay that sees the sender at these addresses may pass it on: so nobody is named but the sender.
    #[must_use]
    pub fn is_of(&self, seen: impl IntoIterator<Item = std::net::IpAddr>) -> bool {
        let named = self.side.mapped.ip().to_canonical();
        self.is_sound() && seen.into_iter().any(|ip| ip.to_canonical() == named)
    }

    /// Whether its numbers may be.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        let ports = match self.side.ports {
            None | Some(Ports::Random) => true,
            Some(Ports::Block { from, to }) => 0 < from && from <= to,
            Some(Ports::Sequential { last, step }) => last > 0 && step > 0,
        };
        let fresh = match self.side.fresh {
            None => true,
            Some([one, other]) => one > 0 && other > 0,
        };
        ports && fresh && self.side.sockets <= MAX_SOCKETS && self.side.mapped.port() > 0
    }
}

/// Reads an offer of this version; another is none.
///
/// # Errors
///
/// Those of the reader.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Offer>, D::Error> {
    let value = serde_json::Value::deserialize(reader)?;
    Ok(serde_json::from_value(value).ok().filter(Offer::is_sound))
}

/// Names an offer, and is a share of the key. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = (text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .then(|| u128::from_str_radix(&text, 16).ok())
            .flatten();
        let number = number.ok_or_else(|| D::Error::custom("a nonce has 32 hexadecimal digits"))?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const JSON: &str = r#"{"nonce":"000102030405060708090a0b0c0d0e0f","side":{"mapped":"203.0.113.9:40001","ports":{"kind":"block","from":20000,"to":21023},"sockets":50}}"#;

    fn read(json: &str) -> Option<Offer> {
        lenient(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn an_offer_is_the_json_that_the_protocol_says() {
        let offer = read(JSON).unwrap();
        assert_eq!(serde_json::to_string(&offer).unwrap(), JSON);
        let stable =
            r#"{"nonce":"000102030405060708090a0b0c0d0e0f","side":{"mapped":"[2001:db8::1]:1"}}"#;
        assert_eq!(read(stable).unwrap().side.ports, None);
        let fresh = stable.replace(":1\"", ":1\",\"fresh\":[40007,40008]");
        assert_eq!(read(&fresh).unwrap().side.fresh, Some([40007, 40008]));
        assert_eq!(read(&fresh.replace("40008", "0")), None);
    }

    #[test]
    fn an_offer_with_impossible_numbers_is_none() {
        for (good, bad) in [
            ("203.0.113.9:40001", "203.0.113.9:0"),
            ("\"from\":20000", "\"from\":0"),
            ("\"to\":21023", "\"to\":7"),
            ("\"sockets\":50", "\"sockets\":257"),
            ("\"kind\":\"block\"", "\"kind\":\"fractal\""),
            ("0f\"", "0g\""),
            ("0f\"", "\""),
            ("\"from\":20000,\"to\":21023", "\"from\":true"),
        ] {
            assert!(JSON.contains(good));
            assert_eq!(read(&JSON.replace(good, bad)), None, "{bad}");
        }
    }

    #[test]
    fn an_offer_names_no_address_at_which_the_relay_does_not_see_the_sender() {
        let offer = read(JSON).unwrap();
        let seen = |text: &str| [text.parse().unwrap()];
        assert!(offer.is_of(seen("203.0.113.9")));
        assert!(offer.is_of(seen("::ffff:203.0.113.9")));
        assert!(!offer.is_of(seen("203.0.113.10")));
        assert!(!offer.is_of([]));
    }
}
