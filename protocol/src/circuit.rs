//! The messages of [circuit relay v2](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md#protobuf).
//!
//! Over HOP a peer asks a relay for a reservation or a circuit ([`Request`]), and the relay answers ([`reserved`],
//! [`connected`], [`refused`]). Over STOP the relay asks the destination of a circuit ([`offer`]), and the destination answers
//! ([`decode_answer`]). Each message is one protocol buffer in a [`varint`] frame of at most [`MAX_MESSAGE`] bytes. Unknown
//! fields are skipped.

use std::{fmt, io, time::Duration};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use prost::Message as _;

use crate::frame::varint::{self, ReadError};

/// The protocol over which a peer asks a relay.
pub const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// The protocol over which a relay asks the destination of a circuit.
pub const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");

/// The most bytes of a message without its length, as in every implementation.
pub const MAX_MESSAGE: usize = 4096;

/// Reads the bytes of one message. Bytes behind the message belong to the circuit and stay unread.
///
/// # Errors
///
/// [`ReadError`].
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ReadError> {
    varint::read(MAX_MESSAGE, stream).await
}

/// Writes the bytes of one message and flushes.
///
/// # Errors
///
/// Those of the stream.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    varint::write(stream, message).await
}

/// The protocol buffers. All fields but those of a reservation are optional, as in the specification.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct HopMessage {
        #[prost(enumeration = "HopType", optional, tag = "1")]
        pub(super) r#type: Option<i32>,
        #[prost(message, optional, tag = "2")]
        pub(super) peer: Option<Peer>,
        #[prost(message, optional, tag = "3")]
        pub(super) reservation: Option<Reservation>,
        #[prost(message, optional, tag = "4")]
        pub(super) limit: Option<Limit>,
        #[prost(enumeration = "super::Status", optional, tag = "5")]
        pub(super) status: Option<i32>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum HopType {
        Reserve = 0,
        Connect = 1,
        Status = 2,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct StopMessage {
        #[prost(enumeration = "StopType", optional, tag = "1")]
        pub(super) r#type: Option<i32>,
        #[prost(message, optional, tag = "2")]
        pub(super) peer: Option<Peer>,
        #[prost(message, optional, tag = "3")]
        pub(super) limit: Option<Limit>,
        #[prost(enumeration = "super::Status", optional, tag = "4")]
        pub(super) status: Option<i32>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum StopType {
        Connect = 0,
        Status = 1,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Peer {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub(super) id: Option<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(super) addrs: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Reservation {
        /// Seconds since 1970.
        #[prost(uint64, required, tag = "1")]
        pub(super) expire: u64,
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub(super) addrs: Vec<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "3")]
        pub(super) voucher: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Limit {
        /// Seconds.
        #[prost(uint32, optional, tag = "1")]
        pub(super) duration: Option<u32>,
        /// Bytes.
        #[prost(uint64, optional, tag = "2")]
        pub(super) data: Option<u64>,
    }
}

use proto::{HopMessage, HopType, StopMessage, StopType};

/// How a request ended. The numbers are those of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// The relay granted the request, or the destination accepted the circuit.
    Ok = 100,
    /// The relay has no room for the reservation.
    ReservationRefused = 200,
    /// The relay has no room for the circuit.
    ResourceLimitExceeded = 201,
    /// The peer may not use the relay.
    PermissionDenied = 202,
    /// The destination did not accept the circuit.
    ConnectionFailed = 203,
    /// The destination has no reservation.
    NoReservation = 204,
    /// The request cannot be decoded.
    MalformedMessage = 400,
    /// The message is not a request.
    UnexpectedMessage = 401,
}

impl Status {
    /// The name in the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::ReservationRefused => "RESERVATION_REFUSED",
            Self::ResourceLimitExceeded => "RESOURCE_LIMIT_EXCEEDED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ConnectionFailed => "CONNECTION_FAILED",
            Self::NoReservation => "NO_RESERVATION",
            Self::MalformedMessage => "MALFORMED_MESSAGE",
            Self::UnexpectedMessage => "UNEXPECTED_MESSAGE",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The message cannot be decoded.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The message can be decoded, and another one was due.
    #[error("unexpected: {0}")]
    Unexpected(&'static str),
}

impl Fault {
    /// The status with which the relay answers.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Malformed(_) => Status::MalformedMessage,
            Self::Unexpected(_) => Status::UnexpectedMessage,
        }
    }
}

impl From<prost::DecodeError> for Fault {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed("no protocol buffer")
    }
}

/// What a peer asks over HOP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A reservation, or its renewal.
    Reserve,
    /// A circuit.
    Connect {
        /// The peer at the other end.
        destination: PeerId,
    },
}

