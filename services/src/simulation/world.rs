//! The network between two processes, and virtual time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::host::{App, Driven, Host};
use crate::{
    core::{
        access::Limits,
        session::{Opening, Session, Settings, StreamId},
        sessions::{Key, Role, Verdict},
    },
    wire::{Accept, Carries, Frame, Resume, SessionId},
};

/// What is on its way.
#[derive(Debug)]
enum Sent {
    Frame(Frame),
    End,
}

/// A stream of one session. Its two ends have the same number.
struct Stream {
    path: usize,
    key: [Option<Key>; 2],
    /// Toward each side.
    pipes: [VecDeque<(Instant, Sent)>; 2],
    /// Whether each side still has it.
    open: [bool; 2],
    /// Nothing is delivered any longer; each side notices at this time.
    cut: Option<[Instant; 2]>,
}

pub(crate) struct World {
    pub(crate) rng: fastrand::Rng,
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    /// Whether each path is there. The last one that is there is the best.
    pub(crate) paths: Vec<bool>,
    streams: BTreeMap<u64, Stream>,
    next: u64,
    pub(crate) resets: bool,
    /// How often new applications read at least.
    pub(crate) least_reads: u32,
    /// Sessions that are over: of each side.
    pub(crate) ended: [BTreeMap<SessionId, App>; 2],
    pub(crate) crashed: [u32; 2],
    /// How often a resume came too soon.
    pub(crate) delayed: u32,
}

/// How many frames a stream takes before it pushes back.
const IN_FLIGHT: usize = 6;

/// How long a step takes at most.
pub(crate) const STEP: Duration = Duration::from_millis(40);

impl World {
    pub(crate) fn new(seed: u64, memory: usize, limits: &Limits, settings: &Settings) -> Self {
        let peers = [PeerId::random(), PeerId::random()];
        let host = |side: usize| {
            let instance = 1 + side as u64;
            let bounds = (memory, limits.clone());
            Host::new(peers[side], instance, bounds, &[peers[1 - side]], settings)
        };
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now: Instant::now(),
            hosts: [host(0), host(1)],
            paths: vec![true],
            streams: BTreeMap::new(),
            next: 1,
            resets: false,
            least_reads: 0,
            ended: Default::default(),
            crashed: [0, 0],
            delayed: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The process 0 opens a session at 1.
    pub(crate) fn open(&mut self, most: u64) -> Option<SessionId> {
        let number = self.number();
        let session = SessionId(u128::from(number).to_be_bytes());
        let key = Key {
            peer: self.hosts[1].peer,
            role: Role::Forward,
            session,
        };
        let (now, app) = (self.now, self.app(session, 0, most));
        let host = &mut self.hosts[0];
        let service: crate::config::ServiceName = "db".parse().expect("a name");
        let share = host
            .table
            .handle_open(key, service.clone(), Carries::Bytes, now)?;
        let opening = Opening {
            session,
            service,
            client: None,
        };
        let session = Session::open(opening, host.instance, share, &host.settings, now);
        let mut driven = Driven::new(session, app);
        driven.drain(now);
        host.driven.insert(key, driven);
        Some(key.session)
    }

    fn app(&mut self, session: SessionId, side: u64, most: u64) -> App {
        let number = u128::from_be_bytes(session.0) as u64;
        App {
            seed: 2 * number + side,
            peer_seed: 2 * number + (1 - side),
            total: self.rng.u64(0..=most),
            sent: 0,
            got: 0,
            got_end: false,
            was_reset: false,
            resets: false,
            reads: [3, 30, 100][self.rng.usize(..3)].max(self.least_reads),
            unread: 0,
            end: None,
            opened: 0,
            peer_crashes: self.crashed[1 - side as usize],
        }
    }

    pub(crate) fn cut(&mut self, path: usize) {
        self.paths[path] = false;
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            if self.streams[&id].path == path {
                self.cut_stream(id);
            }
        }
    }

    fn cut_stream(&mut self, id: u64) {
        let notice = [(); 2].map(|()| self.now + Duration::from_millis(self.rng.u64(..3500)));
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // What is on its way is lost from some point on.
        for pipe in &mut stream.pipes {
            pipe.truncate(self.rng.usize(0..=pipe.len()));
        }
        stream.cut = Some(notice);
    }

    /// A path appears that is better than all others.
    pub(crate) fn improve(&mut self) {
        self.paths.push(true);
        let now = self.now;
        for driven in self.hosts[0].driven.values_mut() {
            driven.session.handle_better_path(now);
            driven.drain(now);
        }
    }

