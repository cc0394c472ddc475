//! The frames of a stream, and what each may hold.

use bytes::Bytes;

use super::messages::{Accept, Hello, Offer, Open, Refuse, Reset, Resume};

/// The most bytes of a [`Frame::Data`]: bulk over TCP moves in pieces of 64 KiB.
pub const MAX_DATA: usize = 64 << 10;

/// The most bytes of a [`Frame::Datagram`]: what UDP over IPv4 carries.
pub const MAX_DATAGRAM: usize = 65_507;

/// The most bytes of the body of every other frame.
pub const MAX_CONTROL: usize = 1 << 10;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Begins a session, or repeats that after a loss.
    Open(Open),
    /// Continues a session on this stream.
    Resume(Resume),
    /// The answer to `Open` and `Resume`.
    Accept(Accept),
    /// The answer to `Open` and `Resume`: no.
    Refuse(Refuse),
    /// Bytes. `offset` is that of the first.
    Data {
        /// How many bytes of this direction are before these.
        offset: u64,
        /// At least one byte, at most [`MAX_DATA`].
        bytes: Bytes,
    },
    /// This direction ends after `offset` bytes. It takes one offset itself.
    Fin {
        /// How many bytes the direction has.
        offset: u64,
    },
    /// What is confirmed, and how far the receiver may send.
    Ack {
        /// All below is delivered to the local socket.
        delivered: u64,
        /// The receiver of this frame may send what is below.
        limit: u64,
    },
    /// All below `limit` is sent, and the limit holds the sender back.
    Blocked {
        /// The limit.
        limit: u64,
    },
    /// Send again.
    Rewind {
        /// From this offset on.
        from: u64,
        /// The limit from now on. It may be lower than an earlier one.
        limit: u64,
    },
    /// The session ends at once.
    Reset(Reset),
    /// The sender needs nothing further, and forgets the session.
    Done,
    /// Which process speaks. Asked and answered, alone on its stream.
    Hello(Hello),
    /// One of the services that the sender offers to the receiver, behind a [`Hello`] that was asked for them.
    Offer(Offer),
    /// A datagram of the flow that the stream belongs to.
    Datagram(Bytes),
    /// A frame of a later version that may be skipped.
    Skipped(u8),
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A type that this version does not know, and may not skip.
    #[error("a frame of the unknown type {0}")]
    Unknown(u8),
    /// A length that frames of the type may not have.
    #[error("a frame of type {kind} has {length} bytes")]
    Length {
        /// The type.
        kind: u8,
        /// The length that the remote sent.
        length: usize,
    },
    /// A body that is no message of its type.
    #[error("a frame of type {0} has a body that is not valid")]
    Body(u8),
}
