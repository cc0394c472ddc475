//! How many protocols a remote may propose on a stream before one is agreed on.
//!
//! In [multistream-select](https://github.com/multiformats/multistream-select) libp2p answers proposals for as long as they come,
//! in one turn all that have arrived. It also sends a list of its protocols as often as a remote wants one. [`Proposals`] counts the
//! answers in what this side writes. When they are used up, nothing more is read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// Refusals and lists that a remote gets. A dialer of libp2p proposes the versions of one protocol: fewer than ten.
const ANSWERS: u32 = 32;

/// The length of the refusal `na` with its newline. The names of protocols are longer.
const REFUSAL: u32 = 3;

/// The answers that this side has written. Pure.
#[derive(Debug)]
struct Proposals {
    /// How many more may be written; `None` once a protocol is agreed on.
    left: Option<u32>,
    frame: Frame,
}

/// The message that is being written: its length as a varint, and lines.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    length: u32,
    /// Bits of the length so far; `None` in the body.
    bits: Option<u32>,
    written: u32,
    lines: u32,
}

impl Frame {
    const fn new() -> Self {
        Self {
            length: 0,
            bits: Some(0),
            written: 0,
            lines: 0,
        }
    }

    /// Whether it ends with this byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        if let Some(bits) = self.bits {
            self.length |= u32::from(byte & 0x7f).checked_shl(bits).unwrap_or(0);
            self.bits = (byte >= 0x80).then_some(bits + 7);
        } else {
            self.written += 1;
            self.lines += u32::from(byte == b'\n');
        }
        self.bits.is_none() && self.written >= self.length
    }
}

impl Proposals {
    const fn new() -> Self {
        Self {
            // The first message says that this side speaks multistream-select.
            left: Some(ANSWERS + 1),
            frame: Frame::new(),
        }
    }

    const fn are_used_up(&self) -> bool {
        matches!(self.left, Some(0))
    }

    fn wrote(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Some(left) = self.left else { return };
            if !self.frame.ends_with(*byte) {
                continue;
            }
            let frame = std::mem::replace(&mut self.frame, Frame::new());
            // A list has more lines: its own end is one.
            let agrees = left <= ANSWERS && frame.lines == 1 && frame.length > REFUSAL;
            self.left = (!agrees).then(|| left.saturating_sub(1));
        }
    }
}

/// A stream that begins with a negotiation, in which the remote makes a limited number of proposals.
#[derive(Debug)]
pub struct LimitedProposals<S> {
    inner: S,
    proposals: Proposals,
}

impl<S> LimitedProposals<S> {
    /// `inner` is about to be negotiated.
    pub const fn new(inner: S) -> Self {
        Self {
            inner,
            proposals: Proposals::new(),
        }
    }

    /// This side proposes on `inner`.
    pub(crate) const fn outbound(inner: S) -> Self {
        let mut stream = Self::new(inner);
        stream.proposals.left = None;
        stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedProposals<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.proposals.are_used_up() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the remote proposed too many protocols that this side does not speak",
            )));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedProposals<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.proposals.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            self.proposals.wrote(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    p2pnode_protocol::flushes_to!(inner);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, io::Cursor};

    use super::*;

    const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
    const REFUSES: &[u8] = b"\x03na\n";
    const LISTS: &[u8] = b"\x15\x09/a/1.0.0\n\x09/b/1.0.0\n\n";
    const AGREES: &[u8] = b"\x09/a/1.0.0\n";

    /// Whether the remote is still read once this side has written all that, in pieces of so many bytes.
    fn is_read(answers: &[&[u8]], piece: usize) -> bool {
        let mut stream = LimitedProposals::new(Cursor::new(vec![0; 100_000]));
        for part in answers.concat().chunks(piece) {
            stream.write_all(part).now_or_never().unwrap().unwrap();
        }
        let read = stream.read(&mut [0]).now_or_never().unwrap();
        assert!(
            read.as_ref().is_ok()
                || read.as_ref().unwrap_err().kind() == io::ErrorKind::InvalidData
        );
        read.is_ok()
    }

    #[test]
    fn a_remote_that_proposes_without_end_is_read_no_more_and_one_that_agrees_as_long_as_it_likes()
    {
        let most = ANSWERS as usize;
        for piece in [1, 7, 100_000] {
            for answer in [REFUSES, LISTS] {
                let answers = |times| [vec![HEADER], vec![answer; times]].concat();
                assert!(is_read(&answers(most - 1), piece));
                assert!(!is_read(&answers(most), piece));
                let mut agreed = answers(most - 1);
                agreed.push(AGREES);
                agreed.extend(vec![answer; 3 * most]);
                assert!(is_read(&agreed, piece), "what follows is the protocol's");
            }
        }
    }

    #[test]
    fn a_list_of_more_bytes_than_a_varint_of_one_byte_holds_is_one_answer() {
        let names = b"\x09/a/1.0.0\n".repeat(40);
        let list = [&[0x91, 0x03][..], &names, b"\n"].concat();
        let answers = |times| [vec![HEADER], vec![&list[..]; times]].concat();
        assert!(is_read(&answers(ANSWERS as usize - 1), 50));
        assert!(!is_read(&answers(ANSWERS as usize), 50));
    }
}
