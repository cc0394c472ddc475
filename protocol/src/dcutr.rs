//! `/libp2p/dcutr`: the messages of [DCUtR](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md).
//!
//! Each message is one protocol buffer, `HolePunch`, in a [`varint`] frame. An address that cannot be
//! decoded is skipped; the others count.
//!
//! The field with the round trip time is this project's; other implementations skip it as an unknown field. In a CONNECT it
//! is the round trip time of the circuit, which the initiator measured while the circuit was opened. A responder that
//! supports the field returns it in its answer, and dials half of it later without waiting for SYNC. The initiator dials when
//! the answer arrives. Both dials cross as they do with SYNC, one message earlier.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Multiaddr, StreamProtocol};
use prost::Message as _;

use crate::frame::varint;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

/// The most bytes of a message without its length, as in the other implementations.
pub const MAX_MESSAGE: usize = 4096;

/// The most addresses that are read from one message. Further ones are counted and dropped.
pub const MAX_ADDRESSES: usize = 16;

/// A message of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The addresses at which the sender may be reached.
    Connect(Addresses),
    /// Both sides dial now.
    Sync,
}

/// The addresses of a CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses that could be decoded, at most [`MAX_ADDRESSES`].
    pub known: Vec<Multiaddr>,
    /// How many could not be decoded or exceeded the limit.
    pub skipped: usize,
    /// In a CONNECT the round trip time of the circuit; in the answer the one that the responder dials by.
    pub rtt: Option<Duration>,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are more than [`MAX_MESSAGE`] bytes.
    #[error("message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The bytes are not a `HolePunch`.
    #[error(transparent)]
    Malformed(#[from] prost::DecodeError),
    /// The message has no type.
    #[error("message has no type")]
    NoType,
    /// The type is neither CONNECT nor SYNC.
    #[error("message has the unknown type {0}")]
    UnknownType(i32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct HolePunch {
    #[prost(enumeration = "Type", optional, tag = "1")]
    r#type: Option<i32>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    obs_addrs: Vec<Vec<u8>>,
    /// Not in the specification.
    #[prost(uint64, optional, tag = "1001")]
    rtt_micros: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum Type {
    Connect = 100,
    Sync = 300,
}

impl Message {
    /// The message without its length. Addresses that exceed [`MAX_MESSAGE`] are left out, last first.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, addresses) = match self {
            Self::Connect(addresses) => (Type::Connect, Some(addresses)),
            Self::Sync => (Type::Sync, None),
        };
        let rtt = addresses.and_then(|addresses| addresses.rtt);
        let mut message = HolePunch {
            r#type: Some(kind.into()),
            obs_addrs: Vec::new(),
            rtt_micros: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        };
        for address in addresses.into_iter().flat_map(|addresses| &addresses.known) {
            message.obs_addrs.push(address.to_vec());
            if message.encoded_len() > MAX_MESSAGE {
                message.obs_addrs.pop();
                break;
            }
        }
        message.encode_to_vec()
    }

    /// Decodes a message without its length. Unknown fields are skipped.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLong);
        }
        let message = HolePunch::decode(bytes)?;
        let number = message.r#type.ok_or(DecodeError::NoType)?;
        match Type::try_from(number) {
            Ok(Type::Connect) => Ok(Self::Connect(message.into())),
            Ok(Type::Sync) => Ok(Self::Sync),
            Err(_) => Err(DecodeError::UnknownType(number)),
        }
    }
}

impl From<HolePunch> for Addresses {
    fn from(message: HolePunch) -> Self {
        let count = message.obs_addrs.len();
        let known: Vec<_> = message
            .obs_addrs
            .into_iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes).ok())
            .take(MAX_ADDRESSES)
            .collect();
        Self {
            skipped: count - known.len(),
            known,
            rtt: message.rtt_micros.map(Duration::from_micros),
        }
    }
}

impl From<Vec<Multiaddr>> for Addresses {
    fn from(known: Vec<Multiaddr>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }
}

/// Reads one message.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` with a [`DecodeError`] or a [`varint::ReadError`] inside.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let body = varint::read(MAX_MESSAGE, stream).await?;
    Message::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one message and flushes.
