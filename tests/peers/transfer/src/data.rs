//! What goes over a stream: the number of its bytes, its confirmation, the bytes, and a last confirmation.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const PIECE: usize = 64 * 1024;
const CONFIRMED: u8 = 6;

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub type Wire = Box<dyn Duplex>;

/// Tells the receiver how many bytes come over a stream, and returns when it knows.
pub async fn announce(stream: &mut Wire, bytes: u64) -> Result<()> {
    stream.write_all(&bytes.to_be_bytes()).await?;
    stream.flush().await?;
    confirmed(stream).await.context("the head of a stream")
}

/// Sends that many bytes, counts those that the stream has taken, and returns when the receiver has confirmed the last.
pub async fn fill(mut stream: Wire, bytes: u64, accepted: Arc<AtomicU64>) -> Result<()> {
    let piece = vec![7; PIECE];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let written = stream.write(&piece[..most]).await?;
        ensure!(written > 0, "the stream was closed with {left} bytes left");
        accepted.fetch_add(written as u64, Ordering::Relaxed);
        left -= written as u64;
    }
    stream.flush().await?;
    confirmed(&mut stream).await.context("the last byte")?;
    stream.close().await.context("the end of a stream")
}

/// The other side of [`announce`] and [`fill`]. What is `unread` waits in the stream, which stays open.
pub async fn serve(mut stream: Wire, unread: bool) -> Result<()> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    confirm(&mut stream).await?;
    if unread {
        return std::future::pending().await;
    }
    let mut buffer = vec![0; PIECE];
    let mut left = u64::from_be_bytes(head);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = stream.read(&mut buffer[..most]).await?;
        ensure!(read > 0, "the stream has ended with {left} bytes left");
        left -= read as u64;
    }
    confirm(&mut stream).await?;
    // The sender ends it: an end of ours must not overtake the confirmation.
    let _ended = stream.read(&mut buffer[..1]).await;
    Ok(())
}

async fn confirm(stream: &mut Wire) -> Result<()> {
    stream.write_all(&[CONFIRMED]).await?;
    Ok(stream.flush().await?)
}

async fn confirmed(stream: &mut Wire) -> Result<()> {
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [CONFIRMED], "{} is no confirmation", answer[0]);
    Ok(())
}
