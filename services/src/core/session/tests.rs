#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod resets;
mod violations;

use bytes::Bytes;

use super::*;
use crate::{
    core::memory::Memory,
    wire::{Accept, Refuse, Resume},
};

const MS: Duration = Duration::from_millis(1);
const RTT: Duration = Duration::from_millis(50);

type Pipe = VecDeque<(Instant, Frame)>;

/// Both sides of a session, over streams with half a round trip of delay.
struct Pair {
    now: Instant,
    opener: Session,
    acceptor: Option<Session>,
    /// The streams that are there, and what is on its way toward the opener and the acceptor.
    streams: Vec<(StreamId, [Pipe; 2])>,
    next: u64,
    path: bool,
    actions: [Vec<Action>; 2],
    events: [Vec<Event>; 2],
    got: [Vec<u8>; 2],
    reads: [bool; 2],
    memory: Memory,
    settings: Settings,
}

impl Pair {
    fn new(settings: Settings) -> Self {
        let (now, memory) = (Instant::now(), Memory::new(128 << 20));
        let opening = Opening {
            session: SessionId([7; 16]),
            service: "db".parse().unwrap(),
            client: None,
        };
        let share = memory.peer().session().unwrap();
        let mut opener = Session::open(opening, 1, share, &settings, now);
        opener.handle_rtt(RTT);
        Self {
            now,
            opener,
            acceptor: None,
            streams: Vec::new(),
            next: 0,
            path: true,
            actions: Default::default(),
            events: Default::default(),
            got: Default::default(),
            reads: [true, true],
            memory,
            settings,
        }
    }

    fn opened() -> Self {
        let mut pair = Self::new(Settings::default());
        pair.run(RTT * 2);
        assert_eq!(pair.events[0], [Event::Opened]);
        pair
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            self.now += MS;
            self.arrive();
        }
        self.settle();
    }

    fn side(&mut self, side: usize) -> Option<&mut Session> {
        match side {
            0 => Some(&mut self.opener),
            _ => self.acceptor.as_mut(),
        }
    }

    fn settle(&mut self) {
        for side in 0..2 {
            let (now, reads) = (self.now, self.reads[side]);
            let Some(session) = self.side(side) else {
                continue;
            };
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now);
            }
            let mut got = Vec::new();
            while reads && let Some(bytes) = session.poll_data() {
                session.handle_delivered(bytes.len(), now);
                got.extend(bytes);
            }
            let (mut actions, mut events) = (Vec::new(), Vec::new());
            actions.extend(std::iter::from_fn(|| session.poll_action()));
            events.extend(std::iter::from_fn(|| session.poll_event()));
            self.got[side].extend(got);
            self.events[side].extend(events);
            for action in actions {
                self.act(side, action);
            }
        }
        for index in 0..self.streams.len() {
            for side in 0..2 {
                let (id, at) = (self.streams[index].0, self.now + RTT / 2);
                let now = self.now;
                let Some(session) = self.side(side) else {
                    continue;
                };
                let frames: Vec<_> =
                    std::iter::from_fn(|| session.poll_transmit(id, now)).collect();
                self.streams[index].1[1 - side].extend(frames.into_iter().map(|frame| (at, frame)));
            }
        }
    }

    fn act(&mut self, side: usize, action: Action) {
        self.actions[side].push(action);
        let now = self.now;
        match action {
            Action::OpenStream if self.path => {
                self.next += 1;
                let id = StreamId(self.next);
                self.streams.push((id, Default::default()));
                self.opener.handle_stream(id, now);
            }
            Action::OpenStream => self.opener.handle_stream_failed(now),
            Action::CloseStream(_) | Action::ShutdownLocal | Action::ResetLocal => {}
        }
    }

    fn arrive(&mut self) {
        for index in 0..self.streams.len() {
            for side in 0..2 {
                while let (id, pipes) = &mut self.streams[index]
                    && pipes[side].front().is_some_and(|(at, _)| *at <= self.now)
                    && let Some((_, frame)) = pipes[side].pop_front()
                {
                    let id = *id;
                    self.frame(side, id, frame);
                }
            }
        }
    }

    fn frame(&mut self, side: usize, id: StreamId, frame: Frame) {
        let now = self.now;
        if side == 0 {
            return self.opener.handle_frame(id, frame, now);
        }
        match (&mut self.acceptor, &frame) {
            (None, Frame::Open(open)) => {
                let share = self.memory.peer().session().unwrap();
                let mut session = Session::accept(open, id, 2, share, &self.settings, now);
                session.handle_rtt(RTT);
                session.handle_connected(now);
                self.acceptor = Some(session);
            }
            (Some(session), Frame::Open(_) | Frame::Resume(_)) => {
                session.handle_attach(id, frame, now);
            }
            (Some(session), _) => session.handle_frame(id, frame, now),
            (None, other) => panic!("{other:?} comes first"),
        }
    }

    fn lose(&mut self) {
        let now = self.now;
        for (id, _) in std::mem::take(&mut self.streams) {
            for side in 0..2 {
                if let Some(session) = self.side(side) {
                    session.handle_stream_lost(id, now);
                }
            }
        }
    }

    fn write(&mut self, side: usize, bytes: usize) -> usize {
        let now = self.now;
        let session = self.side(side).unwrap();
        let bytes = bytes.min(session.room());
        session.handle_data(vec![7; bytes].into(), now);
        bytes
    }

    /// Something that the opener says on its stream.
    fn forge(&mut self, frame: Frame) -> Session {
        let now = self.now;
        let id = self.opener.current().unwrap();
        let mut session = self.acceptor.take().unwrap();
        session.handle_frame(id, frame, now);
        session
    }
}

