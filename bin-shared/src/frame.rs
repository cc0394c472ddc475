//! How the protocols of our own speak: a frame is its length in two bytes, big endian, and that much JSON.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Serialize, de::DeserializeOwned};

/// Writes one message of at most `most` bytes; `what` names the protocol in errors.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` for a message that is too long.
pub(crate) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
    most: usize,
    what: &str,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u16::try_from(body.len())
        .ok()
        .filter(|length| usize::from(*length) <= most)
        .ok_or_else(|| too_long(body.len(), most, what))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one message of at most `most` bytes; no more than that is read or held.
///
/// # Errors
///
/// Those of the stream, and `InvalidData` for a message that is too long or none.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
    what: &str,
) -> io::Result<T> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > most {
        return Err(too_long(length, most, what));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn too_long(length: usize, most: usize, what: &str) -> io::Error {
    let text = format!("a {what} message of {length} bytes: the most are {most}");
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
