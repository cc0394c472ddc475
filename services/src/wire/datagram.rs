//! QUIC datagrams ([RFC 9221](https://www.rfc-editor.org/rfc/rfc9221)) of flows: the flow's number, and the payload.
//!
//! The number is a variable-length integer as in [RFC 9000, section 16](https://www.rfc-editor.org/rfc/rfc9000#section-16). Its
//! lowest bit is set if the sender of the datagram opened the flow.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The number of a flow, unique among those that one process opened to one peer. Less than 2^29.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowNumber(u32);

/// Which side opened a flow, seen from the sender of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Opener {
    /// The sender.
    Sender,
    /// The receiver.
    Receiver,
}

impl FlowNumber {
    /// The greatest number: with the bit of the opener it takes four bytes.
    pub const MAX: u32 = (1 << 29) - 1;

    /// The least one.
    pub const FIRST: Self = Self(0);

    /// The greatest one.
    pub const LAST: Self = Self(Self::MAX);

    /// The flow `number`, if there can be such one.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// How many bytes stand before the payload.
    #[must_use]
    pub fn overhead(self) -> usize {
        match self.0 << 1 | 1 {
            ..0x40 => 1,
            0x40..0x4000 => 2,
            _ => 4,
        }
    }
}

/// The QUIC datagram that carries `payload`.
#[must_use]
pub fn encode(flow: FlowNumber, opener: Opener, payload: &[u8]) -> Bytes {
    let number = flow.0 << 1 | u32::from(opener == Opener::Sender);
    let mut bytes = BytesMut::with_capacity(flow.overhead() + payload.len());
    match flow.overhead() {
        1 => bytes.put_u8(number as u8),
        2 => bytes.put_u16(0x4000 | number as u16),
        _ => bytes.put_u32(0x8000_0000 | number),
    }
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The flow and the payload of a QUIC datagram. `None` if it has no number, or one that no flow can have.
#[must_use]
pub fn decode(mut datagram: Bytes) -> Option<(FlowNumber, Opener, Bytes)> {
    let first = *datagram.first()?;
    let number = match first >> 6 {
        0 => u32::from(datagram.try_get_u8().ok()?),
        1 => u32::from(datagram.try_get_u16().ok()? & 0x3fff),
        2 => datagram.try_get_u32().ok()? & 0x3fff_ffff,
        _ => return None,
    };
    let opener = match number & 1 {
        1 => Opener::Sender,
        _ => Opener::Receiver,
    };
    Some((FlowNumber(number >> 1), opener, datagram))
}
