//! One session, its local socket and its streams: a task that moves bytes between them as the machine decides.

mod local;
mod streams;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pnode_services::{
    core::{
        memory::Share,
        session::{Action, End, Event, Opening as Begin, Session, Settings, StreamId},
        sockets::Place,
    },
    wire::{Open, ResetReason},
};
use p2pnode_transports::ClaimedTcp;
use tokio::time::Sleep;

use super::{
    Hub,
    carrier::Carrier,
    hub::Wish,
    lines::State,
    local::Socket,
    offers::Offered,
    opening::Opening,
    report::Change,
    running::Running,
    target::{self, Dialing},
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
    /// What goes there when the peer has accepted.
    greeting: Bytes,
    /// What the local socket has not taken of the last piece.
    piece: Bytes,
    /// The local socket has ended.
    is_read: bool,
    /// It takes nothing further.
    is_broken: bool,
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
    /// The port of the range from which the target was dialed.
    _port: Option<ClaimedTcp>,
}

/// How a session went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
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

    /// A session that the peer opens with `open`, over `carrier`. Its target's socket has the place.
    pub(super) fn accept(
        hub: Hub,
        running: Arc<Running>,
        offered: &Offered,
        (share, place): (Share, Place),
        open: &Open,
        carrier: Carrier,
    ) -> Self {
        let (settings, instance) = (hub.settings(), hub.instance());
        let now = Instant::now();
        let session = Session::accept(open, carrier.id, instance, share, settings, now);
        if let Some(on) = hub.on(carrier.connection) {
            running.moves(on);
        }
        let dialing = target::dial(&hub, offered, running.key.peer, open.client, place);
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
            greeting: Bytes::new(),
            piece: Bytes::new(),
            is_read: false,
            is_broken: false,
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
            _port: None,
        }
    }

    /// The client gets `greeting` once the peer has accepted.
    pub(super) fn greet(&mut self, greeting: Vec<u8>) {
        self.greeting = greeting.into();
    }

    /// Runs until nothing is left to do. A socket that another peer may have is returned as soon as this peer has failed: a task of
    /// its own informs the peer.
    pub(super) async fn run(mut self) -> Outcome {
        poll_fn(|cx| self.poll(cx)).await;
        let end = self.end.unwrap_or(End::Completed);
        let socket = match std::mem::replace(&mut self.local, Local::Gone) {
            Local::Open(socket) if self.keeps_socket && !self.is_opened => {
                if !self.is_over() {
                    tokio::spawn(async move { poll_fn(|cx| self.poll(cx)).await });
                }
                Some(socket)
            }
            Local::Open(socket) => {
                match end == End::Completed {
                    true => socket.close(),
                    false => socket.reset(),
                }
                None
            }
            Local::Dialing(_) | Local::Gone => None,
        };
        Outcome { end, socket }
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
            if self.is_over() || self.has_failed() {
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

    /// The peer has not accepted and will not, and the client's socket is untouched.
    fn has_failed(&self) -> bool {
        let is_untouched = self.keeps_socket && !self.is_opened;
        is_untouched && self.end.is_some() && matches!(self.local, Local::Open(_))
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
        if let Some(instance) = mail.peer_instance {
            any = true;
            self.session.handle_peer_instance(instance, now);
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

    /// A timer that is too early is left: it fires once for nothing, which is cheaper than to set one for each request.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let closing = self.closes_until();
        let due = self.session.poll_timeout().into_iter().chain(closing).min();
        let due = due.map(tokio::time::Instant::from_std);
        self.timer.take_if(|timer| timer.is_elapsed());
        if let (Some(timer), Some(at)) = (&mut self.timer, due)
            && at < timer.deadline()
        {
            timer.as_mut().reset(at);
        }
        let Some(at) = due else { return false };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
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
                if let (End::Completed, Local::Open(socket)) = (end, &self.local) {
                    socket.linger();
                }
                if let Some(violation) = self.session.violation() {
                    let (peer, session) = (self.running.key.peer, self.running.key.session);
                    tracing::info!(%peer, %session, %violation, "a peer broke the protocol of services");
                    self.hub.metrics().violation(violation.kind());
                }
                let state = match matches!(end, End::Refused(_)) {
                    true => State::Refused,
                    false => State::Closed,
                };
                (state, None, None)
            }
        };
        let was_open = self.running.is_open();
        self.is_opened |= state == State::Opened;
        if self.is_opened && !self.greeting.is_empty() {
            self.prefix = std::mem::take(&mut self.greeting);
        }
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
