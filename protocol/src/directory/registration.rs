//! What a record says, and who may say it.
//!
//! A record is a libp2p [peer record] in a [signed envelope]. Its sequence number is the time of signing in milliseconds. So a
//! newer record is known as such wherever both arrive. A record without addresses means that the peer has left.
//!
//! [peer record]: https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md
//! [signed envelope]: https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md

use libp2p::{
    Multiaddr, PeerId,
    core::{PeerRecord, SignedEnvelope},
    identity::{Keypair, SigningError},
    multiaddr::Protocol,
};
use prost::Message as _;

use super::{MAX_ADDRS, MAX_BYTES};
use crate::{
    Scope,
    addr::{self, Endpoint, Host},
};

/// What RFC 0003 separates its signatures from others with.
const DOMAIN: &str = "libp2p-peer-record";

/// The multicodec `libp2p-peer-record`.
const PAYLOAD_TYPE: [u8; 2] = [0x03, 0x01];

/// A record whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The peer that signed it, and that it is about.
    pub peer: PeerId,
    /// Which of two records of the peer is the newer one: that with the higher number.
    pub seq: u64,
    addrs: Vec<Multiaddr>,
}

/// Why a record is not one of the peer under whose id it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key is no peer id.
    #[error("its key is no peer id")]
    Key,
    /// It is longer than [`MAX_BYTES`].
    #[error("it has {0} bytes, and {MAX_BYTES} are the most")]
    Size(usize),
    /// It is no peer record, or not signed by the peer that it names.
    #[error("it is no peer record signed by its peer")]
    Signature,
    /// It is another peer's.
    #[error("it is signed by {0}, another peer")]
    Peer(PeerId),
    /// It has more than [`MAX_ADDRS`] addresses.
    #[error("it has {0} addresses, and {MAX_ADDRS} are the most")]
    Addresses(usize),
}

/// The addresses of a record that can be dialed. Whatever else it holds is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where the peer itself listens.
    pub direct: Vec<Multiaddr>,
    /// Where it holds reservations, in the order of the record.
    pub relays: Vec<ViaRelay>,
}

/// A relay that leads to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViaRelay {
    /// The relay.
    pub relay: PeerId,
    /// Its addresses.
    pub addrs: Vec<Multiaddr>,
}

impl Found {
    /// Whether the record leads nowhere.
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.relays.is_empty()
    }
}

impl Registration {
    /// The bytes of a record with these addresses, of which the first [`MAX_ADDRS`] that fit are taken.
    ///
    /// # Errors
    ///
    /// Of a key that cannot sign.
    pub fn sign(key: &Keypair, seq: u64, addrs: &[Multiaddr]) -> Result<Vec<u8>, SigningError> {
        // The rest of the record and the envelope take some 200 bytes with the keys that these programs make.
        let mut room = MAX_BYTES - 512;
        let addrs = addrs.iter().take(MAX_ADDRS).take_while(|addr| {
            let fits = addr.len() + 8 <= room;
            room = room.saturating_sub(addr.len() + 8);
            fits
        });
        let payload = encode(&key.public().to_peer_id(), seq, addrs);
        let envelope = SignedEnvelope::new(key, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)?;
        Ok(envelope.into_protobuf_encoding())
    }

    /// Reads the record that was found under `key`.
    ///
    /// # Errors
    ///
    /// If it is not a record of that peer, signed by it.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Self, Refused> {
        let peer = PeerId::from_bytes(key).map_err(|_| Refused::Key)?;
        if value.len() > MAX_BYTES {
            return Err(Refused::Size(value.len()));
        }
        let envelope =
            SignedEnvelope::from_protobuf_encoding(value).map_err(|_| Refused::Signature)?;
        let record =
            PeerRecord::from_signed_envelope_interop(envelope).map_err(|_| Refused::Signature)?;
        if record.peer_id() != peer {
            return Err(Refused::Peer(record.peer_id()));
        }
        if record.addresses().len() > MAX_ADDRS {
            return Err(Refused::Addresses(record.addresses().len()));
        }
        Ok(Self {
            peer,
            seq: record.seq(),
            addrs: record.addresses().to_vec(),
        })
    }

    /// Whether it says that the peer has left.
    pub fn is_withdrawal(&self) -> bool {
        self.addrs.is_empty()
    }

    /// The relays over which its circuits lead, each once.
    pub fn relays(&self) -> impl Iterator<Item = PeerId> {
        self.found().relays.into_iter().map(|via| via.relay)
    }

    /// What of it can be dialed.
    pub fn found(&self) -> Found {
        let mut found = Found::default();
        for addr in &self.addrs {
            match split(addr, &self.peer) {
                Some(Split::Direct(addr)) => found.direct.push(addr),
                Some(Split::Via(relay, addr)) => {
                    match found.relays.iter_mut().find(|via| via.relay == relay) {
                        Some(via) => via.addrs.push(addr),
                        None => found.relays.push(ViaRelay {
                            relay,
                            addrs: vec![addr],
                        }),
                    }
                }
                None => {}
            }
        }
        found
    }
}

