//! Writes of bytes that the stream keeps, instead of a copy of them.
//!
//! [`AsyncWrite`] lends the bytes, so QUIC copies what it keeps until the remote acknowledges it. A session keeps the same bytes until
//! the remote has delivered them. libp2p's boxes pass a write on in the same thread, as they do a drop (see [`crate::reset()`]). So a
//! mark of the thread says whose bytes these are. A stream that has no use for them copies as before.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::AsyncWrite;

thread_local! {
    static SHARED: Cell<Option<Bytes>> = const { Cell::new(None) };
}

struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        SHARED.take();
    }
}

/// Writes as `poll_write` does. Over QUIC the stream keeps a part of `bytes` until the remote has acknowledged it.
///
/// # Errors
///
/// Those of the stream.
pub fn poll_write_shared<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    bytes: &Bytes,
) -> Poll<io::Result<usize>> {
    SHARED.set(Some(bytes.clone()));
    let _mark = Mark;
    stream.poll_write(cx, bytes)
}

/// What `lent` is the beginning of, as long as `lent`, if that is being written by [`poll_write_shared`].
pub(crate) fn take_shared(lent: &[u8]) -> Option<Bytes> {
    let bytes = SHARED.take()?;
    let is_same = bytes.as_ptr() == lent.as_ptr() && bytes.len() >= lent.len();
    is_same.then(|| bytes.slice(..lent.len()))
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;

    /// Takes half of what is written, and keeps it.
    #[derive(Default)]
    struct Half(Vec<Option<Bytes>>);

    impl AsyncWrite for Half {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let half = buf.len() / 2;
            self.0.push(take_shared(&buf[..half]));
            Poll::Ready(Ok(half))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_stream_gets_the_bytes_themselves_and_only_those_of_the_write() {
        let (mut stream, cx) = (Half::default(), &mut Context::from_waker(noop_waker_ref()));
        let bytes = Bytes::from(vec![7; 100]);
        assert!(poll_write_shared(Pin::new(&mut stream), cx, &bytes).is_ready());
        assert!(Pin::new(&mut stream).poll_write(cx, &bytes).is_ready());
        assert_eq!(stream.0[1], None, "that write lends");
        let kept = stream.0[0].take().unwrap_or_default();
        assert_eq!((kept.len(), kept.as_ptr()), (50, bytes.as_ptr()));
        SHARED.set(Some(bytes.clone()));
        assert_eq!(take_shared(&[7; 100]), None, "others, such as a header");
        assert_eq!(SHARED.take(), None);
    }
}
