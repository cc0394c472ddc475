#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use futures::{
    AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, future::poll_fn, task::noop_waker_ref,
};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerExt as _};

use super::*;

/// What was done with a stream, and how much it takes before it blocks.
#[derive(Default)]
struct Log {
    writes: Vec<usize>,
    flushes: usize,
    reads: usize,
    takes: Option<usize>,
}

impl AsyncRead for Log {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.reads += 1;
        Poll::Pending
    }
}

impl AsyncWrite for Log {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = match &mut self.takes {
            None => buf.len(),
            Some(0) => return Poll::Pending,
            Some(left) => {
                let taken = buf.len().min(*left);
                *left -= taken;
                taken
            }
        };
        self.writes.push(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(noop_waker_ref())
}

fn frame(stream: &mut WriteCoalescer<Log>, length: usize) {
    stream.write_all(&[0; 12]).now_or_never().unwrap().unwrap();
    let body = vec![1; length];
    stream.write_all(&body).now_or_never().unwrap().unwrap();
    stream.flush().now_or_never().unwrap().unwrap();
}

fn read(stream: &mut WriteCoalescer<Log>) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_read(&mut cx(), &mut [0; 12])
}

#[test]
fn frames_go_out_together_once_the_writer_reads() {
    let mut stream = WriteCoalescer::new(Log::default());
    for _ in 0..3 {
        frame(&mut stream, 100);
    }
    assert_eq!((stream.inner.writes.len(), stream.inner.flushes), (0, 0));
    assert!(read(&mut stream).is_pending());
    assert_eq!(stream.inner.writes, [3 * 112]);
    assert_eq!((stream.inner.flushes, stream.inner.reads), (1, 1));
    // Nothing is owed any more.
    assert!(read(&mut stream).is_pending());
    assert_eq!((stream.inner.flushes, stream.inner.reads), (1, 2));
    assert_eq!(stream.gathered.capacity(), 0);
}

#[test]
fn what_is_full_is_written_in_whole_records() {
    let mut stream = WriteCoalescer::new(Log::default());
    for _ in 0..9 {
        frame(&mut stream, 16 << 10);
    }
    assert!(read(&mut stream).is_pending());
    let rest = 9 * (12 + (16 << 10)) - 2 * CAPACITY;
    assert_eq!(stream.inner.writes, [CAPACITY, CAPACITY, rest]);
    assert_eq!(stream.gathered.capacity(), CAPACITY);
    // What is idle again gives the buffer back.
    frame(&mut stream, 8);
    assert!(read(&mut stream).is_pending());
    assert_eq!(stream.gathered.capacity(), 0);
}

#[test]
fn a_second_flush_is_not_put_off() {
    let mut stream = WriteCoalescer::new(Log::default());
    frame(&mut stream, 100);
    stream.flush().now_or_never().unwrap().unwrap();
    assert_eq!(
        (&stream.inner.writes[..], stream.inner.flushes),
        (&[112][..], 1)
    );
}

#[test]
fn who_writes_but_does_not_flush_is_not_flushed_by_reading() {
    let mut stream = WriteCoalescer::new(Log::default());
    stream.write_all(&[0; 12]).now_or_never().unwrap().unwrap();
    assert!(read(&mut stream).is_pending());
    assert_eq!(stream.inner.writes, [0; 0]);
}

#[test]
fn a_stream_that_takes_nothing_holds_no_more_than_a_buffer_and_is_still_read() {
    let mut stream = WriteCoalescer::new(Log {
        takes: Some(1000),
        ..Log::default()
    });
    let mut taken = 0;
    while let Poll::Ready(more) = Pin::new(&mut stream).poll_write(&mut cx(), &[7; 1 << 14]) {
        taken += more.unwrap();
    }
    assert_eq!(taken, CAPACITY);
    assert_eq!(stream.gathered.len(), CAPACITY);
    assert!(Pin::new(&mut stream).poll_flush(&mut cx()).is_pending());
    assert!(read(&mut stream).is_pending());
    assert_eq!(stream.inner.reads, 1);
    // It goes on where it stopped.
    stream.inner.takes = None;
    stream.flush().now_or_never().unwrap().unwrap();
    assert_eq!(stream.inner.writes, [1000, CAPACITY - 1000]);
}

#[test]
fn what_was_put_off_goes_out_before_the_end() {
    let mut stream = WriteCoalescer::new(Log::default());
    frame(&mut stream, 100);
    stream.close().now_or_never().unwrap().unwrap();
    assert_eq!(
        (&stream.inner.writes[..], stream.inner.flushes),
        (&[112][..], 1)
    );
}

/// Drives both ends of a yamux connection while `work` goes on.
async fn driven<T>(ends: [&mut (impl StreamMuxer + Unpin); 2], work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let [a, b] = ends;
    poll_fn(|cx| {
        for muxer in [&mut *a, &mut *b] {
            if let Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
                panic!("{error}");
            }
        }
        work.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn yamux_of_both_ends_says_all_it_has_to_say() {
    let (a, b) = tokio::io::duplex(10_000);
    let compat = |stream| WriteCoalescer::new(Compat(stream));
    let config = Yamux::default;
    let mut a = config().upgrade_outbound(compat(a), "").await.unwrap();
    let mut b = config().upgrade_inbound(compat(b), "").await.unwrap();
    let mut from = poll_fn(|cx| a.poll_outbound_unpin(cx)).await.unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    // Both ends speak in turn: whatever stays behind stops it all.
    let mut to = {
        let opening = async {
            from.write_all(b"x").await.unwrap();
            from.flush().await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut opening = std::pin::pin!(opening);
        poll_fn(|cx| {
            let _pending = opening.as_mut().poll(cx);
            let _pending = a.poll_unpin(cx);
            b.poll_inbound_unpin(cx)
        })
        .await
        .unwrap()
    };
    let talk = async {
        let mut first = [0];
        to.read_exact(&mut first).await.unwrap();
        assert_eq!(first, *b"x");
        for _ in 0..10 {
            let (asked, answered) = (b"question", b"answer");
            from.write_all(asked).await.unwrap();
            let mut got = [0; 8];
            to.read_exact(&mut got).await.unwrap();
            assert_eq!(got, *asked);
            to.write_all(answered).await.unwrap();
            let mut got = [0; 6];
            from.read_exact(&mut got).await.unwrap();
            assert_eq!(got, *answered);
        }
        let mut got = vec![0; sent.len()];
        let (written, read) = futures::join!(from.write_all(&sent), to.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == sent, "other bytes arrived");
    };
    let talked = driven([&mut a, &mut b], talk);
    tokio::time::timeout(std::time::Duration::from_secs(30), talked)
        .await
        .unwrap();
}

/// tokio's stream as one of futures'.
struct Compat(tokio::io::DuplexStream);

impl AsyncRead for Compat {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = tokio::io::ReadBuf::new(buf);
        ready!(tokio::io::AsyncRead::poll_read(
            Pin::new(&mut self.0),
            cx,
            &mut buf
        ))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl AsyncWrite for Compat {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.0), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}
