//! One session, its local socket and its streams: a task that moves bytes between them as the machine decides.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use p2pnode_protocol::upgrade::is_refusal;
use p2pnode_services::{
    core::{
        memory::Share,
        session::{Action, End, Event, Opening as Begin, Session, Settings, StreamId},
    },
    wire::{Frame, Open, Refusal, Refuse, ResetReason},
};
use tokio::time::Sleep;

use super::{
    Hub,
    carrier::Carrier,
    hub::Wish,
    lines::State,
    local::{READ, Socket},
    offers::Offered,
    opening::{OpenError, Opening},
    report::Change,
    running::Running,
    target::{self, Connected, Dialing, Failed},
};

/// Rounds before others have their turn.
const ROUNDS: usize = 16;

/// Frames and pieces that are moved in a row before the other direction has its turn.
const IN_A_ROW: usize = 8;

/// How long streams that close may take when the session is over.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A session and what it is connected to.
pub(super) struct Driver {
    hub: Hub,
    running: Arc<Running>,
    session: Session,
    local: Local,
    /// What goes to the local socket before the first byte of the peer.
    prefix: Bytes,
    /// What the local socket has not taken of the last piece.
    piece: Bytes,
    /// The local socket has ended.
    is_read: bool,
    /// Its other direction is to be ended.
    shuts_down: bool,
    carriers: Vec<Carrier>,
    opening: Option<Opening>,
    timer: Option<Pin<Box<Sleep>>>,
    is_opened: bool,
    /// Nothing is read before the peer accepts, and the socket is kept if it does not: another peer may.
    keeps_socket: bool,
    end: Option<End>,
    since: Option<Instant>,
    /// Why the peer cannot be reached, or the target.
    detail: Option<String>,
    is_unreachable: bool,
    _wish: Option<Wish>,
}

/// How a session went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The client's socket, if the peer has not accepted and it was to be kept.
    pub(super) socket: Option<Socket>,
}

enum Local {
    Dialing(Dialing),
    Open(Socket),
    Gone,
}

impl Driver {
    /// A session that this node opens for the client at `socket`.
    pub(super) fn open(
        hub: Hub,
        running: Arc<Running>,
        share: Share,
        socket: Socket,
        keeps_socket: bool,
        settings: &Settings,
    ) -> Self {
        let begin = Begin {
            session: running.key.session,
            service: running.service.clone(),
            client: socket.addresses(),
        };
        let session = Session::open(begin, hub.instance(), share, settings, Instant::now());
        let wish = hub.wish(running.key.peer);
        let mut driver = Self::new(hub, running, session, Local::Open(socket));
        driver.keeps_socket = keeps_socket;
        driver._wish = Some(wish);
        driver
    }

    /// A session that the peer opens with `open`, over `carrier`.
    pub(super) fn accept(
        hub: Hub,
        running: Arc<Running>,
        offered: &Offered,
        share: Share,
        open: &Open,
        carrier: Carrier,
    ) -> Self {
        let (settings, instance) = (hub.settings(), hub.instance());
        let now = Instant::now();
        let session = Session::accept(open, carrier.id, instance, share, settings, now);
        if let Some(on) = hub.on(carrier.connection) {
            running.moves(on);
        }
        let dialing = target::dial(offered, running.key.peer, open);
        let mut driver = Self::new(hub, running, session, Local::Dialing(dialing));
        driver.carriers.push(carrier);
        driver
    }

    fn new(hub: Hub, running: Arc<Running>, session: Session, local: Local) -> Self {
        Self {
            hub,
            running,
            session,
            local,
            prefix: Bytes::new(),
            piece: Bytes::new(),
            is_read: false,
            shuts_down: false,
            carriers: Vec::new(),
            opening: None,
            timer: None,
            is_opened: false,
            keeps_socket: false,
            end: None,
            since: None,
            detail: None,
            is_unreachable: false,
            _wish: None,
        }
    }