/// Whether a listen address of this host is one for a record: what is reached from elsewhere. Circuits are; their relay says so.
pub fn publishable(listen: &Multiaddr) -> bool {
    if addr::is_circuit(listen) {
        return true;
    }
    addr::dialable(&listen.to_string()).is_ok_and(|endpoint| match endpoint.host {
        Host::Ip(ip) => Scope::is_global(ip),
        Host::Name(_) => false,
    })
}

enum Split {
    Direct(Multiaddr),
    Via(PeerId, Multiaddr),
}

/// An address of `peer`, without its id.
fn split(addr: &Multiaddr, peer: &PeerId) -> Option<Split> {
    let parts: Vec<Protocol<'_>> = addr.iter().collect();
    let parts = match parts.split_last() {
        Some((Protocol::P2p(last), rest)) if last == peer => rest,
        _ => &parts[..],
    };
    let of = |parts: &[Protocol<'_>]| -> Option<Endpoint> {
        let text = parts.iter().cloned().collect::<Multiaddr>().to_string();
        addr::dialable(&text).ok()
    };
    if let Some((Protocol::P2pCircuit, relay)) = parts.split_last() {
        let endpoint = of(relay)?;
        // A peer that calls itself a relay to itself leads in a circle.
        let relay = endpoint.peer.filter(|relay| relay != peer)?;
        return Some(Split::Via(relay, endpoint.addr));
    }
    let endpoint = of(parts)?;
    match (endpoint.peer, &endpoint.host) {
        // A name or an inner address of somebody else's network means another host here, or none.
        (None, Host::Ip(ip)) if Scope::is_global(*ip) => Some(Split::Direct(endpoint.addr)),
        _ => None,
    }
}

/// A `PeerRecord` of RFC 0003. libp2p's own has a sequence number in whole seconds, with which two records could be equal.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", required, tag = "1")]
    peer_id: Vec<u8>,
    #[prost(uint64, required, tag = "2")]
    seq: u64,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<AddressInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AddressInfo {
    #[prost(bytes = "vec", required, tag = "1")]
    multiaddr: Vec<u8>,
}