    /// The process ends without a word, and another one begins.
    pub(crate) fn crash(&mut self, side: usize) {
        self.crashed[side] += 1;
        let number = self.number();
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.cut_stream(id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.open[side] = false;
                stream.pipes[side].clear();
            }
        }
        let other = self.hosts[1 - side].peer;
        let host = &mut self.hosts[side];
        for (key, driven) in std::mem::take(&mut host.driven) {
            self.ended[side].insert(key.session, driven.app);
        }
        assert_eq!(
            host.memory.held_at_most(),
            0,
            "nothing is held without sessions"
        );
        let bounds = (host.bytes, host.limits.clone());
        *host = Host::new(host.peer, number << 8, bounds, &[other], &host.settings);
        if side == 0 {
            // The other process asks who it is.
            self.hello(0);
        }
        self.table_actions();
    }

    /// The process introduces itself to the other one, as it does when it lists what it offers.
    pub(crate) fn hello(&mut self, side: usize) {
        let host = &self.hosts[side];
        let (peer, Frame::Hello(hello)) = (host.peer, host.table.hello()) else {
            unreachable!("a hello")
        };
        self.hosts[1 - side].table.handle_hello(peer, hello);
        self.table_actions();
    }

    fn table_actions(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            while let Some(action) = host.table.poll_action() {
                use crate::core::sessions::Action;
                let (Action::PeerIs(key, _) | Action::Reset(key, _)) = action;
                let driven = host
                    .driven
                    .get_mut(&key)
                    .expect("the table knows what there is");
                match action {
                    Action::PeerIs(_, instance) => {
                        driven.session.handle_peer_instance(instance, now);
                    }
                    Action::Reset(_, reason) => driven.session.handle_reset(reason, now),
                }
                driven.drain(now);
            }
        }
    }

    /// Somebody else asks for each session of process 1.
    pub(crate) fn hostile_resume(&mut self) {
        let stranger = PeerId::random();
        let keys: Vec<_> = self.hosts[1].driven.keys().copied().collect();
        for key in keys {
            let progress = Accept {
                instance: self.hosts[0].instance,
                received: 0,
                delivered: 0,
                limit: 1 << 20,
                ..Accept::default()
            };
            let resume = Frame::Resume(Resume {
                session: key.session,
                instance: progress.instance,
                attempt: u32::MAX,
                progress,
            });
            let verdict = self.hosts[1]
                .table
                .handle_first_frame(stranger, &resume, self.now);
            assert!(
                matches!(verdict, Verdict::Answer(Frame::Refuse(_))),
                "{verdict:?}"
            );
        }
    }

    pub(crate) fn step(&mut self) {
        self.now += Duration::from_micros(self.rng.u64(..STEP.as_micros() as u64));
        self.deliver();
        for side in 0..2 {
            self.run_side(side);
        }
        self.table_actions();
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.pump(id);
        }
        for side in 0..2 {
            self.sweep(side);
            self.hosts[side].check(self.now, STEP);
        }
        self.streams.retain(|_, stream| stream.open != [false; 2]);
    }

    fn run_side(&mut self, side: usize) {
        let (now, resets) = (self.now, self.resets);
        let keys: Vec<_> = self.hosts[side].driven.keys().copied().collect();
        for key in keys {
            let best = self.paths.iter().rposition(|there| *there);
            let Some(driven) = self.hosts[side].driven.get_mut(&key) else {
                continue;
            };
            if driven.session.poll_timeout().is_some_and(|at| at <= now) {
                driven.session.handle_timeout(now);
                let again = driven.session.poll_timeout();
                assert!(again.is_none_or(|at| at > now), "due again at once");
                driven.drain(now);
            }
            if driven.connects_at.is_some_and(|at| at <= now) {
                driven.connects_at = None;
                driven.session.handle_connected(now);
                driven.drain(now);
            }
            driven.run_app(&mut self.rng, resets, now);
            if !std::mem::take(&mut driven.wants_stream) {
                continue;
            }
            let Some(path) = best else {
                driven.session.handle_stream_failed(now);
                driven.drain(now);
                continue;
            };
            self.next += 1;
            let id = self.next;
            driven.session.handle_stream(StreamId(id), now);
            driven.drain(now);
            let stream = Stream {
                path,
                key: [Some(key), None],
                pipes: Default::default(),
                open: [true, true],
                cut: None,
            };
            self.streams.insert(id, stream);
        }
    }

    /// Frames that are due arrive.
    fn deliver(&mut self) {
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            for side in 0..2 {
                while let Some(sent) = self.arrived(id, side) {
                    match sent {
                        Sent::Frame(frame) => self.arrive(id, side, frame),
                        Sent::End => self.lose(id, side),
                    }
                }
                let stream = &self.streams[&id];
                if stream.cut.is_some_and(|cut| cut[side] <= self.now) && stream.open[side] {
                    self.lose(id, side);
                }
            }
        }
    }

    fn arrived(&mut self, id: u64, side: usize) -> Option<Sent> {
        let stream = self.streams.get_mut(&id)?;
        let pipe = &mut stream.pipes[side];
        let due = pipe.front().is_some_and(|(at, _)| *at <= self.now);
        due.then(|| pipe.pop_front())
            .flatten()
            .map(|(_, sent)| sent)
    }

    fn arrive(&mut self, id: u64, side: usize, frame: Frame) {
        let stream = &self.streams[&id];
        if !stream.open[side] {
            return;
        }
        let now = self.now;
        match stream.key[side] {
            Some(key) => {
                if let Some(driven) = self.hosts[side].driven.get_mut(&key) {
                    driven.session.handle_frame(StreamId(id), frame, now);
                    let violation = driven.session.violation();
                    assert_eq!(violation, None, "{key:?}");
                    driven.drain(now);
                }
            }
            None => self.first_frame(id, side, frame),
        }
    }

    fn first_frame(&mut self, id: u64, side: usize, frame: Frame) {
        let (now, peer) = (self.now, self.hosts[1 - side].peer);
        let verdict = self.hosts[side].table.handle_first_frame(peer, &frame, now);
        let key = match verdict {
            Verdict::New(key, share) => {
                let Frame::Open(open) = frame else {
                    unreachable!("only an open begins a session")
                };
                let most = 20_000;
                let app = self.app(key.session, 1, most);
                let connects_at = now + Duration::from_millis(self.rng.u64(..200));
                let host = &mut self.hosts[side];
                let session = Session::accept(
                    &open,
                    StreamId(id),
                    host.instance,
                    share,
                    &host.settings,
                    now,
                );
                let mut driven = Driven::new(session, app);
                driven.connects_at = Some(connects_at);
                driven.drain(now);
                host.driven.insert(key, driven);
                key
            }
            Verdict::Attach(key) => {
                let driven = self.hosts[side]
                    .driven
                    .get_mut(&key)
                    .expect("the table knows it");
                driven.session.handle_attach(StreamId(id), frame, now);
                driven.drain(now);
                key
            }
            Verdict::Answer(frame) => return self.close(id, side, Some(frame)),
            Verdict::Later(_) => {
                self.delayed += 1;
                return self.close(id, side, None);
            }
        };
        self.streams.get_mut(&id).expect("it is there").key[side] = Some(key);
        self.table_actions();
    }

    fn close(&mut self, id: u64, side: usize, answer: Option<Frame>) {
        if let Some(answer) = answer {
            self.send(id, side, Sent::Frame(answer));
        }
        self.send(id, side, Sent::End);
        self.streams.get_mut(&id).expect("it is there").open[side] = false;
        self.table_actions();
    }

    fn send(&mut self, id: u64, from: usize, sent: Sent) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.cut.is_some() {
            return;
        }
        let pipe = &mut stream.pipes[1 - from];
        let behind = pipe.back().map_or(self.now, |(at, _)| *at);
        let delay = Duration::from_micros(self.rng.u64(1_000..60_000));
        pipe.push_back((behind.max(self.now + delay), sent));
    }

    fn lose(&mut self, id: u64, side: usize) {
        let stream = self.streams.get_mut(&id).expect("it is there");
        if !std::mem::take(&mut stream.open[side]) {
            return;
        }
        stream.pipes[side].clear();
        let key = stream.key[side];
        if let Some(driven) = key.and_then(|key| self.hosts[side].driven.get_mut(&key)) {
            driven.session.handle_stream_lost(StreamId(id), self.now);
            driven.drain(self.now);
        }
    }

    /// The stream takes what the sessions have for it.
    fn pump(&mut self, id: u64) {
        for side in 0..2 {
            let stream = &self.streams[&id];
            let (true, Some(key)) = (stream.open[side], stream.key[side]) else {
                continue;
            };
            while self.streams[&id].pipes[1 - side].len() < IN_FLIGHT {
                let now = self.now;
                let Some(driven) = self.hosts[side].driven.get_mut(&key) else {
                    break;
                };
                let frame = driven.session.poll_transmit(StreamId(id), now);
                driven.drain(now);
                let Some(frame) = frame else { break };
                self.send(id, side, Sent::Frame(frame));
            }
        }
    }

    /// Streams are closed, and sessions that are over go.
    fn sweep(&mut self, side: usize) {
        let keys: Vec<_> = self.hosts[side].driven.keys().copied().collect();
        for key in keys {
            while let Some(driven) = self.hosts[side].driven.get_mut(&key)
                && let Some(stream) = driven.closing.pop_front()
            {
                if let Some(frame) = driven.session.poll_transmit(stream, self.now) {
                    self.send(stream.0, side, Sent::Frame(frame));
                    let driven = self.hosts[side].driven.get_mut(&key).expect("it is there");
                    driven.closing.push_front(stream);
                    continue;
                }
                self.send(stream.0, side, Sent::End);
                if let Some(known) = self.streams.get_mut(&stream.0) {
                    known.open[side] = false;
                }
                let driven = self.hosts[side].driven.get_mut(&key).expect("it is there");
                driven.session.handle_stream_lost(stream, self.now);
                driven.drain(self.now);
            }
            let host = &mut self.hosts[side];
            let is_over = host
                .driven
                .get(&key)
                .is_some_and(|driven| driven.session.is_over());
            if is_over && let Some(driven) = host.driven.remove(&key) {
                host.table.handle_over(key);
                self.ended[side].insert(key.session, driven.app);
            }
        }
    }
}
