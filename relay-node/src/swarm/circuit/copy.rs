//! What runs over a circuit: bytes from one stream to another, both ways.
//!
//! Each direction holds at most one [`PIECE`], and only what its receiver has not taken yet. Bytes are read into a buffer of the
//! thread and written from it. So an idle circuit has no buffer, and a receiver that does not read stops its sender.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::pace::Pace;
use crate::{
    core::{Cut, Traffic},
    observe::metrics::Carried,
};

/// The most bytes that are read at once. Each read and write takes the lock of a connection and wakes its task, which is why
/// many small ones are slow.
const PIECE: usize = 64 * 1024;

/// How many pieces each direction may move before other circuits have their turn.
const TURNS: usize = 4;

/// How long a direction may have bytes that its receiver does not take. The windows of its two connections are full, so its sender
/// waits as well. A node always reads a circuit unless it is overloaded: what its application does not read waits in the streams
/// within.
const STALLED: Duration = Duration::from_secs(60);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

/// Within which a circuit runs, and where its bytes are counted.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// The most bytes, both directions together.
    pub(super) bytes: Option<u64>,
    /// The longest time.
    pub(super) duration: Option<Duration>,
    /// How fast.
    pub(super) pace: Pace,
    /// The bytes of this circuit.
    pub(super) traffic: Arc<Traffic>,
    /// The bytes of all circuits.
    pub(super) carried: Carried,
}

/// Carries bytes between the two streams until both have ended.
///
/// A stream that ends is ended on the other side, too, and the opposite direction goes on. When the circuit is cut, both
/// streams are dropped.
pub(super) async fn copy<S, D>(mut source: S, mut destination: D, terms: Terms) -> Result<(), Cut>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: AsyncRead + AsyncWrite + Unpin,
{
    let mut end = terms.duration.map(|duration| Box::pin(sleep(duration)));
    let piece = terms.pace.piece(PIECE);
    let mut shared = Shared {
        left: terms.bytes,
        piece,
        pace: terms.pace,
    };
    let (traffic, carried) = (terms.traffic, terms.carried);
    let mut there = Way::default();
    let mut back = Way::default();
    std::future::poll_fn(|cx| {
        if let Some(end) = &mut end
            && end.poll_unpin(cx).is_ready()
        {
            return Poll::Ready(Err(Cut::Duration));
        }
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..TURNS {
                let count = |bytes: usize| {
                    let bytes = bytes as u64;
                    traffic.add(bytes, 0);
                    carried.to_destination.inc_by(bytes);
                };
                let one = there.turn(
                    cx,
                    &mut source,
                    &mut destination,
                    &mut shared,
                    buffer,
                    count,
                )?;
                let count = |bytes: usize| {
                    let bytes = bytes as u64;
                    traffic.add(0, bytes);
                    carried.to_source.inc_by(bytes);
                };
                let other = back.turn(
                    cx,
                    &mut destination,
                    &mut source,
                    &mut shared,
                    buffer,
                    count,
                )?;
                match (one, other) {
                    (Turn::Over, Turn::Over) => return Poll::Ready(Ok(())),
                    (Turn::Moved, _) | (_, Turn::Moved) => {}
                    (Turn::Waits | Turn::Over, Turn::Waits | Turn::Over) => return Poll::Pending,
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    })
    .await
}

/// What both directions share.
struct Shared {
    /// How many bytes may still be read.
    left: Option<u64>,
    piece: usize,
    pace: Pace,
}

/// What a turn of a direction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Something; there may be more.
    Moved,
    /// Nothing, before its task is woken.
    Waits,
    /// Its end.
    Over,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and is not written from `written` on.
    held: Vec<u8>,
    written: usize,
    /// When that may be written.
    wait: Option<Pin<Box<Sleep>>>,
    /// Since when the writer takes nothing of what is there.
    blocked: Option<Instant>,
    /// Wakes the task when that may have been too long.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether something was written that may not be on its way.
    unflushed: bool,
    /// Whether the reader has ended, and then the writer.
    read: bool,
    over: bool,
}

impl Way {
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        shared: &mut Shared,
        buffer: &mut [u8],
        count: impl Fn(usize),
    ) -> Result<Turn, Cut> {
        if self.over {
            return Ok(Turn::Over);
        }
        let polled = if !self.held.is_empty() {
            self.give(cx, writer, count)
        } else if self.read {
            self.end(cx, writer)
        } else {
            self.take(cx, reader, writer, shared, buffer, count)
        };
        match polled {
            Poll::Ready(turn) => {
                self.blocked = None;
                turn
            }
            Poll::Pending => {
                self.check_progress(cx)?;
                Ok(Turn::Waits)
            }
        }
    }

    /// Ends the circuit if the writer has taken nothing for too long.
    fn check_progress(&mut self, cx: &mut Context<'_>) -> Result<(), Cut> {
        let has_bytes = !self.held.is_empty() || self.read;
        // The pace lets nothing through: that is not the writer's doing.
        if !has_bytes || self.wait.is_some() {
            return Ok(());
        }
        let until = *self.blocked.get_or_insert_with(Instant::now) + STALLED;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        // One timer for all the times that the writer blocks: it is set again only when it fires.
        while stalled.poll_unpin(cx).is_ready() {
            if Instant::now() >= until {
                return Err(Cut::Stalled(STALLED));
            }
            stalled.as_mut().reset(until);
        }
        Ok(())
    }

    /// Writes what is held.
    fn give(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut (impl AsyncWrite + Unpin),
        count: impl Fn(usize),
    ) -> Poll<Result<Turn, Cut>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.poll_unpin(cx));
            self.wait = None;
        }
        let written = ready!(Pin::new(writer).poll_write(cx, &self.held[self.written..]))?;
        count(accepted(written)?);
        self.unflushed = true;
        self.written += written;
        if self.written == self.held.len() {
            self.held = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(Turn::Moved))
    }

    /// Ends the writer.
    fn end(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<Turn, Cut>> {
        ready!(Pin::new(writer).poll_close(cx))?;
        self.over = true;
        Poll::Ready(Ok(Turn::Over))
    }

    /// Reads a piece and writes what the writer takes of it.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        shared: &mut Shared,
        buffer: &mut [u8],
        count: impl Fn(usize),
    ) -> Poll<Result<Turn, Cut>> {
        // Where nothing may be carried any more, one byte shows whether there is more or the end.
        let left = shared.left.map_or(usize::MAX, |left| {
            usize::try_from(left).unwrap_or(usize::MAX).max(1)
        });
        let most = shared.piece.min(left);
        let Poll::Ready(read) = Pin::new(reader).poll_read(cx, &mut buffer[..most])? else {
            if self.unflushed && Pin::new(writer).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
            return Poll::Pending;
        };
        if read == 0 {
            self.read = true;
            return Poll::Ready(Ok(Turn::Moved));
        }
        if let Some(left) = &mut shared.left {
            *left = left.checked_sub(read as u64).ok_or(Cut::Bytes)?;
        }
        let mut written = 0;
        if let Some(time) = shared.pace.reserve(read, Instant::now().into_std()) {
            self.wait = Some(Box::pin(sleep_until(time.into())));
        } else {
            while written < read {
                let Poll::Ready(bytes) =
                    Pin::new(&mut *writer).poll_write(cx, &buffer[written..read])?
                else {
                    break;
                };
                count(accepted(bytes)?);
                self.unflushed = true;
                written += bytes;
            }
        }
        self.held = buffer[written..read].to_vec();
        Poll::Ready(Ok(Turn::Moved))
    }
}

/// A stream that takes nothing has ended.
fn accepted(written: usize) -> io::Result<usize> {
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(written)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