#[test]
fn the_first_data_arrives_half_a_round_trip_after_the_stream_is_open_and_its_answer_after_one() {
    let mut pair = Pair::new(Settings::default());
    pair.write(0, 100);
    pair.run(RTT / 2);
    assert_eq!(pair.got[1].len(), 100);
    pair.write(1, 50);
    pair.run(RTT / 2);
    assert_eq!(pair.got[0].len(), 50);
}

#[test]
fn half_a_close_travels_and_both_halves_end_the_session() {
    let mut pair = Pair::opened();
    pair.write(0, 10);
    pair.opener.handle_end(pair.now);
    pair.run(RTT);
    assert_eq!(
        (pair.got[1].len(), &pair.actions[1][..]),
        (10, &[Action::ShutdownLocal][..])
    );
    pair.write(1, 20);
    let now = pair.now;
    pair.acceptor.as_mut().unwrap().handle_end(now);
    pair.run(RTT * 2);
    assert_eq!(pair.got[0].len(), 20);
    for side in 0..2 {
        assert_eq!(
            pair.events[side].last(),
            Some(&Event::Closed(End::Completed))
        );
        assert!(pair.side(side).unwrap().is_over());
    }
    assert_eq!(pair.memory.held_at_most(), 2 * crate::core::memory::FLOOR);
}

#[test]
fn a_window_grows_to_its_greatest_in_six_round_trips_and_only_for_a_reader_that_keeps_up() {
    let mut pair = Pair::opened();
    let begin = pair.now;
    let window = |pair: &Pair| pair.acceptor.as_ref().unwrap().incoming.window();
    while window(&pair) < 16 << 20 {
        while pair.write(0, 64 << 10) > 0 {}
        pair.run(MS);
        assert!(pair.now < begin + RTT * 8, "{}", window(&pair));
    }
    let mut slow = Pair::opened();
    slow.reads[1] = false;
    for _ in 0..20 {
        while slow.write(0, 64 << 10) > 0 {}
        slow.run(RTT);
        let now = slow.now;
        let session = slow.acceptor.as_mut().unwrap();
        if let Some(bytes) = session.poll_data() {
            session.handle_delivered(bytes.len(), now);
        }
    }
    assert_eq!(window(&slow), FIRST_WINDOW);
}

