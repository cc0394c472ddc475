//! Frames over one stream of a session.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{AsyncRead as _, AsyncWrite as _};
use libp2p::{Stream, swarm::ConnectionId};
use p2pnode_services::{
    core::session::StreamId,
    wire::{Frame, HEADER, Header, encode},
};
use p2pnode_transports::poll_write_shared;

/// How much of a body is allocated before anything of it has come: a remote cannot make this side hold much by headers alone.
const FIRST: usize = 8 << 10;

/// How much is read at once where a frame begins: each read takes the lock of the connection, and most frames are short.
const AHEAD: usize = 4 << 10;

thread_local! {
    /// What is read ahead comes here, and is copied to a buffer of its size.
    static SCRATCH: RefCell<[u8; AHEAD]> = const { RefCell::new([0; AHEAD]) };
}

/// Payloads up to this length are copied behind their headers: a write costs more than the copy.
const COPIED: usize = 2 << 10;

/// The room for what is gathered at first: a confirmation, and data that is copied.
const SHORT: usize = COPIED + 64;

/// How much is gathered before it is written.
const GATHERED: usize = 16 << 10;

/// One stream.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) id: StreamId,
    /// The connection that it is on.
    pub(super) connection: ConnectionId,
    stream: Stream,
    /// What was read behind the last frame. Nothing is allocated for it while the stream is idle.
    ahead: Bytes,
    /// How long the buffer is that `ahead` is a part of.
    buffer: usize,
    input: Input,
    out: BytesMut,
    payload: Bytes,
    is_flushed: bool,
    /// It sends what is left, and closes.
    pub(super) is_closing: bool,
}

#[derive(Debug)]
enum Input {
    Header,
    Body(Header, Vec<u8>, usize),
}

impl Carrier {
    pub(super) fn new(id: StreamId, connection: ConnectionId, mut stream: Stream) -> Self {
        stream.ignore_for_keep_alive();
        Self {
            id,
            connection,
            stream,
            ahead: Bytes::new(),
            buffer: 0,
            input: Input::Header,
            out: BytesMut::new(),
            payload: Bytes::new(),
            // The proposal of the protocol may wait in it.
            is_flushed: false,
            is_closing: false,
        }
    }

    /// The next frame; `None` at the end of the stream.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame>>> {
        loop {
            let mut stream = Pin::new(&mut self.stream);
            match &mut self.input {
                Input::Header if self.ahead.len() >= HEADER => {
                    let mut header = [0; HEADER];
                    self.ahead.copy_to_slice(&mut header);
                    let header = Header::parse(header).map_err(invalid)?;
                    if self.ahead.len() >= header.length() {
                        return Poll::Ready(self.whole(header).map(Some));
                    }
                    self.input = Input::Body(header, vec![0; header.length().min(FIRST)], 0);
                }
                Input::Header => {
                    let read = SCRATCH.with_borrow_mut(|bytes| {
                        let read = ready!(stream.as_mut().poll_read(cx, bytes))?;
                        if read > 0 {
                            self.ahead = Bytes::from([&self.ahead[..], &bytes[..read]].concat());
                        }
                        Poll::Ready(io::Result::Ok(read))
                    });
                    match ready!(read)? {
                        0 if self.ahead.is_empty() => return Poll::Ready(Ok(None)),
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        _ => self.buffer = self.ahead.len(),
                    }
                }
                Input::Body(header, bytes, have) => {
                    let length = header.length();
                    if *have < length {
                        if *have == bytes.len() {
                            bytes.reserve_exact(length - *have);
                            bytes.resize(length, 0);
                        }
                        let room = &mut bytes[*have..];
                        if self.ahead.is_empty() {
                            match ready!(stream.as_mut().poll_read(cx, room))? {
                                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                                read => *have += read,
                            }
                        } else {
                            let taken = room.len().min(self.ahead.len());
                            self.ahead.copy_to_slice(&mut room[..taken]);
                            *have += taken;
                        }
                        continue;
                    }
                    if self.ahead.is_empty() {
                        self.ahead = Bytes::new();
                    }
                    let body = Bytes::from(std::mem::take(bytes));
                    let frame = header.body(body).map_err(invalid);
                    self.input = Input::Header;
                    return Poll::Ready(frame.map(Some));
                }
            }
        }
    }

    /// A frame whose body was read ahead. Its payload stays in the buffer if it is most of that: a short one must not keep a long one.
    fn whole(&mut self, header: Header) -> io::Result<Frame> {
        let body = self.ahead.split_to(header.length());
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        let mut frame = header.body(body).map_err(invalid)?;
        if let Frame::Data { bytes, .. } | Frame::Datagram(bytes) = &mut frame
            && 4 * bytes.len() < 3 * self.buffer
        {
            *bytes = Bytes::copy_from_slice(bytes);
        }
        Ok(frame)
    }

    /// Sends what `next` returns, until it returns nothing. Ready when all is with the stream, and the stream is closed if
    /// [`Self::is_closing`].
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Frame>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.gather(&mut next);
            let mut stream = Pin::new(&mut self.stream);
            if self.out.is_empty() && self.payload.is_empty() {
                if !self.is_flushed {
                    ready!(stream.as_mut().poll_flush(cx))?;
                    self.is_flushed = true;
                }
                // An idle stream holds no buffer.
                self.out = BytesMut::new();
                return match self.is_closing {
                    true => stream.poll_close(cx),
                    false => Poll::Ready(Ok(())),
                };
            }
            self.is_flushed = false;
            let is_payload = self.out.is_empty();
            let written = ready!(match is_payload {
                false => stream.poll_write(cx, &self.out),
                true => poll_write_shared(stream, cx, &self.payload),
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            match is_payload {
                false => self.out.advance(written),
                true => self.payload.advance(written),
            }
        }
    }

    fn gather(&mut self, next: &mut impl FnMut() -> Option<Frame>) {
        while self.payload.is_empty() && self.out.len() < GATHERED {
            let Some(frame) = next() else { return };
            if self.out.capacity() == 0 {
                self.out.reserve(SHORT);
            }
            match encode(frame, &mut self.out) {
                Some(payload) if payload.len() <= COPIED => self.out.extend_from_slice(&payload),
                Some(payload) => self.payload = payload,
                None => {}
            }
        }
    }

    /// The next frame; `None` at the end of the stream.
    pub(super) async fn frame(&mut self) -> io::Result<Option<Frame>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// Sends these.
    pub(super) async fn send(&mut self, frames: impl IntoIterator<Item = Frame>) -> io::Result<()> {
        let mut frames = frames.into_iter();
        std::future::poll_fn(|cx| self.poll_send(cx, || frames.next())).await
    }

    /// Sends these, and closes this side.
    pub(super) async fn finish(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> io::Result<()> {
        self.is_closing = true;
        self.send(frames).await
    }
}

fn invalid(error: p2pnode_services::wire::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
