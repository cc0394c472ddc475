//! A process with its sessions and the applications at them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;

use crate::{
    config::{Allow, Identity, Service, Source},
    core::{
        access::{Access, Limits},
        memory::Memory,
        session::{Action, End, Event, Session, Settings, StreamId},
        sessions::{Key, Sessions},
    },
    wire::ResetReason,
};

/// A client or a target: what it sends, and what it has got.
#[derive(Debug)]
pub(crate) struct App {
    /// The seed of its bytes.
    pub(crate) seed: u64,
    /// The seed of what it gets.
    pub(crate) peer_seed: u64,
    pub(crate) total: u64,
    pub(crate) sent: u64,
    pub(crate) got: u64,
    pub(crate) got_end: bool,
    pub(crate) was_reset: bool,
    /// It has reset its socket.
    pub(crate) resets: bool,
    /// Out of 100 steps, in how many it reads.
    pub(crate) reads: u32,
    /// What the socket has and the application has not.
    pub(crate) unread: usize,
    pub(crate) end: Option<End>,
    pub(crate) opened: u32,
    /// How often the other process had ended before this began.
    pub(crate) peer_crashes: u32,
}

pub(crate) struct Driven {
    pub(crate) session: Session,
    pub(crate) app: App,
    /// Since when it has had no stream.
    pub(crate) waiting: Option<Instant>,
    pub(crate) wants_stream: bool,
    pub(crate) closing: VecDeque<StreamId>,
    /// When the target is connected.
    pub(crate) connects_at: Option<Instant>,
}

/// A process.
pub(crate) struct Host {
    pub(crate) peer: PeerId,
    pub(crate) instance: u64,
    pub(crate) memory: Memory,
    pub(crate) bytes: usize,
    pub(crate) limits: Limits,
    pub(crate) table: Sessions,
    pub(crate) driven: BTreeMap<Key, Driven>,
    pub(crate) settings: Settings,
}

pub(crate) fn byte(seed: u64, offset: u64) -> u8 {
    (seed.wrapping_mul(31) ^ offset ^ (offset >> 8).wrapping_mul(7)) as u8
}

pub(crate) fn access(peers: &[PeerId]) -> Access {
    Access::new(&[Service {
        name: "db".parse().expect("a name"),
        target: "tcp://127.0.0.1:1".parse().expect("a target"),
        allow: Allow::Peers(peers.iter().copied().collect()),
        identity: Identity::None,
        protocol: None,
        source: Source::Any,
        udp_idle: Duration::ZERO,
    }])
}

impl Host {
    pub(crate) fn new(
        peer: PeerId,
        instance: u64,
        (bytes, limits): (usize, Limits),
        allow: &[PeerId],
        settings: &Settings,
    ) -> Self {
        let memory = Memory::new(bytes);
        Self {
            peer,
            instance,
            table: Sessions::new(instance, memory.clone(), access(allow), limits.clone()),
            memory,
            bytes,
            limits,
            driven: BTreeMap::new(),
            settings: settings.clone(),
        }
    }

    pub(crate) fn check(&self, now: Instant, slack: Duration) {
        let held: usize = self
            .driven
            .values()
            .map(|driven| driven.session.held())
            .sum();
        assert!(
            held <= self.bytes,
            "{held} of {} bytes are held",
            self.bytes
        );
        assert!(self.memory.held_at_most() <= self.bytes);
        for driven in self.driven.values() {
            if let Some(since) = driven.waiting {
                let waited = now - since;
                assert!(
                    waited <= self.settings.linger + slack,
                    "waits for {waited:?}"
                );
            }
        }
    }
}

impl Driven {
    pub(crate) fn new(session: Session, app: App) -> Self {
        Self {
            session,
            app,
            waiting: None,
            wants_stream: false,
            closing: VecDeque::new(),
            connects_at: None,
        }
    }

    /// What the session wants, and what it reports.
    pub(crate) fn drain(&mut self, now: Instant) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::OpenStream => self.wants_stream = true,
                Action::CloseStream(stream) => self.closing.push_back(stream),
                Action::ShutdownLocal => {
                    assert!(!self.app.got_end && !self.app.was_reset);
                    self.app.got_end = true;
                }
                Action::ResetLocal => {
                    assert!(!self.app.was_reset, "reset twice");
                    self.app.was_reset = true;
                }
            }
        }
        while let Some(event) = self.session.poll_event() {
            assert_eq!(self.app.end, None, "{event:?} after the end");
            match event {
                Event::Opened => self.app.opened += 1,
                Event::Waiting => self.waiting = Some(now),
                Event::Moved { to } => {
                    self.waiting = None;
                    assert_eq!(self.session.current(), Some(to));
                }
                Event::Resumed { to, pause } => {
                    assert_eq!(self.session.current(), Some(to));
                    let waited = self.waiting.take().map(|since| now - since);
                    assert!(waited <= Some(pause), "{waited:?} of {pause:?}");
                }
                Event::Closed(end) => {
                    self.waiting = None;
                    self.app.end = Some(end);
                    assert_eq!(self.app.was_reset, end != End::Completed, "{end:?}");
                }
            }
        }
    }

    /// The application does something.
    pub(crate) fn run_app(&mut self, rng: &mut fastrand::Rng, resets: bool, now: Instant) {
        let Self { session, app, .. } = self;
        if app.end.is_some() || app.resets {
            return;
        }
        // The process of the session notices when it writes, or when it has read all.
        if resets && rng.u32(..400) == 0 {
            app.resets = true;
            if rng.bool() {
                session.handle_broken(now);
            }
            session.handle_reset(ResetReason::LocalReset, now);
            return self.drain(now);
        }
        let most = session.room().min((app.total - app.sent) as usize);
        if most > 0 {
            let length = rng.usize(1..=most.min(3000));
            let end = app.sent + length as u64;
            let bytes: Vec<u8> = (app.sent..end).map(|at| byte(app.seed, at)).collect();
            app.sent = end;
            session.handle_data(Bytes::from(bytes), now);
        }
        if app.sent == app.total && rng.bool() {
            app.sent = app.total;
            session.handle_end(now);
        }
        if rng.u32(..100) < app.reads {
            while let Some(bytes) = session.poll_data() {
                assert!(!app.got_end, "data behind the end");
                for byte in bytes.iter() {
                    assert_eq!(*byte, self::byte(app.peer_seed, app.got), "at {}", app.got);
                    app.got += 1;
                }
                app.unread += bytes.len();
                if rng.u8(..4) == 0 {
                    break;
                }
            }
        }
        let delivered = match rng.bool() {
            true => app.unread,
            false => rng.usize(0..=app.unread),
        };
        app.unread -= delivered;
        session.handle_delivered(delivered, now);
        self.drain(now);
    }
}
