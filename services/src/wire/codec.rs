//! Frames as bytes.
//!
//! A reader takes the [`Header`], then a buffer of exactly the length that the header names, then calls [`Header::body`].
//! [`Decoder`] does the same for bytes that come in pieces.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

use super::{
    SessionId,
    frame::{Error, Frame, MAX_CONTROL, MAX_DATA, MAX_DATAGRAM},
    messages,
    offset::MAX_OFFSET,
};

/// The bytes before a body.
pub const HEADER: usize = 4;

const OPEN: u8 = 1;
const RESUME: u8 = 2;
const ACCEPT: u8 = 3;
const REFUSE: u8 = 4;
const DATA: u8 = 5;
const FIN: u8 = 6;
const ACK: u8 = 7;
const BLOCKED: u8 = 8;
const REWIND: u8 = 9;
const RESET: u8 = 10;
const DONE: u8 = 11;
const HELLO: u8 = 12;
const DATAGRAM: u8 = 13;
const OFFER: u8 = 14;

/// Types from here on are skipped by who does not know them.
const SKIPPED: u8 = 64;

const OFFSET: usize = 8;

/// The type and length of a frame, found to be permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    length: usize,
}

impl Header {
    /// Reads the header of a frame.
    ///
    /// # Errors
    /// If there is no such type, or frames of the type never have that length.
    pub fn parse(header: [u8; HEADER]) -> Result<Self, Error> {
        let [kind, length @ ..] = header;
        let [high, middle, low] = length.map(usize::from);
        let length = high << 16 | middle << 8 | low;
        let permitted = match kind {
            DATA => OFFSET + 1..=OFFSET + MAX_DATA,
            FIN | BLOCKED => OFFSET..=OFFSET,
            ACK | REWIND => 2 * OFFSET..=2 * OFFSET,
            DONE => 0..=0,
            DATAGRAM => 0..=MAX_DATAGRAM,
            OPEN | RESUME | ACCEPT | REFUSE | RESET | HELLO | OFFER | SKIPPED.. => 0..=MAX_CONTROL,
            _ => return Err(Error::Unknown(kind)),
        };
        if !permitted.contains(&length) {
            return Err(Error::Length { kind, length });
        }
        Ok(Self { kind, length })
    }

    /// The bytes of the body.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The frame with this header and `body`, which has [`Self::length`] bytes. Data is not copied.
    ///
    /// # Errors
    /// If the body is no message of its type.
    pub fn body(self, mut body: Bytes) -> Result<Frame, Error> {
        let kind = self.kind;
        if body.len() != self.length {
            return Err(Error::Body(kind));
        }
        let frame = match kind {
            OPEN => Frame::Open(message::<messages::wire::Open, _>(kind, body)?),
            RESUME => Frame::Resume(message::<messages::wire::Resume, _>(kind, body)?),
            ACCEPT => Frame::Accept(message::<messages::wire::Accept, _>(kind, body)?),
            REFUSE => Frame::Refuse(message::<messages::wire::Refuse, _>(kind, body)?),
            RESET => Frame::Reset(message::<messages::wire::Reset, _>(kind, body)?),
            HELLO => Frame::Hello(message::<messages::wire::Hello, _>(kind, body)?),
            OFFER => Frame::Offer(message::<messages::wire::Offer, _>(kind, body)?),
            DATA => {
                let (offset, length) = (body.get_u64(), body.len() as u64);
                // Beyond this no session comes, and sums of offsets never overflow.
                if offset
                    .checked_add(length)
                    .is_none_or(|end| end > MAX_OFFSET)
                {
                    return Err(Error::Body(kind));
                }
                Frame::Data {
                    offset,
                    bytes: body,
                }
            }
            FIN => Frame::Fin {
                offset: offset(kind, &mut body)?,
            },
            ACK => Frame::Ack {
                delivered: offset(kind, &mut body)?,
                limit: offset(kind, &mut body)?,
            },
            BLOCKED => Frame::Blocked {
                limit: offset(kind, &mut body)?,
            },
            REWIND => Frame::Rewind {
                from: offset(kind, &mut body)?,
                limit: offset(kind, &mut body)?,
            },
            DONE => Frame::Done,
            DATAGRAM => Frame::Datagram(body),
            kind => Frame::Skipped(kind),
        };
        Ok(frame)
    }
}

