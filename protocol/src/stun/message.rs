//! A message, its attributes, and what reading and writing them share.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

/// What follows the length of each message, so that STUN can share a port ([RFC 8489, section 5](https://www.rfc-editor.org/rfc/rfc8489#section-5)).
pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The length of the header in bytes.
pub const HEADER: usize = 20;

/// The length of an attribute's type and length.
pub const ATTRIBUTE: usize = 4;

/// The largest message in bytes: a request of coturn's tools with 1,500 bytes of padding fits.
pub const LARGEST: usize = 2048;

/// The port of STUN.
pub const PORT: u16 = 3478;

/// Whether a datagram that came to a port of QUIC is STUN: two zero bits, the magic cookie, and a length that agrees
/// ([RFC 9443](https://www.rfc-editor.org/rfc/rfc9443)). The first bits alone do not decide, because QUIC greases its fixed bit.
#[must_use]
pub fn is_stun(datagram: &[u8]) -> bool {
    let [first, _, high, low, a, b, c, d, ..] = *datagram else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    first & 0xc0 == 0
        && [a, b, c, d] == COOKIE
        && length % 4 == 0
        && datagram.len() == HEADER + length
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Asks for none.
    Indication,
    /// The answer.
    Success,
    /// The answer that names an error.
    Error,
}

/// Which request an answer answers: the magic cookie and 96 random bits, or 128 random bits of RFC 3489.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction(pub [u8; 16]);

impl Transaction {
    /// One with these random bits.
    #[must_use]
    pub fn new(random: [u8; 12]) -> Self {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&COOKIE);
        id[4..].copy_from_slice(&random);
        Self(id)
    }

    /// Whether it lacks the magic cookie.
    #[must_use]
    pub fn is_classic(&self) -> bool {
        self.0[..4] != COOKIE
    }
}

/// Where an answer shall come from (CHANGE-REQUEST).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// From the other address.
    pub ip: bool,
    /// From the other port.
    pub port: bool,
}

/// Which port of a relay: that of QUIC, or the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// The port that QUIC and STUN share.
    Quic,
    /// The port of STUN alone.
    Second,
}

impl Port {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Quic => Self::Second,
            Self::Second => Self::Quic,
        }
    }
}

/// What a relay of this project adds to its answer if it is asked (an attribute of our own, which others ignore).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayInfo {
    /// Its second port; 0 without one, and in a request.
    pub second_port: u16,
    /// Its clock, in milliseconds of Unix time; 0 in a request.
    pub unix_ms: u64,
    /// In a request: the answer shall have as many bytes as the request. It shows what length comes in.
    pub pads: bool,
    /// In an answer: a NAT in front of the relay replaces the source addresses, and this is one of its own.
    pub is_hidden: bool,
}

/// A request that a relay passes to its partner, for an answer from there (an attribute of our own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnBehalf {
    /// Who asks.
    pub asker: SocketAddr,
    /// The port at the asker's address that the answer shall go to, if it is another.
    pub to: Option<NonZeroU16>,
    /// The partner's port from which the answer shall come.
    pub from: Port,
    /// Whether the answer is a TCP connection.
    pub tcp: bool,
}

/// A binding message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its class.
    pub class: Class,
    /// Its transaction.
    pub transaction: Transaction,
    /// The address that the server sees (XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS).
    pub mapped: Option<SocketAddr>,
    /// Where the answer shall come from.
    pub change: Option<Change>,
    /// The port at the asker's address that the answer shall go to (RESPONSE-PORT).
    pub response_port: Option<NonZeroU16>,
    /// Where the answer comes from (RESPONSE-ORIGIN, SOURCE-ADDRESS).
    pub origin: Option<SocketAddr>,
    /// The server's other address (OTHER-ADDRESS, CHANGED-ADDRESS).
    pub other: Option<SocketAddr>,
    /// The code of an error.
    pub error: Option<u16>,
    /// Attributes that have to be understood and are not.
    pub unknown: Vec<u16>,
    /// Bytes of PADDING; they are not kept.
    pub padding: usize,
    /// What a relay of this project adds.
    pub info: Option<RelayInfo>,
    /// For whom it is asked.
    pub on_behalf: Option<OnBehalf>,
    /// Whether it ends with a FINGERPRINT.
    pub fingerprint: bool,
}