#[test]
fn a_move_to_a_better_path_costs_no_pause() {
    let mut pair = Pair::opened();
    pair.opener.handle_better_path(pair.now);
    let mut longest = 0;
    let mut last = [0, 0];
    for _ in 0..200 {
        pair.write(0, 100);
        pair.write(1, 100);
        pair.run(MS);
        let got = [pair.got[0].len(), pair.got[1].len()];
        longest = match got[0] > last[0] && got[1] > last[1] {
            true => 0,
            false => longest + 1,
        };
        assert!(
            longest <= 25,
            "ms without data, of which the first half round trip counts"
        );
        last = got;
    }
    assert_eq!(pair.events[0][1..], [Event::Moved { to: StreamId(2) }]);
    assert_eq!(pair.events[1][1..], [Event::Moved { to: StreamId(2) }]);
    assert!(pair.actions[0].contains(&Action::CloseStream(StreamId(1))));
}

#[test]
fn a_session_waits_for_its_path_and_says_for_how_long() {
    let mut pair = Pair::opened();
    pair.path = false;
    pair.lose();
    pair.write(0, 1000);
    pair.run(RTT * 100);
    pair.path = true;
    pair.opener.handle_better_path(pair.now);
    pair.run(RTT * 2);
    assert_eq!(pair.got[1].len(), 1000);
    let [Event::Opened, Event::Waiting, Event::Resumed { pause, .. }] = pair.events[0][..] else {
        panic!("{:?}", pair.events[0]);
    };
    assert_eq!(pause, RTT * 101);
}

#[test]
fn a_session_without_a_path_ends_after_its_linger_on_both_sides() {
    let mut pair = Pair::opened();
    pair.path = false;
    pair.lose();
    pair.run(Settings::default().linger - MS);
    assert_eq!(pair.events[0].last(), Some(&Event::Waiting));
    pair.run(MS * 2);
    for side in 0..2 {
        assert_eq!(pair.events[side].last(), Some(&Event::Closed(End::Expired)));
        assert_eq!(pair.actions[side].last(), Some(&Action::ResetLocal));
        assert!(pair.side(side).unwrap().is_over());
    }
}

#[test]
fn the_side_that_waits_less_ends_a_session_without_a_path_for_both() {
    let (short, long) = (RTT * 100, RTT * 1000);
    for [opener, acceptor] in [[short, long], [long, short]] {
        let linger = |linger| Settings {
            linger,
            ..Settings::default()
        };
        let mut pair = Pair::new(linger(opener));
        pair.settings = linger(acceptor);
        pair.run(RTT * 2);
        pair.path = false;
        pair.lose();
        pair.run(short - MS);
        for events in &pair.events {
            assert_eq!(events.last(), Some(&Event::Waiting));
        }
        pair.run(MS * 2);
        for side in 0..2 {
            assert_eq!(pair.events[side].last(), Some(&Event::Closed(End::Expired)));
        }
    }
}

#[test]
fn both_sides_name_a_loss_that_one_of_them_has_noticed() {
    for notices in 0..2 {
        let mut pair = Pair::opened();
        let (lost, now) = (pair.streams.remove(0).0, pair.now);
        pair.path = false;
        pair.side(notices).unwrap().handle_stream_lost(lost, now);
        pair.run(RTT * 10);
        pair.path = true;
        pair.opener.handle_better_path(pair.now);
        pair.run(RTT * 2);
        for events in &pair.events {
            let last = events.last();
            let Some(Event::Resumed { pause, .. }) = last else {
                panic!("{notices}: {last:?}");
            };
            assert!(*pause >= RTT * 10, "{pause:?}");
        }
    }
}

#[test]
fn a_stream_that_ends_after_the_peer_has_left_it_makes_no_pause() {
    let mut pair = Pair::opened();
    pair.opener.handle_better_path(pair.now);
    pair.run(RTT * 3 / 4);
    pair.opener.handle_stream_lost(StreamId(1), pair.now);
    pair.run(RTT);
    for events in &pair.events {
        assert_eq!(events.last(), Some(&Event::Moved { to: StreamId(2) }));
    }
}

#[test]
fn a_session_that_nobody_answers_ends_after_its_time() {
    let mut pair = Pair::new(Settings::default());
    pair.path = false;
    pair.run(Settings::default().open_timeout + MS);
    assert_eq!(pair.events[0], [Event::Closed(End::NoAnswer)]);
    assert!(pair.opener.is_over(), "nobody heard of it");
}

