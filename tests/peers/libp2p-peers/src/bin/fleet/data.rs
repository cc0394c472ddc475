//! Bytes that show when one is missing, twice there or in another's place.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

/// A prime, so that no buffer of a power of two is a multiple of it.
const PERIOD: usize = 251;
const CHUNK: usize = 16 * 1024;
/// What is on its way when a circuit is told to end has this long to arrive.
const REST: Duration = Duration::from_secs(120);

pub(crate) struct Pattern {
    table: Vec<u8>,
    start: usize,
}

impl Pattern {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            table: (0..CHUNK + PERIOD)
                .map(|i| u8::try_from(i % PERIOD).unwrap_or_default())
                .collect(),
            start: number % PERIOD,
        }
    }

    fn at(&self, offset: u64, length: usize) -> &[u8] {
        let phase = (offset % PERIOD as u64) as usize;
        let begin = (self.start + phase) % PERIOD;
        &self.table[begin..begin + length]
    }
}

/// Writes until `until`, ends the direction, and tells how many bytes that were.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    pattern: &Pattern,
    until: Instant,
) -> Result<u64> {
    let mut sent = 0;
    while Instant::now() < until {
        let written = stream
            .write(pattern.at(sent, CHUNK))
            .await
            .context("write")?;
        ensure!(written > 0, "write: the stream takes nothing");
        sent += written as u64;
    }
    stream.close().await.context("close")?;
    Ok(sent)
}

/// Reads and compares to the end, and tells how many bytes came, and how many until `until`.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    pattern: &Pattern,
    until: Instant,
) -> Result<Received> {
    let mut received = Received::default();
    let mut buffer = vec![0; CHUNK];
    let all = async {
        loop {
            let length = stream.read(&mut buffer).await.context("read")?;
            if length == 0 {
                return anyhow::Ok(());
            }
            ensure!(
                &buffer[..length] == pattern.at(received.all, length),
                "other bytes than were sent, from byte {} on",
                received.all
            );
            received.all += length as u64;
            if Instant::now() < until {
                received.in_time += length as u64;
            }
        }
    };
    tokio::time::timeout_at(until + REST, all)
        .await
        .with_context(|| format!("no end within {REST:?}"))??;
    Ok(received)
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    pub(crate) all: u64,
    /// While all circuits were moving data.
    pub(crate) in_time: u64,
}