///
/// # Errors
///
/// Those of the stream.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    varint::write(stream, &message.encode()).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn written(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        block_on(write(&mut bytes, message)).unwrap();
        bytes
    }

    #[test]
    fn a_sync_is_the_bytes_that_the_protobuf_definition_gives() {
        assert_eq!(Message::Sync.encode(), [0x08, 0xac, 0x02]);
        assert_eq!(written(&Message::Sync), [3, 0x08, 0xac, 0x02]);
    }

    #[test]
    fn a_connect_is_the_bytes_that_the_protobuf_definition_gives() {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        let mut expected = vec![12, 0x08, 100, 0x12, 8];
        expected.extend_from_slice(address.as_ref());
        let message = Message::Connect(vec![address].into());
        assert_eq!(written(&message), expected);
    }

    #[test]
    fn a_round_trip_time_is_a_field_that_others_skip() {
        let rtt = Some(Duration::from_millis(100));
        let bytes = written(&Message::Connect(Addresses {
            rtt,
            ..Addresses::default()
        }));
        // Field 1001 as a varint, which protobuf readers skip by its wire type.
        assert_eq!(bytes, [7, 0x08, 100, 0xc8, 0x3e, 0xa0, 0x8d, 0x06]);
        let read = Message::decode(&bytes[1..]);
        assert!(matches!(read, Ok(Message::Connect(addresses)) if addresses.rtt == rtt));
    }

    #[test]
    fn an_address_that_is_none_costs_only_itself() {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        let mut body = vec![0x08, 100, 0x12, 2, 0xff, 0xff, 0x12, 8];
        body.extend_from_slice(address.as_ref());
        assert_eq!(
            Message::decode(&body),
            Ok(Message::Connect(Addresses {
                known: vec![address],
                skipped: 1,
                rtt: None,
            }))
        );
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
        let mut endless = Cursor::new(vec![0xff; 64]);
        let error = block_on(read(&mut endless)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut over = Vec::new();
        prost::encode_length_delimiter(MAX_MESSAGE + 1, &mut over).unwrap();
        over.resize(MAX_MESSAGE + 16, 0);
        assert_eq!(
            block_on(read(&mut Cursor::new(over))).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn more_addresses_than_fit_are_left_out_and_the_message_stays_within_its_limit() {
        let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(600)).parse().unwrap();
        let bytes = written(&Message::Connect(vec![long; 10].into()));
        assert!(bytes.len() <= MAX_MESSAGE + 2);
        let Ok(Message::Connect(addresses)) = block_on(read(&mut Cursor::new(bytes))) else {
            panic!("no CONNECT")
        };
        assert_eq!(addresses.known.len(), 6);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            let decoded = Message::decode(&bytes);
            if let Ok(Message::Connect(addresses)) = &decoded {
                prop_assert!(addresses.known.len() <= MAX_ADDRESSES);
            }
            let _ = block_on(read(&mut Cursor::new(bytes)));
        }

        #[test]
        fn what_is_written_is_read_again(
            sockets in prop::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<bool>()), 0..MAX_ADDRESSES),
            rtt in prop::option::of(any::<u32>()),
            cut in any::<prop::sample::Index>(),
        ) {
            let known: Vec<Multiaddr> = sockets
                .into_iter()
                .map(|(ip, port, quic)| {
                    let ip = std::net::Ipv4Addr::from(ip);
                    let text = if quic { format!("/ip4/{ip}/udp/{port}/quic-v1") } else { format!("/ip4/{ip}/tcp/{port}") };
                    text.parse().unwrap()
                })
                .collect();
            let rtt = rtt.map(|micros| Duration::from_micros(micros.into()));
            let message = Message::Connect(Addresses { rtt, ..known.into() });
            let bytes = written(&message);
            prop_assert_eq!(block_on(read(&mut Cursor::new(&bytes))).unwrap(), message);
            let cut = cut.index(bytes.len());
            prop_assert!(block_on(read(&mut Cursor::new(&bytes[..cut]))).is_err());
        }
    }
}
