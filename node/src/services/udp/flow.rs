//! One flow: its streams, and its socket at the target.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use p2pnode_protocol::upgrade::is_refusal;
use p2pnode_services::{
    config::Identity,
    core::{
        flows::End,
        memory::Share,
        session::{End as SessionEnd, StreamId},
        sessions::Role,
        sockets::Place,
    },
    identity::proxy::{self, Follows},
    wire::{Frame, Open, Refusal, Refuse, Reset, ResetReason},
};
use tokio::time::timeout;

use super::{listen::poll_datagram, target};
use crate::services::{
    Hub,
    carrier::Carrier,
    flows::Line,
    hub::Wish,
    lines::State,
    offers::Offered,
    opening::{OpenError, Opening},
    report::Change,
    running::{On, lock},
    sources::TargetSocket,
};

/// Frames and datagrams that are moved in a row before others have their turn.
const IN_A_ROW: usize = 32;

/// What the log says where nothing listens at the target.
const NO_DATAGRAM: &str = "a target takes no datagram";

/// How long a stream that closes may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

type Connecting = BoxFuture<'static, io::Result<Arc<TargetSocket>>>;

/// The task of a flow.
pub(super) struct Task {
    hub: Hub,
    line: Arc<Line>,
    carriers: Vec<Carrier>,
    opening: Option<Opening>,
    /// A stream is wanted, and there is no path.
    waits_for_path: bool,
    connecting: Option<Connecting>,
    socket: Option<Arc<TargetSocket>>,
    header: Vec<u8>,
    is_opened: bool,
    on: Option<On>,
    reset: Option<ResetReason>,
    detail: Option<String>,
    end: Option<End>,
    offered: Option<Arc<Offered>>,
    _share: Share,
    /// Of its socket at the target.
    _place: Place,
    _wish: Option<Wish>,
}

/// Sends what is left, and closes the stream, in the background.
pub(super) fn finish(mut carrier: Carrier, last: Option<Frame>) {
    tokio::spawn(async move {
        // An error means that the peer does not wait for it.
        let _ = timeout(CLOSE_WAIT, carrier.finish(last)).await;
    });
}

impl Task {
    /// A flow of a client.
    pub(super) fn open(hub: Hub, line: Arc<Line>, share: Share) -> Self {
        let wish = hub.wish(line.key.peer);
        Self::new(hub, line, share, Some(wish))
    }

    /// A flow of a peer, over `carrier`.
    pub(super) fn accept(
        hub: Hub,
        line: Arc<Line>,
        offered: Arc<Offered>,
        (share, place): (Share, Place),
        open: &Open,
        carrier: Carrier,
    ) -> Self {
        let service = offered.service.clone();
        let mut task = Self::new(hub, line, share, None);
        let peer = task.line.key.peer;
        if service.identity == Identity::ProxyV2 {
            let follows = Follows::Datagrams;
            task.header = proxy::header(open.client, follows, Some(&peer), &service.name);
        }
        let sources = task.hub.sources(&service, peer);
        task.connecting =
            Some(async move { target::connect(&service.target, sources?).await }.boxed());
        task.offered = Some(offered);
        task._place = place;
        task.carry(carrier);
        task.opened();
        task
    }

    fn new(hub: Hub, line: Arc<Line>, share: Share, wish: Option<Wish>) -> Self {
        Self {
            hub,
            line,
            carriers: Vec::new(),
            opening: None,
            waits_for_path: false,
            connecting: None,
            socket: None,
            header: Vec::new(),
            is_opened: false,
            on: None,
            reset: None,
            detail: None,
            end: None,
            offered: None,
            _share: share,
            _place: Place::default(),
            _wish: wish,
        }
    }

