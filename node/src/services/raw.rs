//! Raw streams: `/x/NAME`, as other implementations of libp2p have them. Bytes are copied, and nothing outlives the connection.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::{AsyncRead as _, AsyncWrite as _};
use libp2p::{PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use p2pnode_protocol::upgrade::is_refusal;
use p2pnode_services::{
    config::RawProtocol,
    core::{
        session::End,
        sessions::{Key, Role},
    },
    wire::{Refusal, ResetReason, SessionId},
};
use tokio::time::{sleep, timeout};

use super::{
    Hub,
    driver::Outcome,
    lines::{Sink, State},
    local::{READ, Socket},
    opening::OpenError,
    report::Change,
    running::{OTHER, On, Running},
    target,
};

/// How long the reset of a stream waits behind what the local socket sent before its own: in QUIC a reset overtakes data.
const BEHIND_DATA: Duration = Duration::from_millis(250);

/// How long after a stream the end of its connection may become known.
const NEWS: Duration = Duration::from_millis(250);

impl Hub {
    /// The protocols of raw streams that `peer` may open.
    pub(crate) fn raw_protocols(&self, peer: &PeerId) -> Vec<StreamProtocol> {
        let state = self.state();
        let permitted = state.offers.all().map(|offered| &offered.service);
        let permitted = permitted.filter(|service| service.allow.permits(peer));
        let protocols = permitted.filter_map(|service| service.protocol.as_ref());
        protocols.filter_map(stream_protocol).collect()
    }

    /// A peer has opened a raw stream.
    pub(crate) fn handle_raw_stream(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: &StreamProtocol,
        stream: Stream,
    ) {
        let mut state = self.state();
        let offered = state.offers.all().find(|offered| {
            let service = &offered.service;
            let named = service.protocol.as_ref().map(RawProtocol::as_str);
            named == Some(protocol.as_ref()) && service.allow.permits(&peer)
        });
        // Its permission may have ended in the meantime.
        let Some(offered) = offered.cloned() else {
            return;
        };
        let (key, now) = (key(peer, Role::Service), std::time::Instant::now());
        let service = &offered.service.name;
        let is_admitted = state.table.handle_raw(key, service, now);
        let place = || self.place_of(peer, &offered, state.table.access());
        let Some(place) = is_admitted.then(place).flatten() else {
            state.table.handle_over(key);
            let reason = match is_admitted {
                true => "local sockets hold as many files as they may",
                false => "the peer has as many as may be, or has opened too many lately",
            };
            tracing::info!(%peer, %service, reason, "a raw stream was refused");
            self.metrics().opening("service", OTHER, "refused");
            return;
        };
        let (service, sink) = (offered.service.name.clone(), offered.sink.clone());
        let protocol = offered.service.protocol.clone();
        let running = Running::new(key, service, None, None, sink, protocol, self.metrics());
        let running = Arc::new(running);
        state.running.insert(key, Arc::clone(&running));
        drop(state);
        let on = self.on(connection);
        self.uses(&running, on);
        let hub = self.clone();
        tokio::spawn(async move {
            let carried = match target::dial(&hub, &offered, peer, None, place).await {
                Ok(connected) => {
                    report(&hub, &running, State::Opened, on, None, None);
                    let piece = connected.prefix;
                    carry(&running, connected.socket, stream, piece).await
                }
                Err(failed) => (End::Reset(failed.reason), Some(failed.detail)),
            };
            let (end, detail) = carried;
            report(
                &hub,
                &running,
                State::Closed,
                None,
                Some(end),
                detail.as_deref(),
            );
            hub.over(&running);
        });
    }

    /// A raw stream for a client. `Outcome::socket` is its socket, if the peer takes no such stream. `next_after`: another peer may
    /// have it then. A peer gets no data before it agrees: many streams at once would exceed what a stranger may have unread.
    pub(super) async fn raw_session(
        &self,
        (protocol, peer): (&RawProtocol, PeerId),
        socket: Socket,
        forward: Option<u64>,
        sink: Option<Sink>,
        next_after: Option<Duration>,
    ) -> Outcome {
        let key = key(peer, Role::Forward);
        let client = socket.addresses().map(|(client, _)| client);
        let other = OTHER.parse().expect("it is a name");
        let over = Some(protocol.clone());
        let running = Running::new(key, other, client, forward, sink, over, self.metrics());
        let running = Arc::new(running);
        self.state().running.insert(key, Arc::clone(&running));
        let wish = self.wish(peer);
        let patience = next_after.unwrap_or(self.settings().open_timeout);
        let opening = self.open_raw(protocol, &running);
        let opened = timeout(patience, opening).await;
        let outcome = match opened {
            Ok(Ok((connection, stream))) => {
                let on = self.on(connection);
                self.uses(&running, on);
                report(self, &running, State::Opened, on, None, None);
                let (end, detail) = carry(&running, socket, stream, Bytes::new()).await;
                let detail = detail.as_deref();
                report(self, &running, State::Closed, None, Some(end), detail);
                Outcome { end, socket: None }
            }
            failed => {
                let (end, detail) = match failed {
                    Ok(Err(failed)) => failed,
                    Ok(Ok(_)) | Err(_) => (End::NoAnswer, None),
                };
                let state = match matches!(end, End::Refused(_)) {
                    true => State::Refused,
                    false => State::Closed,
                };
                report(self, &running, state, None, Some(end), detail.as_deref());
                let socket = Some(socket);
                Outcome { end, socket }
            }
        };
        drop(wish);
        self.over(&running);
        outcome
    }

    /// A raw stream is on this connection, which is kept for it.
    fn uses(&self, running: &Running, on: Option<On>) {
        if let Some(on) = on {
            running.moves(on);
            self.served(running.key.peer);
        }
    }

    async fn open_raw(
        &self,
        protocol: &RawProtocol,
        running: &Running,
    ) -> Result<(ConnectionId, Stream), (End, Option<String>)> {
        let failed = |error| match error {
            OpenError::Unsupported => (End::Refused(Refusal::Unavailable), None),
            OpenError::NoPath | OpenError::Failed(_) => (End::NoAnswer, Some(error.to_string())),
        };
        let protocol = stream_protocol(protocol).ok_or_else(|| failed(OpenError::Unsupported))?;
        loop {
            let opening = self.open_protocol(&running.key.peer, protocol.clone());
            match opening.await {
                Err(OpenError::NoPath) => {}
                opened => return opened.map_err(failed),
            }
            let news = running.news().await;
            if let Some(reason) = news.reset {
                return Err((End::Reset(reason), None));
            }
            if let Some(reason) = news.unreachable {
                return Err(failed(OpenError::Failed(reason)));
            }
        }
    }
}

fn stream_protocol(protocol: &RawProtocol) -> Option<StreamProtocol> {
    StreamProtocol::try_from_owned(protocol.as_str().to_owned()).ok()
}

fn key(peer: PeerId, role: Role) -> Key {
    let session = SessionId(super::hub::random());
    Key {
        peer,
        role,
        session,
    }
}

/// Copies both ways until both have ended, one is reset, or the session is to end. A reset of one side is one of the other.
async fn carry(
    running: &Running,
    socket: Socket,
    stream: Stream,
    prefix: Bytes,
) -> (End, Option<String>) {
    // If it is on none, its connection has ended in the meantime.
    let is_gone = running.is_on().is_none();
    let mut pair = Pair {
        socket,
        stream,
        outward: Direction::default(),
        inward: Direction {
            piece: prefix,
            ..Direction::default()
        },
        broken: None,
        is_lost: is_gone,
    };
    let end = poll_fn(|cx| {
        let mail = running.take(cx);
        pair.is_lost |= mail.path_lost;
        if let Some(reason) = mail.reset {
            return Poll::Ready(Err(End::Reset(reason)));
        }
        pair.poll(cx, running)
    });
    match end.await {
        Ok(()) => {
            pair.socket.close();
            (End::Completed, None)
        }
        Err(end) => {
            pair.socket.reset();
            if end == End::Reset(ResetReason::LocalReset) {
                sleep(BEHIND_DATA).await;
            }
            p2pnode_transports::reset(pair.stream);
            (why(end, pair.is_lost, running).await, None)
        }
    }
}

/// Why the stream broke. The end of its connection is known a moment later than the end of the stream.
async fn why(end: End, mut is_lost: bool, running: &Running) -> End {
    if end != End::ResetByPeer(ResetReason::Other) {
        return end;
    }
    let lost = poll_fn(|cx| {
        is_lost |= running.take(cx).path_lost;
        match is_lost {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    match timeout(NEWS, lost).await {
        Ok(()) => End::PathLost,
        Err(_) => end,
    }
}

struct Pair {
    socket: Socket,
    stream: Stream,
    outward: Direction,
    inward: Direction,
    /// One side takes nothing further. What it has sent before is still to be read.
    broken: Option<End>,
    /// The connection has ended.
    is_lost: bool,
}

#[derive(Default)]
struct Direction {
    /// What was read and is not written.
    piece: Bytes,
    /// Something was written that may wait to be sent.
    is_unflushed: bool,
    is_read: bool,
    is_over: bool,
}

impl Pair {
    fn poll(&mut self, cx: &mut Context<'_>, running: &Running) -> Poll<Result<(), End>> {
        match self.poll_outward(cx, running) {
            Poll::Ready(Err(end @ End::Reset(_))) => return Poll::Ready(Err(end)),
            // The peer takes nothing further. What it has sent before is still to be read.
            Poll::Ready(Err(end)) => (self.outward.is_over, self.broken) = (true, Some(end)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match self.poll_inward(cx, running) {
            // Neither does the local socket, and the same holds.
            Poll::Ready(Err(end @ End::Reset(_))) => {
                (self.inward.is_over, self.broken) = (true, Some(end));
            }
            Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match self.outward.is_over && self.inward.is_over {
            true => Poll::Ready(self.broken.map_or(Ok(()), Err)),
            false => Poll::Pending,
        }
    }

    /// From the local socket to the peer.
    fn poll_outward(&mut self, cx: &mut Context<'_>, running: &Running) -> Poll<Result<(), End>> {
        let way = &mut self.outward;
        let mut stream = Pin::new(&mut self.stream);
        while !way.is_over {
            if !way.piece.is_empty() {
                let written = ready!(stream.as_mut().poll_write(cx, &way.piece));
                way.piece.advance(written.map_err(of_stream)?);
                way.is_unflushed = true;
            } else if let (true, Some(end)) = (way.is_read, self.broken) {
                // What was written before goes out.
                ready!(stream.as_mut().poll_flush(cx)).map_err(of_stream)?;
                return Poll::Ready(Err(end));
            } else if way.is_read {
                // It is closed, or the peer has no interest in the end.
                let _ = ready!(stream.as_mut().poll_close(cx));
                way.is_over = true;
            } else if let Poll::Ready(piece) = self.socket.poll_read(cx, READ) {
                if piece.is_err() {
                    self.broken = Some(End::Reset(ResetReason::LocalReset));
                }
                way.piece = piece.unwrap_or_default();
                way.is_read = way.piece.is_empty();
                running.went_out(way.piece.len());
            } else {
                if way.is_unflushed {
                    ready!(stream.as_mut().poll_flush(cx)).map_err(of_stream)?;
                    way.is_unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// From the peer to the local socket.
    fn poll_inward(&mut self, cx: &mut Context<'_>, running: &Running) -> Poll<Result<(), End>> {
        let way = &mut self.inward;
        while !way.is_over {
            if !way.piece.is_empty() {
                let written = ready!(self.socket.poll_write(cx, &way.piece));
                let written = written.map_err(|_| End::Reset(ResetReason::LocalReset))?;
                way.piece.advance(written);
                running.came_in(written);
            } else if way.is_read {
                let _ = ready!(self.socket.poll_shutdown(cx));
                way.is_over = true;
            } else {
                let mut buffer = [0; 16 << 10];
                let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
                way.piece = Bytes::copy_from_slice(&buffer[..read.map_err(of_stream)?]);
                way.is_read = way.piece.is_empty();
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn report(
    hub: &Hub,
    running: &Running,
    state: State,
    to: Option<On>,
    end: Option<End>,
    detail: Option<&str>,
) {
    let was_open = running.is_open();
    running.set_open(state == State::Opened);
    let change = Change {
        state,
        was_open,
        to,
        pause: None,
        end,
        is_unreachable: end == Some(End::NoAnswer),
        detail,
    };
    hub.report(running, change);
}

fn of_stream(error: io::Error) -> End {
    match is_refusal(&error) {
        true => End::Refused(Refusal::Unavailable),
        false => End::ResetByPeer(ResetReason::Other),
    }
}
