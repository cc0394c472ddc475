//! One side of one session: a direction each way, over one stream at a time.
//!
//! 1. The opener wants a stream ([`Action::OpenStream`]) and sends `OPEN` and the first data on it. The accepting side dials its
//!    target and answers `ACCEPT`.
//! 2. Each side keeps what the other has not confirmed as delivered to its local socket.
//! 3. A stream that ends leaves the session waiting. The opener wants another one and sends `RESUME` there. Both send again from
//!    what the other has received. For a better path the same happens while the earlier stream carries on.
//! 4. The session ends when both directions have ended and all is confirmed, by a reset, or when it has waited too long.
//! 5. A reset of the local socket follows what that socket sent before. Whatever ends a session, the local socket gets what has come.
//!
//! The task that drives a session calls `poll_transmit` for each stream that can take a frame, and `poll_data` for the local
//! socket. After each `handle_*` it calls `poll_action` and `poll_event` until they are empty. See decisions 0701 and 0703.

mod close;
mod frames;
mod incoming;
mod local;
mod outgoing;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod violation;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use self::{stream::StreamId, violation::Violation};

use self::{incoming::Incoming, outgoing::Outgoing, stream::Stream};
use super::memory::Share;
use crate::{
    config::ServiceName,
    wire::{FIRST_WINDOW, Frame, Open, Refusal, ResetReason, SessionId},
};

/// How sessions behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a session without a stream waits.
    pub linger: Duration,
    /// How long an opener waits for the first answer.
    pub open_timeout: Duration,
    /// How long it waits for the answer to a resume before it tries another stream.
    pub answer_timeout: Duration,
    /// How late a confirmation may be that is not urgent.
    pub confirm_delay: Duration,
    /// The window in the beginning. Both sides have to have the same.
    pub first_window: u64,
    /// The greatest window.
    pub most_window: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            linger: crate::config::LINGER,
            // As long as a target that does not answer keeps a TCP client of most systems.
            open_timeout: Duration::from_secs(60),
            // Pings notice a dead path in 3.5 s. This is for peers that live and do not answer.
            answer_timeout: Duration::from_secs(10),
            confirm_delay: Duration::from_millis(25),
            first_window: FIRST_WINDOW,
            most_window: 16 << 20,
        }
    }
}

/// What identifies a session at its opener.
#[derive(Debug, Clone)]
pub struct Opening {
    /// 128 random bits.
    pub session: SessionId,
    /// The service.
    pub service: ServiceName,
    /// Where the client is, and where it connected to.
    pub client: Option<(SocketAddr, SocketAddr)>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a stream on the best path of the peer, then report it by `handle_stream` or `handle_stream_failed`.
    OpenStream,
    /// Send what `poll_transmit` still returns for the stream, then close it.
    CloseStream(StreamId),
    /// All data is with the local socket: end that direction.
    ShutdownLocal,
    /// Reset the local socket. Reading and writing are over.
    ResetLocal,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The session carries data.
    Opened,
    /// It goes on on another stream, and the earlier one carried it up to then.
    Moved {
        /// The stream that it is on.
        to: StreamId,
    },
    /// It goes on, after it had no stream.
    Resumed {
        /// The stream that it is on.
        to: StreamId,
        /// How long it had none.
        pause: Duration,
    },
    /// It has no stream.
    Waiting,
    /// It is over for the local socket. The last event.
    Closed(End),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Both directions ended, and all is delivered.
    Completed,
    /// This side reset it.
    Reset(ResetReason),
    /// The peer reset it.
    ResetByPeer(ResetReason),
    /// The peer refused to open or resume it.
    Refused(Refusal),
    /// No path was found to open it.
    NoAnswer,
    /// The peer was reached, and did not answer in time.
    Unanswered,
    /// It had no stream for too long.
    Expired,
    /// The peer's process is another one than before.
    PeerRestarted,
    /// It had no stream for longer than the peer waits.
    ExpiredAtPeer,
    /// Its path was lost, and it cannot move: it is a raw stream.
    PathLost,
    /// This side has as many sessions as its memory admits.
    NoMemory,
}

/// One side of a session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    side: Side,
    phase: Phase,
    /// This process.
    instance: u64,
    /// The peer's process, once it is known.
    peer_instance: Option<u64>,
    /// How long it waits without a stream: the shorter time of both sides, once it is known.
    linger: Duration,
    /// Of the last `OPEN` or `RESUME`.
    attempt: u32,
    settings: Settings,
    share: Share,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The newest last.
    streams: Vec<Stream>,
    rtt: Duration,
    /// When the last stream in use ended; at first, when the session began.
    waiting_since: Option<Instant>,
    opening: Option<OpenStream>,
    /// Streams in a row that did not come to carry the session.
    failures: u32,
    confirm_at: Option<Instant>,
    look_at: Option<Instant>,
    /// When a session that is over is forgotten.
    forget_at: Option<Instant>,
    /// The local socket was reset: the peer gets the reset behind what that socket sent before.
    resets: bool,
    /// How many bytes the local sockets of both sides have taken, and since when that number is the same.
    progress: (u64, Instant),
    is_closed: bool,
    violation: Option<Violation>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
