//! What circuit relay v2 is written in: [protocol buffers](https://protobuf.dev/programming-guides/encoding/), each message behind
//! its length as a [varint](https://github.com/multiformats/unsigned-varint).
//!
//! Only what the two messages of the protocol need. A message is read byte for byte and nothing behind it, since what follows
//! is the circuit's.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The most bytes of a message, without its length; as in every implementation of the protocol.
pub const MAX_MESSAGE: usize = 4096;

/// The bytes of a varint of 64 bits.
const MAX_VARINT: usize = 10;

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The length has no end, or is no number.
    #[error("a length that is none")]
    Length,
    /// A message of more than [`MAX_MESSAGE`] bytes.
    #[error("a message of {0} bytes: the most are {MAX_MESSAGE}")]
    TooLong(u64),
    /// The stream ended before the message did.
    #[error("the message is cut off")]
    Truncated,
    /// The stream is gone.
    #[error(transparent)]
    Lost(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated
        } else {
            Self::Lost(error)
        }
    }
}

/// Reads one message. No more than [`MAX_MESSAGE`] bytes are held, and none behind the message is read.
///
/// # Errors
/// If none comes: see [`Unread`].
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Unread> {
    let (mut length, mut bytes) = ([0; MAX_VARINT], 0);
    let length = loop {
        let byte = length.get_mut(bytes..=bytes).ok_or(Unread::Length)?;
        stream.read_exact(byte).await?;
        bytes += 1;
        if length[bytes - 1] & 0x80 == 0 {
            break varint(&length[..bytes]).ok_or(Unread::Length)?.0;
        }
    };
    let fits = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_MESSAGE);
    let mut message = vec![0; fits.ok_or(Unread::TooLong(length))?];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message.
///
/// # Errors
/// Those of the stream.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(message.len() + 2);
    push_varint(&mut frame, message.len() as u64);
    frame.extend_from_slice(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field of the protocol has.
    Fixed,
}

/// The fields of `message`, with their numbers; an error where it is none.
pub(super) fn fields(
    mut message: &[u8],
) -> impl Iterator<Item = Result<(u64, Value<'_>), NotAMessage>> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let field = field(message);
        message = field.map_or(&[], |(_, _, rest)| rest);
        Some(
            field
                .map(|(number, value, _)| (number, value))
                .ok_or(NotAMessage),
        )
    })
}

/// Bytes that are no protocol buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAMessage;

fn field(message: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (key, rest) = varint(message)?;
    let number = key >> 3;
    if number == 0 {
        return None;
    }
    match key & 7 {
        0 => varint(rest).map(|(value, rest)| (number, Value::Number(value), rest)),
        1 => Some((number, Value::Fixed, rest.get(8..)?)),
        2 => {
            let (length, rest) = varint(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((number, Value::Bytes(bytes), rest))
        }
        5 => Some((number, Value::Fixed, rest.get(4..)?)),
        // Groups, which nobody has used for a decade, and kinds that do not exist.
        _ => None,
    }
}

/// The number that `bytes` begin with, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(MAX_VARINT) {
        let part = u64::from(byte & 0x7f);
        // The tenth byte has room for the last bit alone.
        if index == MAX_VARINT - 1 && part > 1 {
            return None;
        }
        number |= part << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        push_varint(&mut self.0, field << 3);
        push_varint(&mut self.0, value);
        self
    }

    pub(super) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        push_varint(&mut self.0, (field << 3) | 2);
        push_varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn message(self, field: u64, message: Option<Self>) -> Self {
        match message {
            Some(message) => self.bytes(field, &message.0),
            None => self,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn reads(bytes: &[u8]) -> (Result<Vec<u8>, Unread>, u64) {
        let mut stream = Cursor::new(bytes);
        let read = block_on(read(&mut stream));
        (read, stream.position())
    }

    #[test]
    fn nothing_behind_a_message_is_read() {
        let (read, position) = reads(&[2, 8, 0, 77, 77]);
        assert_eq!(read.unwrap(), [8, 0]);
        assert_eq!(position, 3);
        assert_eq!(reads(&[0, 77]).0.unwrap(), [0; 0]);
    }

    #[test]
    fn what_is_too_long_endless_or_cut_off_is_told_apart() {
        assert!(matches!(reads(&[]).0, Err(Unread::Truncated)));
        assert!(matches!(reads(&[0x80]).0, Err(Unread::Truncated)));
        assert!(matches!(reads(&[5, 1, 2]).0, Err(Unread::Truncated)));
        assert!(matches!(reads(&[0x81, 0x20]).0, Err(Unread::TooLong(4097))));
        let endless = reads(&[0xff; 64]);
        assert!(matches!(endless.0, Err(Unread::Length)));
        assert_eq!(endless.1, 10, "and no more is read");
        let longest = [&[0x80, 0x20][..], &[0; 4096]].concat();
        assert_eq!(reads(&longest).0.unwrap().len(), MAX_MESSAGE);
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were_written(number: u64) {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, number);
            prop_assert_eq!(varint(&bytes), Some((number, &[][..])));
            for cut in 0..bytes.len() {
                prop_assert_eq!(varint(&bytes[..cut]), None);
            }
        }

        #[test]
        fn messages_of_any_length_that_fits_are_read_as_they_were_written(
            message in proptest::collection::vec(any::<u8>(), 0..=MAX_MESSAGE),
        ) {
            let mut stream = Cursor::new(Vec::new());
            block_on(write(&mut stream, &message)).unwrap();
            let written = stream.into_inner();
            let (read, position) = reads(&written);
            prop_assert_eq!(read.unwrap(), message);
            prop_assert_eq!(position, written.len() as u64);
        }

        #[test]
        fn fields_end_at_the_first_that_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let fields: Vec<_> = fields(&bytes).collect();
            prop_assert!(fields.len() <= bytes.len());
            let whole = fields.iter().take_while(|field| field.is_ok()).count();
            prop_assert!(fields.len() - whole <= 1);
        }
    }
}
