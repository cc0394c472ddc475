//! A stream whose end of file is an error.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// A stream whose end of file is an error.
///
/// TLS has `close_notify`, so it can distinguish a graceful close from a cut connection. Noise has nothing of the kind, and yamux takes
/// every end of file for a graceful close. yamux reads no further than the remote's GoAway. If it reads the end of file, there
/// was no GoAway: the remote was killed, or a middlebox closed the connection.
pub(crate) struct EofIsError<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for EofIsError<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        if read == 0 && !buf.is_empty() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended without a graceful close",
            )));
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EofIsError<S> {
    p2pnode_protocol::writes_to!(0);
}
