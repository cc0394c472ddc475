//! Frames of this project's own protocols: a length in two bytes, big endian, and that many bytes of JSON.
//!
//! Readers ignore unknown fields, so a later version may add some.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Serialize, de::DeserializeOwned};

/// The most bytes of JSON in a frame, where a protocol sets no other limit. The longest message, a join token, has about 300
/// bytes; the rest is room for fields of later versions.
pub const MAX_MESSAGE: usize = 1024;

/// Writes one message of at most [`MAX_MESSAGE`] bytes and flushes.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` if the message is longer.
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    write_up_to(MAX_MESSAGE, stream, message).await
}

/// Reads one message of at most [`MAX_MESSAGE`] bytes.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` if the message is longer or is not a `T`.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    read_up_to(MAX_MESSAGE, stream).await
}

/// [`write()`] with a limit of `most` bytes. No frame holds more than 65535.
///
/// # Errors
///
/// As [`write()`].
pub async fn write_up_to<T: Serialize>(
    most: usize,
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u16::try_from(body.len())
        .ok()
        .filter(|length| usize::from(*length) <= most)
        .ok_or_else(|| too_long(body.len(), most))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// [`read`] with a limit of `most` bytes.
///
/// # Errors
///
/// As [`read`].
pub async fn read_up_to<T: DeserializeOwned>(
    most: usize,
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > most {
        return Err(too_long(length, most));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn too_long(length: usize, most: usize) -> io::Error {
    let text = format!("a message of {length} bytes exceeds the limit of {most}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A peer id as text, for `#[serde(with = "..")]`.
pub(crate) mod peer_id {
    use libp2p::PeerId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        peer: &PeerId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(peer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PeerId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reading and writing in memory, for the tests of messages.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod memory {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], body].concat()
    }

    pub(crate) fn written<T: Serialize>(most: usize, message: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        block_on(write_up_to(most, &mut bytes, message)).unwrap();
        bytes
    }

    pub(crate) fn read<T: DeserializeOwned>(most: usize, bytes: &[u8]) -> io::Result<T> {
        block_on(read_up_to(most, &mut Cursor::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_beyond_the_limit_is_neither_read_nor_written() {
        let error = memory::read::<String>(MAX_MESSAGE, &u16::MAX.to_be_bytes()).err();
        assert_eq!(
            error.map(|error| error.kind()),
            Some(io::ErrorKind::InvalidData)
        );
        let long = "x".repeat(MAX_MESSAGE);
        let written = futures::executor::block_on(write(&mut Vec::new(), &long)).err();
        assert_eq!(
            written.map(|error| error.kind()),
            Some(io::ErrorKind::InvalidData)
        );
    }
}
