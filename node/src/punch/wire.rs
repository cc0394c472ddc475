//! The messages of `/libp2p/dcutr`.
//!
//! One protobuf message, [`HolePunch`](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md), behind an unsigned
//! varint with its length. It has two fields, so it is written and read by hand; what a remote sends is bounded before it
//! is read, and an address that cannot be decoded costs only itself.
//!
//! A third field is ours. Other implementations skip it, as they do with every field that they do not know. In a CONNECT it
//! is the round trip time of the circuit, as the initiator has measured it while the circuit was made; a responder that
//! returns it in its answer dials half of it after the answer, without waiting for SYNC, and the initiator when the answer
//! arrives. Both dials cross as they do with SYNC, one message earlier.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Multiaddr;

/// The longest message that is read or written, in bytes, without its length prefix: the limit of the other
/// implementations.
pub(super) const MAX_MESSAGE: usize = 4096;

/// The most addresses that are taken from one message; the rest is counted and forgotten.
pub(super) const MAX_ADDRESSES: usize = 16;

const TYPE_CONNECT: u64 = 100;
const TYPE_SYNC: u64 = 300;

const FIELD_TYPE: u64 = 1;
const FIELD_ADDRESS: u64 = 2;
/// Ours: the round trip time of the circuit in microseconds.
const FIELD_RTT: u64 = 1001;

/// A message of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Carries the addresses where the sender may be reached.
    Connect(Addresses),
    /// Says that both sides dial now.
    Sync,
}

/// The addresses of a CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Those that could be read, at most [`MAX_ADDRESSES`].
    pub(super) known: Vec<Multiaddr>,
    /// How many were no multiaddr, or one too many.
    pub(super) skipped: usize,
    /// In a CONNECT: what a message and its answer take. In the answer: that it is gone by.
    pub(crate) rtt: Option<Duration>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// The length prefix is longer than any message may be.
    #[error("message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The bytes end within a field.
    #[error("message ends within a field")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("a number in the message has more than 64 bits")]
    Overflow,
    /// A field of a wire type that the protobuf encoding has retired or never had.
    #[error("field {field} has the unknown wire type {wire_type}")]
    WireType {
        /// The number of the field.
        field: u64,
        /// The wire type.
        wire_type: u8,
    },
    /// No field says which message it is.
    #[error("message has no type")]
    NoType,
    /// A type other than CONNECT and SYNC.
    #[error("message has the unknown type {0}")]
    UnknownType(u64),
}

impl Message {
    /// The message as it goes over the wire, its length first.
    ///
    /// Addresses that no longer fit into [`MAX_MESSAGE`] are left out, last first.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        let (kind, addresses) = match self {
            Self::Connect(addresses) => (TYPE_CONNECT, addresses.known.as_slice()),
            Self::Sync => (TYPE_SYNC, [].as_slice()),
        };
        put_varint(&mut body, FIELD_TYPE << 3);
        put_varint(&mut body, kind);
        if let Self::Connect(Addresses { rtt: Some(rtt), .. }) = self {
            put_varint(&mut body, FIELD_RTT << 3);
            put_varint(
                &mut body,
                u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            );
        }
        for address in addresses {
            let bytes = address.as_ref();
            let fits = body.len() + 1 + varint_len(bytes.len() as u64) + bytes.len() <= MAX_MESSAGE;
            if !fits {
                break;
            }
            put_varint(&mut body, FIELD_ADDRESS << 3 | 2);
            put_varint(&mut body, bytes.len() as u64);
            body.extend_from_slice(bytes);
        }
        let mut message = Vec::with_capacity(body.len() + 2);
        put_varint(&mut message, body.len() as u64);
        message.extend_from_slice(&body);
        message
    }

    /// Reads a message from its bytes, without the length prefix.
    ///
    /// Unknown fields are skipped, as protobuf asks. Of a repeated type the last one counts.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLong);
        }
        let mut rest = bytes;
        let mut kind = None;
        let mut addresses = Addresses::default();
        while !rest.is_empty() {
            let tag = take_varint(&mut rest)?;
            let (field, wire_type) = (tag >> 3, (tag & 7) as u8);
            match (field, wire_type) {
                (FIELD_TYPE, 0) => kind = Some(take_varint(&mut rest)?),
                (FIELD_ADDRESS, 2) => {
                    let address = take_bytes(&mut rest)?;
                    addresses.push(address);
                }
                (FIELD_RTT, 0) => {
                    addresses.rtt = Some(Duration::from_micros(take_varint(&mut rest)?));
                }
                (_, 0) => drop(take_varint(&mut rest)?),
                (_, 1) => drop(take(&mut rest, 8)?),
                (_, 2) => drop(take_bytes(&mut rest)?),
                (_, 5) => drop(take(&mut rest, 4)?),
                _ => return Err(DecodeError::WireType { field, wire_type }),
            }
        }
        match kind.ok_or(DecodeError::NoType)? {
            TYPE_CONNECT => Ok(Self::Connect(addresses)),
            TYPE_SYNC => Ok(Self::Sync),
            other => Err(DecodeError::UnknownType(other)),
        }
    }
}

