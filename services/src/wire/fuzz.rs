//! What the fuzz targets call: everything that a peer can send. What is read is written and read again.

use bytes::{Bytes, BytesMut};

use super::{Decoder, datagram, encode};

/// The frames of a stream.
///
/// # Panics
/// If a frame is not read as it was written.
pub fn frames(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.handle_bytes(bytes);
    while let Ok(Some(frame)) = decoder.poll_frame() {
        let mut written = BytesMut::new();
        let payload = encode(frame.clone(), &mut written);
        let mut again = Decoder::default();
        again.handle_bytes(&written);
        again.handle_bytes(&payload.unwrap_or_default());
        assert_eq!(again.poll_frame(), Ok(Some(frame)));
    }
}

/// A QUIC datagram.
///
/// # Panics
/// If a datagram is not read as it was written.
pub fn datagram(bytes: &[u8]) {
    if let Some((flow, opener, payload)) = datagram::decode(Bytes::copy_from_slice(bytes)) {
        let written = datagram::encode(flow, opener, &payload);
        assert_eq!(datagram::decode(written), Some((flow, opener, payload)));
    }
}
