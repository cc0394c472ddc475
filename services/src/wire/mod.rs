//! What goes over a stream of `/p2pnode/service/1`, in QUIC datagrams, and between a SOCKS5 client and this node.
//!
//! A stream carries [`Frame`]s both ways: a type in one byte, a length in three (big endian), and a body. The opener begins with
//! [`Frame::Open`], [`Frame::Resume`] or [`Frame::Hello`]. See decision 0700.

mod codec;
pub mod datagram;
mod frame;
pub mod fuzz;
mod messages;
mod offset;
pub mod socks;
#[cfg(test)]
mod tests;

pub use codec::{Decoder, HEADER, Header, encode};
pub use frame::{Error, Frame, MAX_CONTROL, MAX_DATA, MAX_DATAGRAM};
pub use messages::{
    Accept, Carries, Hello, Kind, Offer, Open, Refusal, Refuse, Reset, ResetReason, Resume,
};

use libp2p::StreamProtocol;

/// The name of the protocol.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pnode/service/1");

/// How much an opener may send before it has an answer, and the window with which each session starts: 256 KiB.
pub const FIRST_WINDOW: u64 = 256 << 10;

/// The bytes of a session's id.
pub const ID_LENGTH: usize = 16;

/// The id of a session: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; ID_LENGTH]);

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The first eight digits: who knows the whole id and is the right peer may resume.
impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
