//! A stream of TLS whose failed writes report the alert that the remote has sent before it closed.
//!
//! In TLS 1.3 the dialer may write before the listener has looked at the dialer's certificate. If the listener refuses that
//! certificate, it sends an alert and closes the socket. A write then fails with a broken pipe, and the alert is still unread.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// How often it reads, at most: what comes before the alert is lost, as the connection is.
const READS: usize = 8;

/// A stream that reads the remote's last word if a write fails.
pub(crate) struct LastWord<S> {
    stream: S,
    /// Why a write has failed, until a read shows whether there is an alert.
    failed: Option<io::Error>,
    is_closing: bool,
}

impl<S> LastWord<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self {
            stream,
            failed: None,
            is_closing: false,
        }
    }
}

impl<S: AsyncRead + Unpin> LastWord<S> {
    /// Writes, unless that has failed. A socket that the remote has reset becomes readable, so this waits for what is unread.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let error = match self.failed.take() {
            Some(error) => error,
            None => match ready!(write(Pin::new(&mut self.stream), cx)) {
                Err(error) if is_reset(&error) && !self.is_closing => error,
                written @ (Ok(_) | Err(_)) => return Poll::Ready(written),
            },
        };
        let mut buffer = [0; 1024];
        for _ in 0..READS {
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Err(word)) if is_alert(&word) => return Poll::Ready(Err(word)),
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Pending => {
                    self.failed = Some(error);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Err(error))
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWord<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LastWord<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(cx, AsyncWrite::poll_flush)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closing = true;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use futures::{AsyncWriteExt as _, executor::block_on};
    use rustls::{AlertDescription, Error};

    use super::*;

    /// A closed stream with something unread, and how its reads end. Each second read is too early.
    struct Ended(usize, fn() -> io::Error, bool);

    impl AsyncRead for Ended {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.2 = !self.2;
            if self.2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Ok(1)
                }
                None => Err(self.1()),
            })
        }
    }

    impl AsyncWrite for Ended {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_write_that_fails_reports_an_alert_that_was_not_read_yet_and_else_its_own_error() {
        let alert = || {
            let alert = Error::AlertReceived(AlertDescription::CertificateExpired);
            io::Error::new(io::ErrorKind::InvalidData, alert)
        };
        let kind = |unread, word| {
            let mut stream = LastWord::new(Ended(unread, word, false));
            let flushed = block_on(stream.flush()).unwrap_err().kind();
            let written = block_on(stream.write(&[0])).unwrap_err().kind();
            (flushed, written)
        };
        let explained = (io::ErrorKind::InvalidData, io::ErrorKind::InvalidData);
        assert_eq!(kind(0, alert), explained);
        assert_eq!(kind(3, alert), explained);
        let own = (io::ErrorKind::BrokenPipe, io::ErrorKind::BrokenPipe);
        assert_eq!(kind(0, || io::ErrorKind::ConnectionReset.into()), own);
    }
}