#[test]
fn a_refusal_ends_the_session_with_its_reason() {
    for (instance, refusal, end) in [
        (2, Refusal::UnknownSession, End::ExpiredAtPeer),
        (3, Refusal::UnknownSession, End::PeerRestarted),
        (2, Refusal::Busy, End::Refused(Refusal::Busy)),
    ] {
        let mut pair = Pair::opened();
        pair.lose();
        pair.settle();
        let now = pair.now;
        let refuse = Frame::Refuse(Refuse { instance, refusal });
        pair.opener.handle_frame(StreamId(2), refuse, now);
        pair.settle();
        assert_eq!(pair.events[0].last(), Some(&Event::Closed(end)));
    }
    let mut pair = Pair::new(Settings::default());
    pair.settle();
    let (instance, refusal, now) = (2, Refusal::Unavailable, pair.now);
    let refuse = Frame::Refuse(Refuse { instance, refusal });
    pair.opener.handle_frame(StreamId(1), refuse, now);
    pair.settle();
    assert_eq!(pair.events[0], [Event::Closed(End::Refused(refusal))]);
    assert!(pair.actions[0].contains(&Action::ResetLocal));
}

#[test]
fn an_older_attempt_is_refused_and_changes_nothing() {
    let mut pair = Pair::opened();
    let progress = Accept {
        instance: 1,
        received: 0,
        delivered: 0,
        limit: 1 << 20,
        ..Accept::default()
    };
    let resume = Frame::Resume(Resume {
        session: SessionId([7; 16]),
        instance: 1,
        attempt: 1,
        progress,
    });
    let (now, session) = (pair.now, pair.acceptor.as_mut().unwrap());
    session.handle_attach(StreamId(9), resume, now);
    let answer = session.poll_transmit(StreamId(9), now);
    assert!(matches!(
        answer,
        Some(Frame::Refuse(Refuse {
            refusal: Refusal::Stale,
            ..
        }))
    ));
    assert_eq!(session.current(), Some(StreamId(1)));
}

#[test]
fn a_target_that_refuses_resets_the_client_with_the_reason() {
    let mut pair = Pair::new(Settings::default());
    pair.settle();
    pair.now += RTT / 2;
    let Some(Frame::Open(open)) = pair.streams[0].1[1].pop_front().map(|(_, frame)| frame) else {
        panic!("an open comes first")
    };
    let share = pair.memory.peer().session().unwrap();
    let mut session = Session::accept(&open, StreamId(1), 2, share, &pair.settings, pair.now);
    session.handle_reset(ResetReason::TargetRefused, pair.now);
    pair.acceptor = Some(session);
    pair.run(RTT * 2);
    let end = End::ResetByPeer(ResetReason::TargetRefused);
    assert_eq!(pair.events[0], [Event::Closed(end)]);
    assert!(pair.opener.is_over() && pair.acceptor.unwrap().is_over());
}

#[test]
fn a_receiver_that_never_reads_holds_one_window_and_its_other_direction_goes_on() {
    let mut pair = Pair::opened();
    pair.reads[1] = false;
    for _ in 0..10 {
        while pair.write(0, 64 << 10) > 0 {}
        pair.write(1, 1000);
        pair.run(RTT);
    }
    assert_eq!(pair.got[0].len(), 10_000);
    assert!(pair.acceptor.as_ref().unwrap().held() <= 300 << 10);
    assert_eq!(pair.opener.room(), 0);
    pair.reads[1] = true;
    pair.run(RTT * 2);
    assert!(pair.opener.room() > 0);
}

#[test]
fn an_idle_session_confirms_what_it_has_and_holds_nothing() {
    let mut pair = Pair::opened();
    pair.write(0, 1000);
    pair.run(RTT + Settings::default().confirm_delay);
    assert_eq!(
        (pair.opener.held(), pair.acceptor.as_ref().unwrap().held()),
        (0, 0)
    );
    assert_eq!(
        pair.opener.poll_timeout(),
        None,
        "an idle session wakes nobody"
    );
    assert_eq!(pair.acceptor.as_ref().unwrap().poll_timeout(), None);
    assert!(size_of::<Session>() <= 1 << 10, "{}", size_of::<Session>());
}