enum Side {
    Opener(Opening),
    Acceptor,
}

/// An opener's search for a stream.
#[derive(Debug, Clone, Copy)]
enum OpenStream {
    /// The action is out.
    Asked,
    /// None could be opened: the action comes again at this time.
    Failed(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The opener has no answer yet.
    Opening,
    /// The accepting side dials its target.
    Connecting,
    /// Data is carried.
    Running,
    /// The peer is to know of the reset.
    Resetting(ResetReason),
    /// The opener has everything, and the peer is to know it.
    Finishing,
    /// The peer has ended: the local socket takes what has come, and is reset then.
    Draining(End),
    /// Nothing is left but what streams have to send.
    Over,
}

/// How long the first pause after a failed stream is. It doubles, up to [`MOST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(2);

/// How often a session that waits for memory looks for it.
const LOOK: Duration = Duration::from_millis(100);

impl Session {
    /// A session that this side opens.
    #[must_use]
    pub fn open(
        opening: Opening,
        instance: u64,
        share: Share,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        let mut session = Self::new(
            opening.session,
            Side::Opener(opening),
            Phase::Opening,
            instance,
            share,
            settings,
            now,
        );
        session.want_stream();
        session
    }

    /// A session that the peer opens with `open` on `stream`. The target is to be dialed: see [`Self::handle_connected`].
    #[must_use]
    pub fn accept(
        open: &Open,
        stream: StreamId,
        instance: u64,
        share: Share,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        let mut session = Self::new(
            open.session,
            Side::Acceptor,
            Phase::Connecting,
            instance,
            share,
            settings,
            now,
        );
        session.peer_instance = Some(open.instance);
        session.lingers_no_longer_than(open.linger);
        session.attach(stream, Frame::Open(open.clone()), now);
        session
    }

    fn new(
        id: SessionId,
        side: Side,
        phase: Phase,
        instance: u64,
        share: Share,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        Self {
            id,
            side,
            phase,
            instance,
            peer_instance: None,
            linger: settings.linger,
            attempt: 0,
            share,
            outgoing: Outgoing::new(settings.first_window),
            incoming: Incoming::new(settings.first_window, settings.most_window),
            settings: settings.clone(),
            streams: Vec::new(),
            rtt: Duration::ZERO,
            waiting_since: Some(now),
            opening: None,
            failures: 0,
            confirm_at: None,
            look_at: None,
            forget_at: None,
            resets: false,
            progress: (0, now),
            is_closed: false,
            violation: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// What it holds in memory, in bytes of data and their places.
    #[must_use]
    pub fn held(&self) -> usize {
        self.share.held()
    }

    /// What the peer did that the protocol forbids, if it was reset because of that.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// Whether nothing is left to do: it may be dropped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
            && self.streams.is_empty()
            && self.actions.is_empty()
            && self.events.is_empty()
    }

    /// The round trip of the path is `rtt`.
    pub fn handle_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.expires_at(),
            self.answer_due(),
            again_at(self.opening),
            self.confirm_at,
            self.look_at,
            self.forget_at,
            self.cut_at(),
        ];
        due.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.forget_at) {
            self.forget();
        }
        if is_due(self.expires_at()) {
            self.expire(now);
        }
        if is_due(self.cut_at()) {
            self.cut(now);
        }
        if is_due(self.answer_due()) {
            self.give_up_asking(now);
        }
        if is_due(again_at(self.opening)) {
            self.opening = None;
            self.want_stream();
        }
        if is_due(self.confirm_at) {
            self.confirm_at = None;
            self.incoming.confirm_now();
        }
        if is_due(self.look_at) {
            self.look_at = None;
            self.incoming.look_for_memory(&self.share);
        }
        self.settle(now);
    }

    /// What follows from what has happened.
    fn settle(&mut self, now: Instant) {
        if self.phase == Phase::Running {
            if self.incoming.poll_end() {
                self.actions.push_back(Action::ShutdownLocal);
            }
            self.complete(now);
        }
        self.end_behind_data(now);
        let runs = self.phase == Phase::Running;
        if !(runs && self.incoming.is_unconfirmed() && !self.incoming.is_due()) {
            self.confirm_at = None;
        } else if self.confirm_at.is_none() {
            self.confirm_at = Some(now + self.settings.confirm_delay);
        }
        if !(runs && self.incoming.is_starved()) {
            self.look_at = None;
        } else if self.look_at.is_none() {
            self.look_at = Some(now + LOOK);
        }
    }
}

fn again_at(opening: Option<OpenStream>) -> Option<Instant> {
    match opening {
        Some(OpenStream::Failed(again_at)) => Some(again_at),
        Some(OpenStream::Asked) | None => None,
    }
}