    /// Runs until nothing is left to do.
    pub(super) async fn run(mut self) -> Outcome {
        poll_fn(|cx| self.poll(cx)).await;
        let socket = match std::mem::replace(&mut self.local, Local::Gone) {
            Local::Open(socket) => Some(socket),
            Local::Dialing(_) | Local::Gone => None,
        };
        Outcome { socket }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let mut goes_on = self.take_mail(cx);
            goes_on |= self.poll_opening(cx);
            goes_on |= self.poll_dialing(cx);
            goes_on |= self.poll_frames(cx);
            goes_on |= self.poll_deliver(cx);
            goes_on |= self.poll_read(cx);
            goes_on |= self.poll_send(cx);
            goes_on |= self.act();
            goes_on |= self.poll_timer(cx);
            if self.is_over() {
                return Poll::Ready(());
            }
            if !goes_on {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        let has_socket = self.shuts_down && matches!(self.local, Local::Open(_));
        self.session.is_over() && self.carriers.is_empty() && !has_socket
    }

    fn take_mail(&mut self, cx: &Context<'_>) -> bool {
        let now = Instant::now();
        let mail = self.running.take(cx);
        let mut any = false;
        if let Some(rtt) = mail.rtt {
            self.session.handle_rtt(rtt);
        }
        for (carrier, first) in mail.attached {
            any = true;
            let id = carrier.id;
            self.carriers.push(carrier);
            self.session.handle_attach(id, first, now);
        }
        if mail.better_path {
            any = true;
            self.session.handle_better_path(now);
        }
        if mail.restarted {
            any = true;
            self.session.handle_peer_restarted(now);
        }
        if let Some(reason) = mail
            .unreachable
            .filter(|_| !self.is_opened && self.end.is_none())
        {
            any = true;
            (self.detail, self.is_unreachable) = (Some(reason), true);
            self.session
                .handle_reset(ResetReason::TargetUnreachable, now);
        }
        if let Some(reason) = mail.reset {
            any = true;
            self.session.handle_reset(reason, now);
        }
        any
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(opened)) = self.opening.as_mut().map(|opening| opening.poll_unpin(cx))
        else {
            return false;
        };
        self.opening = None;
        let now = Instant::now();
        match opened {
            Ok((connection, stream)) => {
                let id = self.hub.stream_id();
                self.carriers.push(Carrier::new(id, connection, stream));
                self.session.handle_stream(id, now);
            }
            Err(OpenError::Unsupported) => {
                // As a peer that offers the protocol and not the service.
                let id = self.hub.stream_id();
                self.session.handle_stream(id, now);
                self.unsupported(id);
            }
            Err(error) => {
                tracing::debug!(session = %self.running.key.session, %error, "no stream");
                self.session.handle_stream_failed(now);
            }
        }
        true
    }

    fn unsupported(&mut self, stream: StreamId) {
        let now = Instant::now();
        if self.is_opened {
            // A process that offers nothing: not the one that had the session.
            self.session.handle_peer_restarted(now);
            return self.session.handle_stream_lost(stream, now);
        }
        let refuse = Frame::Refuse(Refuse {
            instance: 0,
            refusal: Refusal::Unavailable,
        });
        self.session.handle_frame(stream, refuse, now);
        self.session.handle_stream_lost(stream, now);
    }

    fn poll_dialing(&mut self, cx: &mut Context<'_>) -> bool {
        let Local::Dialing(dialing) = &mut self.local else {
            return false;
        };
        let Poll::Ready(dialed) = dialing.poll_unpin(cx) else {
            return false;
        };
        let now = Instant::now();
        match dialed {
            Ok(Connected { socket, prefix }) => {
                (self.local, self.prefix) = (Local::Open(socket), prefix);
                self.session.handle_connected(now);
            }
            Err(Failed { reason, detail }) => {
                self.local = Local::Gone;
                self.detail = Some(detail);
                self.session.handle_reset(reason, now);
            }
        }
        true
    }

