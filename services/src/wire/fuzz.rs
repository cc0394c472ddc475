//! What the fuzz targets call: everything that a peer can send. What is read is written and read again.

use bytes::{Bytes, BytesMut};

use super::{Decoder, datagram, encode, socks};
use crate::config::Peers;

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

/// What a SOCKS5 client sends.
///
/// # Panics
/// If a client is waited for that has sent all that it may.
pub fn socks(bytes: &[u8]) {
    const MOST: usize = 262;
    if let Ok(socks::Step::Complete(_, length)) = socks::greeting(bytes) {
        assert!(length <= bytes.len());
    }
    match socks::request(bytes) {
        Ok(socks::Step::Incomplete(least)) => assert!(bytes.len() + least <= MOST),
        Ok(socks::Step::Complete(host, length)) => {
            assert!(length <= bytes.len().min(MOST));
            // A reply is as good as a destination.
            let _ = host.and_then(|host| socks::destination(&host, &Peers::new()));
        }
        Err(refused) => assert!(refused.answer().len() < MOST),
    }
}