impl Request {
    /// Decodes a `HopMessage`.
    ///
    /// # Errors
    ///
    /// If the message is not a request.
    pub fn decode(message: &[u8]) -> Result<Self, Fault> {
        let HopMessage { r#type, peer, .. } = HopMessage::decode(message)?;
        let number = r#type.ok_or(Fault::Malformed("no type"))?;
        match HopType::try_from(number) {
            Ok(HopType::Reserve) => Ok(Self::Reserve),
            Ok(HopType::Connect) => {
                let peer = peer.ok_or(Fault::Malformed("no destination"))?;
                let id = peer.id.ok_or(Fault::Malformed("a peer without id"))?;
                let destination =
                    PeerId::from_bytes(&id).map_err(|_| Fault::Malformed("an invalid peer id"))?;
                Ok(Self::Connect { destination })
            }
            Ok(HopType::Status) => Err(Fault::Unexpected("a status")),
            Err(_) => Err(Fault::Unexpected("a type that does not exist")),
        }
    }

    /// The `HopMessage`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (kind, peer) = match self {
            Self::Reserve => (HopType::Reserve, None),
            Self::Connect { destination } => (HopType::Connect, Some(destination.into())),
        };
        let message = HopMessage {
            r#type: Some(kind.into()),
            peer,
            ..HopMessage::default()
        };
        message.encode_to_vec()
    }
}

impl From<PeerId> for proto::Peer {
    fn from(peer: PeerId) -> Self {
        Self {
            id: Some(peer.to_bytes()),
            addrs: Vec::new(),
        }
    }
}

/// What a circuit may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How long the circuit may stay open; sent in whole seconds. `None`: no limit.
    pub duration: Option<Duration>,
    /// How many bytes it may carry. `None`: no limit.
    pub bytes: Option<u64>,
}

impl Limit {
    /// `None` if there is no limit: go-libp2p then uses the circuit like a direct connection.
    fn message(self) -> Option<proto::Limit> {
        // Part of a second becomes a whole one: 0 would mean no limit.
        let seconds = |limit: Duration| limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
        let limit = proto::Limit {
            duration: (self.duration.map(seconds))
                .map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            data: self.bytes,
        };
        (limit != proto::Limit::default()).then_some(limit)
    }
}

/// The `HopMessage` that grants a reservation until `expires`, in seconds since 1970, at these addresses of the relay. Addresses
/// that do not fit into a message are left out.
#[must_use]
pub fn reserved(expires: u64, addresses: &[Multiaddr], limit: Limit) -> Vec<u8> {
    /// More than all other fields take.
    const OTHERS: usize = 128;
    let mut reservation = proto::Reservation {
        expire: expires,
        ..proto::Reservation::default()
    };
    let mut length = reservation.encoded_len();
    for address in addresses {
        if length + address.len() + OTHERS < MAX_MESSAGE {
            // A tag, a length and the address.
            length += 1 + prost::length_delimiter_len(address.len()) + address.len();
            reservation.addrs.push(address.to_vec());
        }
    }
    hop_status(Status::Ok, Some(reservation), limit.message())
}

/// The `HopMessage` that grants a circuit.
#[must_use]
pub fn connected(limit: Limit) -> Vec<u8> {
    hop_status(Status::Ok, None, limit.message())
}

/// The `HopMessage` that refuses a request.
#[must_use]
pub fn refused(status: Status) -> Vec<u8> {
    hop_status(status, None, None)
}

fn hop_status(
    status: Status,
    reservation: Option<proto::Reservation>,
    limit: Option<proto::Limit>,
) -> Vec<u8> {
    let message = HopMessage {
        r#type: Some(HopType::Status.into()),
        peer: None,
        reservation,
        limit,
        status: Some(status.into()),
    };
    message.encode_to_vec()
}

/// The `StopMessage` that offers a circuit from `source`.
#[must_use]
pub fn offer(source: &PeerId, limit: Limit) -> Vec<u8> {
    let message = StopMessage {
        r#type: Some(StopType::Connect.into()),
        peer: Some((*source).into()),
        limit: limit.message(),
        status: None,
    };
    message.encode_to_vec()
}

/// Decodes the `StopMessage` with which a destination answers an offer. `None` is a status that the specification does not
/// have.
///
/// # Errors
///
/// If the message is not an answer.
pub fn decode_answer(message: &[u8]) -> Result<Option<Status>, Fault> {
    let StopMessage { r#type, status, .. } = StopMessage::decode(message)?;
    let number = r#type.ok_or(Fault::Malformed("no type"))?;
    match StopType::try_from(number) {
        Ok(StopType::Status) => {
            let code = status.ok_or(Fault::Malformed("no status"))?;
            Ok(Status::try_from(code).ok())
        }
        Ok(StopType::Connect) | Err(_) => Err(Fault::Unexpected("no status")),
    }
}

#[cfg(test)]
mod tests;
