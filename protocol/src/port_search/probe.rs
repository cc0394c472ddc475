//! Probes: datagrams of 24 bytes with a MAC ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104)).
//!
//! Their first byte is one that neither QUIC nor STUN begins with ([RFC 9443](https://www.rfc-editor.org/rfc/rfc9443)), so they
//! share the sockets of both.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Nonce;

/// The length of a probe, in bytes.
pub const PROBE: usize = 24;

const MARK: [u8; 3] = [0x04, b'p', b'2'];
const SIGNED: usize = 8;

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Here is the sender.
    Probe,
    /// A probe has come here.
    Answer,
    /// The connection is made between this pair of sockets.
    Chosen,
}

/// Whose probe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The side that made the first offer.
    Asker,
    /// The side that answered it.
    Answerer,
}

impl Part {
    /// The part of the remote.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Asker => Self::Answerer,
            Self::Answerer => Self::Asker,
        }
    }
}

/// A probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// What it says.
    pub kind: Kind,
    /// Different in each probe of a side.
    pub seq: u32,
}

/// The key of one search.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key that two nonces make.
    #[must_use]
    pub fn new(asker: Nonce, answerer: Nonce) -> Self {
        Self(hmac(&[asker.0, answerer.0].concat()))
    }

    /// The bytes of a probe that this part sends.
    #[must_use]
    pub fn write(&self, from: Part, probe: Probe) -> [u8; PROBE] {
        let mut bytes = [0; PROBE];
        let kind = match probe.kind {
            Kind::Probe => 0,
            Kind::Answer => 1,
            Kind::Chosen => 2,
        };
        bytes[..3].copy_from_slice(&MARK);
        bytes[3] = kind;
        bytes[4..SIGNED].copy_from_slice(&probe.seq.to_be_bytes());
        let mac = self.mac(from, &bytes[..SIGNED]).finalize().into_bytes();
        bytes[SIGNED..].copy_from_slice(&mac[..PROBE - SIGNED]);
        bytes
    }

    /// The probe in these bytes, if this part has sent it.
    #[must_use]
    pub fn read(&self, from: Part, bytes: &[u8]) -> Option<Probe> {
        if !is_probe(bytes) {
            return None;
        }
        let (signed, mac) = bytes.split_at(SIGNED);
        self.mac(from, signed).verify_truncated_left(mac).ok()?;
        let kind = match signed[3] {
            0 => Kind::Probe,
            1 => Kind::Answer,
            2 => Kind::Chosen,
            _ => return None,
        };
        let seq = signed[4..].try_into().ok()?;
        Some(Probe {
            kind,
            seq: u32::from_be_bytes(seq),
        })
    }

    fn mac(&self, from: Part, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&[u8::from(from == Part::Answerer)]);
        mac.update(signed);
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Whether a datagram is a probe by its form.
#[must_use]
pub fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() == PROBE && datagram.starts_with(&MARK)
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "RFC 2104 takes a key of any length")]
    Hmac::new_from_slice(key).expect("a key of any length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(asker: u8, answerer: u8) -> Key {
        Key::new(Nonce([asker; 16]), Nonce([answerer; 16]))
    }

    #[test]
    fn a_probe_is_read_by_the_other_side_of_this_search_alone() {
        for kind in [Kind::Probe, Kind::Answer, Kind::Chosen] {
            let probe = Probe { kind, seq: 70_000 };
            let bytes = key(1, 2).write(Part::Asker, probe);
            assert!(is_probe(&bytes) && !crate::stun::is_stun(&bytes));
            assert_eq!(key(1, 2).read(Part::Asker, &bytes), Some(probe));
            assert_eq!(key(1, 2).read(Part::Answerer, &bytes), None, "reflected");
            for other in [key(2, 1), key(1, 3), key(3, 2)] {
                assert_eq!(other.read(Part::Asker, &bytes), None);
            }
        }
    }

    proptest! {
        #[test]
        fn one_changed_bit_makes_it_none(bit in 0..PROBE * 8, seq: u32) {
            let probe = Probe { kind: Kind::Answer, seq };
            let mut bytes = key(1, 2).write(Part::Answerer, probe);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key(1, 2).read(Part::Answerer, &bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(key(1, 2).read(Part::Asker, &bytes), None);
        }
    }
}
