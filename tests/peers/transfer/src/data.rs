//! What goes over a stream: a head, its confirmation, the bytes, and a last confirmation.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{STREAMS, tally::Tally};

/// What is written and read at once.
const PIECE: usize = 64 * 1024;

/// What confirms.
const CONFIRMED: u8 = 6;

/// A stream both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream of whatever make.
pub type Wire = Box<dyn Duplex>;

/// What a stream belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The number of the transfer.
    pub transfer: u64,
    /// How many streams it has.
    pub streams: u32,
    /// What comes over this one.
    pub bytes: u64,
}

/// Tells the receiver of the stream, and returns when it knows.
pub async fn announce(stream: &mut Wire, head: Head) -> Result<()> {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&head.transfer.to_be_bytes());
    bytes[8..12].copy_from_slice(&head.streams.to_be_bytes());
    bytes[12..].copy_from_slice(&head.bytes.to_be_bytes());
    stream.write_all(&bytes).await?;
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

/// The other side of [`announce`] and [`fill`].
pub async fn serve(mut stream: Wire, tally: Arc<Tally>) -> Result<()> {
    let mut bytes = [0; 20];
    stream.read_exact(&mut bytes).await?;
    let head = Head {
        transfer: u64::from_be_bytes(bytes[..8].try_into()?),
        streams: u32::from_be_bytes(bytes[8..12].try_into()?),
        bytes: u64::from_be_bytes(bytes[12..].try_into()?),
    };
    ensure!(
        (1..=STREAMS).contains(&head.streams),
        "a transfer of {} streams",
        head.streams
    );
    confirm(&mut stream).await?;
    if tally.unread {
        // The stream stays open, and what comes waits.
        return std::future::pending().await;
    }
    let mut buffer = vec![0; PIECE];
    let mut left = head.bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = stream.read(&mut buffer[..most]).await?;
        ensure!(read > 0, "the stream has ended with {left} bytes left");
        if left == head.bytes {
            tally.began(&head);
        }
        left -= read as u64;
    }
    tally.ended(&head);
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
