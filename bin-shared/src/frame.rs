//! Messages of our own protocols: each a frame, its length in two bytes, big endian, and that much JSON, at most
//! [`MAX_MESSAGE`] bytes. Unknown fields are ignored, so that either side may learn to say more.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Serialize, de::DeserializeOwned};

/// The most bytes of JSON in a frame. The longest message, a join token, has about 300; the rest is room to say more.
pub const MAX_MESSAGE: usize = 1024;

/// Writes one message.
///
/// # Errors
///
/// Those of the stream, or if the message is longer than [`MAX_MESSAGE`].
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u16::try_from(body.len())
        .ok()
        .filter(|length| usize::from(*length) <= MAX_MESSAGE)
        .ok_or_else(|| too_long(body.len()))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one message.
///
/// # Errors
///
/// Those of the stream, or if what comes is no such message.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_MESSAGE {
        return Err(too_long(length));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn too_long(length: usize) -> io::Error {
    let text = format!("a message of {length} bytes: the most are {MAX_MESSAGE}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
