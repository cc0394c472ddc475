//! Frames of libp2p's protocols: a length as an [unsigned varint](https://github.com/multiformats/unsigned-varint) and that
//! many bytes, here always a [protocol buffer](https://protobuf.dev/programming-guides/encoding/).

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The bytes of a varint of 64 bits.
const MAX_VARINT: usize = 10;

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The length has more than 64 bits.
    #[error("the length of the message has more than 64 bits")]
    Length,
    /// The length exceeds the limit.
    #[error("a message of {length} bytes exceeds the limit of {most}")]
    TooLong {
        /// The length that the remote sent.
        length: usize,
        /// The limit.
        most: usize,
    },
    /// The stream ended before the frame did.
    #[error("the stream ended within a message")]
    Truncated,
    /// The stream broke.
    #[error(transparent)]
    Stream(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated
        } else {
            Self::Stream(error)
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stream(error) => error,
            ReadError::Truncated => Self::new(io::ErrorKind::UnexpectedEof, error),
            ReadError::Length | ReadError::TooLong { .. } => {
                Self::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
}

/// Reads the body of one frame of at most `most` bytes.
///
/// # Errors
///
/// [`ReadError`].
pub async fn read(
    most: usize,
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Vec<u8>, ReadError> {
    let (mut length, mut bytes) = ([0; MAX_VARINT], 0);
    let length = loop {
        let byte = length.get_mut(bytes..=bytes).ok_or(ReadError::Length)?;
        stream.read_exact(byte).await?;
        bytes += 1;
        if length[bytes - 1] & 0x80 == 0 {
            let length = prost::decode_length_delimiter(&length[..bytes]);
            break length.map_err(|_| ReadError::Length)?;
        }
    };
    if length > most {
        return Err(ReadError::TooLong { length, most });
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Writes one frame and flushes.
///
/// # Errors
///
/// Those of the stream.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(MAX_VARINT + body.len());
    prost::encode_length_delimiter(body.len(), &mut frame)?;
    frame.extend_from_slice(body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 4096;

    fn reads(bytes: &[u8]) -> (Result<Vec<u8>, ReadError>, u64) {
        let mut stream = Cursor::new(bytes);
        let read = block_on(read(MOST, &mut stream));
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
    fn a_frame_that_is_too_long_endless_or_cut_off_has_its_own_error() {
        assert!(matches!(reads(&[]).0, Err(ReadError::Truncated)));
        assert!(matches!(reads(&[0x80]).0, Err(ReadError::Truncated)));
        assert!(matches!(reads(&[5, 1, 2]).0, Err(ReadError::Truncated)));
        let long = reads(&[0x81, 0x20]).0;
        assert!(matches!(long, Err(ReadError::TooLong { length: 4097, .. })));
        let endless = reads(&[0xff; 64]);
        assert!(matches!(endless.0, Err(ReadError::Length)));
        assert_eq!(endless.1, 10, "and nothing further is read");
        let longest = [&[0x80, 0x20][..], &[0; MOST]].concat();
        assert_eq!(reads(&longest).0.unwrap().len(), MOST);
    }

    proptest! {
        #[test]
        fn messages_of_any_length_that_fits_are_read_as_they_were_written(
            message in proptest::collection::vec(any::<u8>(), 0..=MOST),
        ) {
            let mut stream = Cursor::new(Vec::new());
            block_on(write(&mut stream, &message)).unwrap();
            let written = stream.into_inner();
            let (read, position) = reads(&written);
            prop_assert_eq!(read.unwrap(), message);
            prop_assert_eq!(position, written.len() as u64);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (read, _) = reads(&bytes);
            prop_assert!(read.is_err() || bytes.len() > read.map_or(0, |read| read.len()));
        }
    }
}