    /// Runs until the flow is over.
    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        for carrier in self.carriers.drain(..) {
            finish(carrier, None);
        }
        if matches!(end, End::Violation) {
            self.hub.metrics().violation("order");
        }
        let end = match end {
            End::Idle => SessionEnd::Completed,
            End::Refused(refusal) => SessionEnd::Refused(refusal),
            End::ResetByPeer(reason) => SessionEnd::ResetByPeer(reason),
            End::Reset => SessionEnd::Reset(self.reset.unwrap_or(ResetReason::ServiceGone)),
            End::Unreachable => SessionEnd::NoAnswer,
            End::Violation => SessionEnd::Reset(ResetReason::Violation),
        };
        let state = match matches!(end, SessionEnd::Refused(_)) {
            true => State::Refused,
            false => State::Closed,
        };
        self.report(state, None, Some(end));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.line.waker.register(cx.waker());
        for _ in 0..IN_A_ROW {
            let mut goes_on = self.take_mail(cx);
            goes_on |= self.take_orders();
            if let Some(end) = self.end {
                return Poll::Ready(end);
            }
            goes_on |= self.poll_opening(cx);
            goes_on |= self.poll_target(cx);
            goes_on |= self.poll_carriers(cx);
            if !goes_on {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_mail(&mut self, cx: &Context<'_>) -> bool {
        let mail = self.line.running.take(cx);
        let (key, now) = (self.line.key, Instant::now());
        let mut any = false;
        for (carrier, first) in mail.attached {
            any = true;
            self.attach(carrier, &first);
        }
        if mail.better_path {
            any = true;
            match self.waits_for_path {
                true => self.want_stream(),
                false => self.hub.flows(|state| state.flows.handle_better_path(key)),
            }
        }
        if let Some(reason) = mail.unreachable.filter(|_| !self.is_opened) {
            any = true;
            self.detail = Some(reason);
            self.hub
                .flows(|state| state.flows.handle_unreachable(key, now));
        }
        // A flow that this node has opened asks the peer: its stream has ended with the peer's process.
        let is_lost = key.role == Role::Service && mail.peer_instance.is_some();
        if let Some(reason) = mail.reset.or(is_lost.then_some(ResetReason::Other)) {
            any = true;
            self.reset = Some(reason);
            self.hub.flows(|state| state.flows.handle_reset(key));
        }
        any
    }

    /// The peer has opened another stream for the flow.
    fn attach(&mut self, carrier: Carrier, first: &Frame) {
        let (peer, id, now) = (self.line.key.peer, carrier.id, Instant::now());
        let idle = self
            .offered
            .as_ref()
            .map(|offered| offered.service.udp_idle);
        let attached = self.hub.flows(|state| match (first, idle) {
            (Frame::Open(open), Some(idle)) => {
                state.flows.handle_open(peer, open, idle, id, now).map(drop)
            }
            (Frame::Resume(resume), _) => match state.flows.handle_resume(peer, resume, id, now) {
                Some(_) => Ok(()),
                None => Err(refuse(Refusal::UnknownSession)),
            },
            _ => Err(refuse(Refusal::Malformed)),
        });
        match attached {
            Ok(()) => self.carry(carrier),
            Err(mut refuse) => {
                refuse.instance = self.hub.instance();
                finish(carrier, Some(Frame::Refuse(refuse)));
            }
        }
    }

    fn take_orders(&mut self) -> bool {
        let orders = std::mem::take(&mut *lock(&self.line.orders));
        let mut any = orders.opens || orders.is_opened || !orders.closes.is_empty();
        if orders.opens {
            self.want_stream();
        }
        for (id, reason) in orders.closes {
            if let Some(index) = self.carriers.iter().position(|carrier| carrier.id == id) {
                let reason = reason.map(|reason| self.reset.unwrap_or(reason));
                let last = reason.map(|reason| Frame::Reset(Reset { reason }));
                finish(self.carriers.remove(index), last);
            }
        }
        if orders.is_opened {
            self.opened();
        }
        if let Some(error) = orders.undelivered {
            self.undelivered(&error);
        }
        if let Some(paused) = orders.carried {
            any = true;
            self.carried(paused);
        }
        self.end = orders.end;
        any
    }

    fn want_stream(&mut self) {
        self.waits_for_path = false;
        self.opening = Some(self.hub.open_stream(&self.line.key.peer));
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(opened)) = self.opening.as_mut().map(|opening| opening.poll_unpin(cx))
        else {
            return false;
        };
        self.opening = None;
        let (key, now) = (self.line.key, Instant::now());
        match opened {
            Ok((connection, stream)) => {
                let carrier = Carrier::new(self.hub.stream_id(), connection, stream);
                let id = carrier.id;
                self.carry(carrier);
                self.hub
                    .flows(|state| state.flows.handle_stream(key, id, now));
            }
            Err(OpenError::NoPath) => self.waits_for_path = true,
            Err(OpenError::Unsupported) => self.unsupported(self.hub.stream_id()),
            Err(error) => {
                tracing::debug!(session = %self.line.running.key.session, %error, "no stream");
                self.hub
                    .flows(|state| state.flows.handle_stream_failed(key, now));
            }
        }
        true
    }

    /// The peer does not speak the protocol: as one that offers another service.
    fn unsupported(&mut self, stream: StreamId) {
        let (key, now) = (self.line.key, Instant::now());
        let frame = Frame::Refuse(refuse(Refusal::Unavailable));
        self.hub.flows(|state| {
            state.flows.handle_stream(key, stream, now);
            state.flows.handle_frame(key, stream, frame, now);
        });
    }

    fn carry(&mut self, carrier: Carrier) {
        self.on = self.hub.on(carrier.connection);
        self.carriers.push(carrier);
    }

    /// The flow goes on on its newest stream, which may be on another path.
    fn carried(&mut self, paused: Option<Duration>) {
        if self.on.is_some() && self.on != self.line.running.is_on() {
            let state = paused.map_or(State::Moved, |_| State::Resumed);
            self.report(state, paused, None);
        }
    }

    fn opened(&mut self) {
        self.is_opened = true;
        self.report(State::Opened, None, None);
    }

    fn poll_carriers(&mut self, cx: &mut Context<'_>) -> bool {
        let (key, hub, now) = (self.line.key, &self.hub, Instant::now());
        let (mut any, mut lost) = (false, Vec::new());
        for carrier in &mut self.carriers {
            let id = carrier.id;
            let mut error = None;
            for _ in 0..IN_A_ROW {
                match carrier.poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(Some(frame))) => {
                        any = true;
                        hub.flows(|state| state.flows.handle_frame(key, id, frame, now));
                    }
                    Poll::Ready(Ok(None)) => error = Some(None),
                    Poll::Ready(Err(broken)) => error = Some(Some(broken)),
                }
                if error.is_some() {
                    break;
                }
            }
            let next = || {
                let frame = hub.flows(|state| state.poll_transmit(key, id));
                any |= frame.is_some();
                frame
            };
            if error.is_none()
                && let Poll::Ready(Err(broken)) = carrier.poll_send(cx, next)
            {
                error = Some(Some(broken));
            }
            if let Some(error) = error {
                lost.push((id, error));
            }
        }
        any |= !lost.is_empty();
        for (id, error) in lost {
            self.lost(id, error);
        }
        any
    }

    fn lost(&mut self, id: StreamId, error: Option<io::Error>) {
        self.carriers.retain(|carrier| carrier.id != id);
        let (key, now) = (self.line.key, Instant::now());
        match error {
            Some(error) if is_refusal(&error) => {
                let frame = Frame::Refuse(refuse(Refusal::Unavailable));
                self.hub
                    .flows(|state| state.flows.handle_frame(key, id, frame, now));
            }
            Some(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::info!(peer = %key.peer, %error, "a peer broke the protocol of services");
                self.hub.metrics().violation("frame");
                self.reset = Some(ResetReason::Violation);
                self.hub.flows(|state| state.flows.handle_reset(key));
            }
            Some(_) | None => {}
        }
        self.hub
            .flows(|state| state.flows.handle_stream_lost(key, id, now));
    }

    /// The kernel reports a closed port where the next datagram is sent, or where one is taken.
    fn undelivered(&self, error: &io::Error) {
        let running = &self.line.running;
        let (peer, service) = (running.key.peer, &running.service);
        match self.hub.is_news(running, NO_DATAGRAM) {
            true => {
                tracing::info!(own = tracing::field::Empty, %peer, %service, %error, "{NO_DATAGRAM}");
            }
            false => tracing::debug!(%peer, %service, %error, "{NO_DATAGRAM}"),
        }
    }

    /// The side of the service: what its target sends.
    fn poll_target(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = self.poll_connecting(cx);
        let key = self.line.key;
        let Some(socket) = &self.socket else {
            return any;
        };
        for _ in 0..IN_A_ROW {
            match poll_datagram(|buffer| socket.poll_recv(cx, buffer)) {
                Poll::Pending => break,
                Poll::Ready(Ok(((), payload))) => self.hub.target_sent(key, payload),
                // The target's port is closed. It may be open a moment later.
                Poll::Ready(Err(error)) => {
                    if let Some(target) = &self.line.target {
                        lock(target).failed(&error);
                    }
                    self.undelivered(&error);
                }
            }
            any = true;
        }
        any
    }

    fn poll_connecting(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(connecting) = &mut self.connecting else {
            return false;
        };
        let Poll::Ready(connected) = connecting.poll_unpin(cx) else {
            return false;
        };
        self.connecting = None;
        match connected {
            Ok(socket) => {
                if let Some(target) = &self.line.target {
                    let header = std::mem::take(&mut self.header);
                    let failed = lock(target).connected(Arc::clone(&socket), header);
                    for error in failed {
                        self.line.undelivered(error, self.hub.metrics());
                    }
                }
                self.socket = Some(socket);
            }
            Err(error) => {
                self.detail = Some(error.to_string());
                self.reset = Some(ResetReason::TargetUnreachable);
                let key = self.line.key;
                self.hub.flows(|state| state.flows.handle_reset(key));
            }
        }
        true
    }

    fn report(&self, state: State, pause: Option<Duration>, end: Option<SessionEnd>) {
        let running = &self.line.running;
        let was_open = running.is_open();
        running.set_open(self.is_opened && end.is_none());
        let change = Change {
            state,
            was_open,
            to: self.on.filter(|_| end.is_none()),
            pause,
            end,
            is_unreachable: end == Some(SessionEnd::NoAnswer),
            detail: self.detail.as_deref(),
        };
        self.hub.report(running, change);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        debug_assert!(self.line.target.is_some() == (self.line.key.role == Role::Service));
        self.hub.over(&self.line.running);
    }
}

fn refuse(refusal: Refusal) -> Refuse {
    let instance = 0;
    Refuse { instance, refusal }
}
