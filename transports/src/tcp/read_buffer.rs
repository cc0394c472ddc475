//! Fewer and larger reads of a busy stream.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// How many bytes are read at once: four records of TLS.
const CAPACITY: usize = 64 << 10;

/// How many bytes are read ahead during a handshake. A read that yields less frees the buffer: an idle connection has none.
const FEW: usize = 4 << 10;

/// A stream that is read ahead while it yields more than the reader asks for.
///
/// rustls asks for 4 KiB at a time, and the negotiation of protocols for single bytes. Each would be a system call. A stream with
/// little data is read as the reader asks, and costs no buffer.
pub(crate) struct ReadBuffer<S> {
    inner: S,
    buffer: Vec<u8>,
    /// The part of `buffer` that the reader has not asked for yet.
    unread: Range<usize>,
    /// How much to read at least, judged by the last read. 0: as much as the reader asks for.
    ahead: usize,
    heard: Heard,
}

/// Whether the remote of a stream has sent anything.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn on_read(&self, bytes: usize) {
        if bytes > 0 && !self.is_set() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl<S> ReadBuffer<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            unread: 0..0,
            ahead: 0,
            heard: Heard::default(),
        }
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// Gives the reader what was read ahead, as much as fits into `buf`.
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let taken = self.unread.len().min(buf.len());
        let (from, to) = (self.unread.start, self.unread.start + taken);
        buf[..taken].copy_from_slice(&self.buffer[from..to]);
        self.unread.start = to;
        if self.unread.is_empty() && self.ahead == 0 {
            self.buffer = Vec::new();
        }
        taken
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadBuffer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            return Poll::Ready(Ok(this.take(buf)));
        }
        if buf.len() >= this.ahead {
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            this.heard.on_read(read);
            this.ahead = match read {
                FEW.. if read == buf.len() => CAPACITY,
                1.. if read == buf.len() => FEW,
                _ => 0,
            };
            return Poll::Ready(Ok(read));
        }
        if this.buffer.len() != this.ahead {
            this.buffer = vec![0; this.ahead];
        }
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.buffer))?;
        this.heard.on_read(read);
        this.unread = 0..read;
        this.ahead = if read >= FEW { CAPACITY } else { 0 };
        Poll::Ready(Ok(this.take(buf)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadBuffer<S> {
    p2pnode_protocol::writes_to!(inner);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use futures::{AsyncReadExt as _, FutureExt as _, io::Cursor};

    use super::*;

    /// Counts how often it is read.
    struct Counted {
        bytes: Cursor<Vec<u8>>,
        reads: usize,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.reads += 1;
            Pin::new(&mut self.bytes).poll_read(cx, buf)
        }
    }

    fn stream(length: usize) -> (ReadBuffer<Counted>, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let counted = Counted {
            bytes: Cursor::new(bytes.clone()),
            reads: 0,
        };
        (ReadBuffer::new(counted), bytes)
    }

    fn read(stream: &mut ReadBuffer<Counted>, most: usize) -> Vec<u8> {
        let mut buf = vec![0; most];
        let read = stream.read(&mut buf).now_or_never().unwrap().unwrap();
        buf.truncate(read);
        buf
    }

    #[test]
    fn much_is_read_in_large_pieces_and_comes_out_in_order() {
        let (mut stream, bytes) = stream(1 << 20);
        let mut got = Vec::new();
        loop {
            let piece = read(&mut stream, 4 << 10);
            if piece.is_empty() {
                break;
            }
            got.extend(piece);
        }
        assert!(got == bytes, "other bytes came out");
        // The first as it was asked for, then 16 and a rest, and the end.
        assert_eq!(stream.inner.reads, 1 + 16 + 1);
    }

    #[test]
    fn little_is_read_as_it_is_asked_for_and_leaves_no_buffer() {
        let (mut stream, bytes) = stream(10);
        assert_eq!(read(&mut stream, 100), bytes);
        assert_eq!((stream.inner.reads, stream.buffer.capacity()), (1, 0));
    }

    #[test]
    fn single_bytes_cost_two_reads_and_the_buffer_is_given_back_with_the_last() {
        let (mut stream, bytes) = stream(100);
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(read(&mut stream, 1), [*byte]);
            assert_eq!(stream.inner.reads, if index == 0 { 1 } else { 2 });
        }
        assert_eq!(stream.buffer.capacity(), 0);
        assert!(read(&mut stream, 1).is_empty());
    }

    #[test]
    fn who_asks_for_more_than_the_buffer_holds_is_read_into_directly() {
        let (mut stream, bytes) = stream(4 * CAPACITY);
        assert_eq!(read(&mut stream, CAPACITY), bytes[..CAPACITY]);
        assert_eq!(
            read(&mut stream, 2 * CAPACITY),
            bytes[CAPACITY..3 * CAPACITY]
        );
        assert_eq!((stream.inner.reads, stream.buffer.capacity()), (2, 0));
    }
}
