//! Messages of our own protocols: each a frame, its length in two bytes, big endian, and that much JSON, at most
//! [`MAX_MESSAGE`] bytes where a protocol says nothing else. Unknown fields are ignored, so that either side may learn to say
//! more.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Serialize, de::DeserializeOwned};

/// The most bytes of JSON in a frame. The longest message, a join token, has about 300; the rest is room to say more.
pub const MAX_MESSAGE: usize = 1024;

/// Writes one message of at most [`MAX_MESSAGE`] bytes.
///
/// # Errors
///
/// Those of the stream, or if the message is longer.
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    write_up_to(MAX_MESSAGE, stream, message).await
}

/// Reads one message of at most [`MAX_MESSAGE`] bytes; no more than that is read or held.
///
/// # Errors
///
/// Those of the stream, or if what comes is no such message.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    read_up_to(MAX_MESSAGE, stream).await
}

/// [`write()`], of at most `most` bytes, and never more than a frame has, 65535.
///
/// # Errors
///
/// Those of the stream, or if the message is longer.
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

/// [`read`], of at most `most` bytes.
///
/// # Errors
///
/// Those of the stream, or if what comes is no such message.
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
    let text = format!("a message of {length} bytes: the most are {most}");
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