    /// From the streams.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut any, mut index) = (false, 0);
        while let Some(carrier) = self.carriers.get_mut(index) {
            let id = carrier.id;
            let mut lost = None;
            for _ in 0..IN_A_ROW {
                if carrier.is_closing {
                    break;
                }
                match carrier.poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(Some(frame))) => {
                        any = true;
                        self.session.handle_frame(id, frame, Instant::now());
                    }
                    Poll::Ready(Ok(None)) => lost = Some(None),
                    Poll::Ready(Err(error)) => lost = Some(Some(error)),
                }
                if lost.is_some() {
                    break;
                }
            }
            match lost {
                None => index += 1,
                Some(error) => {
                    any = true;
                    self.lost(index, error);
                }
            }
        }
        any
    }

    /// The stream at `index` has ended.
    fn lost(&mut self, index: usize, error: Option<io::Error>) {
        let carrier = self.carriers.remove(index);
        let now = Instant::now();
        let (session, id) = (self.running.key.session, carrier.id);
        match error {
            Some(error) if is_refusal(&error) => return self.unsupported(id),
            Some(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::info!(peer = %self.running.key.peer, %session, %error, "a peer broke the protocol of services");
                self.session.handle_reset(ResetReason::Violation, now);
            }
            Some(error) => tracing::debug!(%session, %error, "a stream broke"),
            None => {}
        }
        self.session.handle_stream_lost(id, now);
    }

    /// To the local socket.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> bool {
        let Local::Open(socket) = &mut self.local else {
            return false;
        };
        let (mut any, mut broken) = (false, false);
        for _ in 0..IN_A_ROW {
            let is_prefix = !self.prefix.is_empty();
            if !is_prefix && self.piece.is_empty() {
                match self.session.poll_data() {
                    Some(piece) => self.piece = piece,
                    None => break,
                }
            }
            let bytes = match is_prefix {
                true => &mut self.prefix,
                false => &mut self.piece,
            };
            match socket.poll_write(cx, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    broken = true;
                    break;
                }
                Poll::Ready(Ok(written)) => {
                    any = true;
                    bytes.advance(written);
                    if !is_prefix {
                        self.running.came_in(written);
                        self.session.handle_delivered(written, Instant::now());
                    }
                }
            }
        }
        if self.shuts_down && self.piece.is_empty() && self.prefix.is_empty() {
            match socket.poll_shutdown(cx) {
                Poll::Pending => {}
                // It was reset in the meantime, and all is delivered.
                Poll::Ready(Ok(()) | Err(_)) => {
                    self.shuts_down = false;
                    any = true;
                }
            }
        }
        if broken {
            self.session
                .handle_reset(ResetReason::LocalReset, Instant::now());
        }
        any | broken
    }

    /// From the local socket.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = self.keeps_socket && !self.is_opened;
        let Local::Open(socket) = &mut self.local else {
            return false;
        };
        if self.is_read || waits {
            return false;
        }
        let mut any = false;
        for _ in 0..IN_A_ROW {
            let room = self.session.room();
            if room == 0 {
                break;
            }
            let read = socket.poll_read(cx, room.min(READ));
            let now = Instant::now();
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                    self.is_read = true;
                    self.session.handle_end(now);
                    return true;
                }
                Poll::Ready(Ok(bytes)) => {
                    any = true;
                    self.running.went_out(bytes.len());
                    self.session.handle_data(bytes, now);
                }
                Poll::Ready(Err(_)) => {
                    self.is_read = true;
                    self.session.handle_reset(ResetReason::LocalReset, now);
                    return true;
                }
            }
        }
        any
    }

    /// To the streams.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut any, mut index) = (false, 0);
        let now = Instant::now();
        while let Some(carrier) = self.carriers.get_mut(index) {
            let (id, session) = (carrier.id, &mut self.session);
            let sent = carrier.poll_send(cx, || {
                let frame = session.poll_transmit(id, now);
                any |= frame.is_some();
                frame
            });
            match sent {
                Poll::Ready(Ok(())) if carrier.is_closing => {
                    any = true;
                    self.carriers.remove(index);
                    self.session.handle_stream_lost(id, now);
                }
                Poll::Pending | Poll::Ready(Ok(())) => index += 1,
                // What the peer has sent before may say why: the end is seen when all is read.
                Poll::Ready(Err(error)) if !carrier.is_closing && !is_refusal(&error) => {
                    index += 1;
                }
                Poll::Ready(Err(error)) => {
                    any = true;
                    self.lost(index, Some(error));
                }
            }
        }
        any
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let closing = self.closes_until();
        let Some(at) = self.session.poll_timeout().into_iter().chain(closing).min() else {
            self.timer = None;
            return false;
        };
        let at = tokio::time::Instant::from_std(at);
        let timer = match &mut self.timer {
            Some(timer) => {
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                timer
            }
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(at))),
        };
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer = None;
        let now = Instant::now();
        if closing.is_some_and(|until| until <= now) {
            self.carriers.clear();
        }
        self.session.handle_timeout(now);
        true
    }

    /// Until when streams may close, once the session is over.
    fn closes_until(&mut self) -> Option<Instant> {
        if !self.session.is_over() {
            return None;
        }
        Some(*self.since.get_or_insert_with(Instant::now) + CLOSE_WAIT)
    }

    /// What the machine wants, and what it reports.
    fn act(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.session.poll_action() {
            any = true;
            match action {
                Action::OpenStream => {
                    self.opening = Some(self.hub.open_stream(&self.running.key.peer));
                }
                Action::CloseStream(id) => {
                    let mut carriers = self.carriers.iter_mut();
                    match carriers.find(|carrier| carrier.id == id) {
                        Some(carrier) => carrier.is_closing = true,
                        None => self.session.handle_stream_lost(id, Instant::now()),
                    }
                }
                Action::ShutdownLocal => self.shuts_down = true,
                Action::ResetLocal => self.reset_local(),
            }
        }
        while let Some(event) = self.session.poll_event() {
            any = true;
            self.report(event);
        }
        any
    }

    fn reset_local(&mut self) {
        self.piece = Bytes::new();
        self.shuts_down = false;
        if self.keeps_socket && !self.is_opened {
            return;
        }
        if let Local::Open(socket) = std::mem::replace(&mut self.local, Local::Gone) {
            socket.reset();
        }
    }

    fn report(&mut self, event: Event) {
        let on = |stream: Option<StreamId>| {
            let mut carriers = self.carriers.iter();
            let carrier = carriers.find(|carrier| Some(carrier.id) == stream)?;
            self.hub.on(carrier.connection)
        };
        let (state, pause, to) = match event {
            Event::Opened => (State::Opened, None, on(self.session.current())),
            Event::Moved { to } => (State::Moved, None, on(Some(to))),
            Event::Resumed { to, pause } => (State::Resumed, Some(pause), on(Some(to))),
            Event::Waiting => {
                tracing::debug!(session = %self.running.key.session, "a session waits for a path");
                return;
            }
            Event::Closed(end) => {
                self.end = Some(end);
                let state = match matches!(end, End::Refused(_)) {
                    true => State::Refused,
                    false => State::Closed,
                };
                (state, None, None)
            }
        };
        let was_open = self.running.is_open();
        self.is_opened |= state == State::Opened;
        self.running.set_open(self.is_opened && self.end.is_none());
        self.hub.report(
            &self.running,
            Change {
                state,
                was_open,
                to,
                pause,
                end: self.end,
                is_unreachable: self.is_unreachable,
                detail: self.detail.as_deref(),
            },
        );
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.hub.over(&self.running);
    }
}