fn encode<'a>(peer: &PeerId, seq: u64, addrs: impl Iterator<Item = &'a Multiaddr>) -> Vec<u8> {
    let payload = Payload {
        peer_id: peer.to_bytes(),
        seq,
        addresses: addrs
            .map(|addr| AddressInfo {
                multiaddr: addr.to_vec(),
            })
            .collect(),
    };
    payload.encode_to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> (Keypair, PeerId) {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        (key, peer)
    }

    fn addrs(texts: &[String]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_record_is_read_as_it_was_signed_and_says_what_can_be_dialed() {
        let ((key, peer), relay) = (key(), PeerId::random());
        let public = "/ip4/203.0.113.10/udp/443/quic-v1";
        let inner = "/ip4/10.0.0.7/tcp/443";
        let via = |addr: &str| format!("{addr}/p2p/{relay}/p2p-circuit/p2p/{peer}");
        let listed = addrs(&[
            via(public),
            via(inner),
            "/ip6/2001:db8::7/tcp/443".to_owned(),
            // What means another host elsewhere, what leads in a circle, and what nobody here speaks.
            "/ip4/192.168.1.7/tcp/443".to_owned(),
            "/ip4/127.0.0.1/tcp/443".to_owned(),
            format!("{public}/p2p/{peer}/p2p-circuit"),
            "/ip4/203.0.113.10/udp/443".to_owned(),
        ]);
        let bytes = Registration::sign(&key, 1_700_000_000_123, &listed).unwrap();
        let read = Registration::read(&peer.to_bytes(), &bytes).unwrap();
        assert_eq!((read.peer, read.seq), (peer, 1_700_000_000_123));
        let found = read.found();
        assert_eq!(
            found.direct,
            addrs(&["/ip6/2001:db8::7/tcp/443".to_owned()])
        );
        assert_eq!(
            found.relays,
            [ViaRelay {
                relay,
                addrs: addrs(&[public.to_owned(), inner.to_owned()])
            }]
        );
    }

    #[test]
    fn a_payload_is_the_bytes_that_rfc_0003_gives() {
        let peer = PeerId::random();
        let id = peer.to_bytes();
        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/9".parse().unwrap();
        let length = u8::try_from(id.len()).unwrap();
        let head = [&[10, length][..], &id].concat();
        let none = [&head[..], &[16, 0]].concat();
        assert_eq!(encode(&peer, 0, std::iter::empty()), none);
        let one = [&head[..], &[16, 0xac, 2, 26, 10, 10, 8], addr.as_ref()].concat();
        assert_eq!(encode(&peer, 300, std::iter::once(&addr)), one);
    }

    #[test]
    fn a_record_without_addresses_withdraws() {
        let (key, peer) = key();
        let bytes = Registration::sign(&key, 1, &[]).unwrap();
        let read = Registration::read(&peer.to_bytes(), &bytes).unwrap();
        assert!(read.is_withdrawal() && read.found().is_empty());
    }

    #[test]
    fn a_record_signed_by_another_key_is_refused_under_whatever_name() {
        let ((key, peer), (other, stranger)) = (key(), self::key());
        let listed = addrs(&["/ip4/203.0.113.10/tcp/443".to_owned()]);
        let strangers = Registration::sign(&other, 1, &listed).unwrap();
        assert_eq!(
            Registration::read(&peer.to_bytes(), &strangers),
            Err(Refused::Peer(stranger))
        );
        // The stranger's signature under a record that names the peer.
        let payload = encode(&peer, 1, listed.iter());
        let envelope =
            SignedEnvelope::new(&other, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload).unwrap();
        let forged = envelope.into_protobuf_encoding();
        for named in [peer, stranger] {
            assert_eq!(
                Registration::read(&named.to_bytes(), &forged),
                Err(Refused::Signature)
            );
        }
        // A signature that was made for another purpose.
        let payload = encode(&peer, 1, listed.iter());
        let envelope =
            SignedEnvelope::new(&key, "other".to_owned(), PAYLOAD_TYPE.to_vec(), payload).unwrap();
        assert_eq!(
            Registration::read(&peer.to_bytes(), &envelope.into_protobuf_encoding()),
            Err(Refused::Signature)
        );
    }

    #[test]
    fn a_record_that_is_too_long_or_says_too_much_is_refused() {
        let (key, peer) = key();
        let name = peer.to_bytes();
        let long = vec![0; MAX_BYTES + 1];
        assert_eq!(
            Registration::read(&name, &long),
            Err(Refused::Size(MAX_BYTES + 1))
        );
        let listed = addrs(&vec!["/ip4/203.0.113.10/tcp/443".to_owned(); MAX_ADDRS + 1]);
        let payload = encode(&peer, 1, listed.iter());
        let envelope =
            SignedEnvelope::new(&key, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload).unwrap();
        assert_eq!(
            Registration::read(&name, &envelope.into_protobuf_encoding()),
            Err(Refused::Addresses(MAX_ADDRS + 1))
        );
        assert_eq!(Registration::read(b"key", &[]), Err(Refused::Key));
    }

    #[test]
    fn however_many_addresses_there_are_the_record_stays_within_its_bounds() {
        let ((key, peer), relay) = (key(), PeerId::random());
        let name = "x".repeat(60);
        let listed: Vec<_> = (0..100)
            .map(|n| {
                format!("/dns/{name}.{name}.{name}.n{n}/udp/443/quic-v1/p2p/{relay}/p2p-circuit")
            })
            .collect();
        let bytes = Registration::sign(&key, 1, &addrs(&listed)).unwrap();
        let read = Registration::read(&peer.to_bytes(), &bytes).unwrap();
        assert!(!read.is_withdrawal());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(key in prop::collection::vec(any::<u8>(), 0..64), value in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Registration::read(&key, &value);
            let _ = Registration::read(&PeerId::random().to_bytes(), &value);
        }

        #[test]
        fn any_sequence_number_survives(seq: u64) {
            let (key, peer) = key();
            let bytes = Registration::sign(&key, seq, &[]).unwrap();
            prop_assert_eq!(Registration::read(&peer.to_bytes(), &bytes).unwrap().seq, seq);
        }
    }
}