impl Addresses {
    fn push(&mut self, bytes: &[u8]) {
        if self.known.len() == MAX_ADDRESSES {
            self.skipped += 1;
            return;
        }
        match Multiaddr::try_from(bytes.to_vec()) {
            Ok(address) => self.known.push(address),
            Err(_) => self.skipped += 1,
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

/// Reads one message. Nothing behind it is consumed.
///
/// Errors: those of the stream, and `InvalidData` with a [`DecodeError`] inside.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let len = read_len(stream).await?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Message::decode(&body).map_err(invalid)
}

/// Writes one message and flushes.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &Message,
) -> io::Result<()> {
    stream.write_all(&message.encode()).await?;
    stream.flush().await
}

/// The length prefix: two bytes reach for every length that is allowed, so a third is already too long.
async fn read_len(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut len = 0;
    for shift in [0, 7] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        len |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return if len <= MAX_MESSAGE {
                Ok(len)
            } else {
                Err(invalid(DecodeError::TooLong))
            };
        }
    }
    Err(invalid(DecodeError::TooLong))
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Overflow);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Overflow)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = usize::try_from(take_varint(rest)?).map_err(|_| DecodeError::Truncated)?;
    take(rest, len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sync_is_the_bytes_that_the_protobuf_definition_gives() {
        assert_eq!(Message::Sync.encode(), [3, 0x08, 0xac, 0x02]);
    }

    #[test]
    fn a_connect_is_the_bytes_that_the_protobuf_definition_gives() {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        let mut expected = vec![12, 0x08, 100, 0x12, 8];
        expected.extend_from_slice(address.as_ref());
        assert_eq!(Message::Connect(vec![address].into()).encode(), expected);
    }

    #[test]
    fn a_round_trip_time_is_a_field_that_others_skip() {
        let rtt = Some(Duration::from_millis(100));
        let bytes = Message::Connect(Addresses {
            rtt,
            ..Addresses::default()
        })
        .encode();
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
        put_varint(&mut over, MAX_MESSAGE as u64 + 1);
        over.resize(MAX_MESSAGE + 16, 0);
        assert_eq!(
            block_on(read(&mut Cursor::new(over))).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn more_addresses_than_fit_are_left_out_and_the_message_stays_within_its_limit() {
        let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(600)).parse().unwrap();
        let bytes = Message::Connect(vec![long; 10].into()).encode();
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
            let bytes = message.encode();
            prop_assert_eq!(block_on(read(&mut Cursor::new(&bytes))).unwrap(), message);
            let cut = cut.index(bytes.len());
            prop_assert!(block_on(read(&mut Cursor::new(&bytes[..cut]))).is_err());
        }

        #[test]
        fn a_varint_has_the_length_that_is_reckoned_for_it(value in any::<u64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(take_varint(&mut out.as_slice()), Ok(value));
        }
    }
}