/// Why bytes are no binding message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end before the message does, or go on after it.
    #[error("its length does not agree")]
    Length,
    /// Another method, or no STUN.
    #[error("it is no binding message")]
    Type,
    /// An attribute is not what its type demands.
    #[error("attribute {0:#06x} is malformed")]
    Attribute(u16),
    /// The checksum differs.
    #[error("its fingerprint is wrong")]
    Fingerprint,
}

impl Message {
    /// The address that the server sees, if it is not that of a NAT in front of the server.
    #[must_use]
    pub fn shown(&self) -> Option<SocketAddr> {
        self.mapped.filter(|_| !self.hides())
    }

    /// Whether a NAT in front of the server has replaced the address of the asker.
    #[must_use]
    pub fn hides(&self) -> bool {
        self.info.is_some_and(|info| info.is_hidden)
    }

    /// A message with nothing in it.
    #[must_use]
    pub const fn new(class: Class, transaction: Transaction) -> Self {
        Self {
            class,
            transaction,
            mapped: None,
            change: None,
            response_port: None,
            origin: None,
            other: None,
            error: None,
            unknown: Vec::new(),
            padding: 0,
            info: None,
            on_behalf: None,
            fingerprint: false,
        }
    }
}

/// The types of attributes.
pub(super) mod kind {
    pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(crate) const RESPONSE_ADDRESS: u16 = 0x0002;
    pub(crate) const CHANGE_REQUEST: u16 = 0x0003;
    pub(crate) const SOURCE_ADDRESS: u16 = 0x0004;
    pub(crate) const CHANGED_ADDRESS: u16 = 0x0005;
    pub(crate) const USERNAME: u16 = 0x0006;
    pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(crate) const ERROR_CODE: u16 = 0x0009;
    pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub(crate) const REALM: u16 = 0x0014;
    pub(crate) const NONCE: u16 = 0x0015;
    pub(crate) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(crate) const PADDING: u16 = 0x0026;
    pub(crate) const RESPONSE_PORT: u16 = 0x0027;
    /// Before RFC 5389 had its number.
    pub(crate) const OLD_XOR_MAPPED_ADDRESS: u16 = 0x8020;
    pub(crate) const FINGERPRINT: u16 = 0x8028;
    pub(crate) const RESPONSE_ORIGIN: u16 = 0x802b;
    pub(crate) const OTHER_ADDRESS: u16 = 0x802c;
    /// Of our own, from the half that others ignore.
    pub(crate) const RELAY_INFO: u16 = 0xfa50;
    pub(crate) const ON_BEHALF: u16 = 0xfa51;

    /// Attributes below have to be understood.
    pub(crate) const OPTIONAL: u16 = 0x8000;
}

/// What FINGERPRINT's checksum is combined with.
pub(super) const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// The length of FINGERPRINT with its header.
pub(super) const FINGERPRINT_LENGTH: usize = 8;

/// An address combined with the transaction, as XOR-MAPPED-ADDRESS has it; its own inverse.
pub(super) fn xored(address: SocketAddr, transaction: &Transaction) -> SocketAddr {
    let key = transaction.0;
    let port = address.port() ^ u16::from_be_bytes([key[0], key[1]]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => combined(ip.octets(), key).into(),
        IpAddr::V6(ip) => combined(ip.octets(), key).into(),
    };
    SocketAddr::new(ip, port)
}

fn combined<const N: usize>(mut octets: [u8; N], key: [u8; 16]) -> [u8; N] {
    let pairs = octets.iter_mut().zip(key);
    pairs.for_each(|(byte, key)| *byte ^= key);
    octets
}

/// The checksum of Ethernet and ZIP.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let update = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    };
    !bytes.iter().fold(u32::MAX, update)
}