fn offset(kind: u8, body: &mut Bytes) -> Result<u64, Error> {
    Some(body.get_u64())
        .filter(|offset| *offset <= MAX_OFFSET)
        .ok_or(Error::Body(kind))
}

fn message<W: Message + Default, T: TryFrom<W>>(kind: u8, body: Bytes) -> Result<T, Error> {
    let message = W::decode(body).map_err(|_| Error::Body(kind))?;
    T::try_from(message).map_err(|_| Error::Body(kind))
}

/// Appends the frame to `to`, except for its payload, which is returned: it is written behind, without a copy.
///
/// # Panics
/// If a message or payload is longer than its type permits. The constructors of messages bound what they hold.
pub fn encode(frame: Frame, to: &mut BytesMut) -> Option<Bytes> {
    let mut payload = None;
    match frame {
        Frame::Open(open) => put_message(to, OPEN, &messages::wire::Open::from(open)),
        Frame::Resume(resume) => put_message(to, RESUME, &messages::wire::Resume::from(resume)),
        Frame::Accept(accept) => put_message(to, ACCEPT, &messages::wire::Accept::from(accept)),
        Frame::Refuse(refuse) => put_message(to, REFUSE, &messages::wire::Refuse::from(refuse)),
        Frame::Reset(reset) => put_message(to, RESET, &messages::wire::Reset::from(reset)),
        Frame::Hello(hello) => put_message(to, HELLO, &messages::wire::Hello::from(hello)),
        Frame::Offer(offer) => put_message(to, OFFER, &messages::wire::Offer::from(offer)),
        Frame::Data { offset, bytes } => {
            put_header(to, DATA, OFFSET + bytes.len());
            to.put_u64(offset);
            payload = Some(bytes);
        }
        Frame::Fin { offset } => put_offsets(to, FIN, &[offset]),
        Frame::Ack { delivered, limit } => put_offsets(to, ACK, &[delivered, limit]),
        Frame::Blocked { limit } => put_offsets(to, BLOCKED, &[limit]),
        Frame::Rewind { from, limit } => put_offsets(to, REWIND, &[from, limit]),
        Frame::Done => put_header(to, DONE, 0),
        Frame::Datagram(bytes) => {
            put_header(to, DATAGRAM, bytes.len());
            payload = Some(bytes);
        }
        Frame::Skipped(kind) => put_header(to, kind.max(SKIPPED), 0),
    }
    payload
}

fn put_header(to: &mut BytesMut, kind: u8, length: usize) {
    let [.., high, middle, low] = length.to_be_bytes();
    let header = [kind, high, middle, low];
    Header::parse(header).expect("frames are made within their limits");
    to.extend_from_slice(&header);
}

fn put_offsets(to: &mut BytesMut, kind: u8, offsets: &[u64]) {
    put_header(to, kind, OFFSET * offsets.len());
    offsets.iter().for_each(|offset| to.put_u64(*offset));
}

fn put_message(to: &mut BytesMut, kind: u8, message: &impl Message) {
    put_header(to, kind, message.encoded_len());
    message.encode(to).expect("the buffer grows");
}

/// Takes frames out of bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: BytesMut,
}

impl Decoder {
    /// Bytes of the stream have come.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame that is complete.
    ///
    /// # Errors
    /// If the bytes are no frame. Then nothing behind them can be read.
    pub fn poll_frame(&mut self) -> Result<Option<Frame>, Error> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::parse(*header)?;
        if self.bytes.len() < HEADER + header.length() {
            return Ok(None);
        }
        self.bytes.advance(HEADER);
        let body = self.bytes.split_to(header.length()).freeze();
        header.body(body).map(Some)
    }
}

impl TryFrom<&[u8]> for SessionId {
    type Error = ();

    fn try_from(bytes: &[u8]) -> Result<Self, ()> {
        bytes.try_into().map(Self).map_err(|_| ())
    }
}
