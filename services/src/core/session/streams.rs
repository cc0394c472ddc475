//! The streams of a session: one in use, one that is asked for, and those that end.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of fourteen frames few belong in a state, and a new one belongs in none"
)]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::stream::{State, Stream};
use super::{
    Action, Event, FIRST_PAUSE, MOST_PAUSE, OpenStream, Opening, Phase, Session, Side, StreamId,
};
use crate::wire::{Accept, Carries, Frame, Open, Refusal, Refuse, Reset, Resume};

/// The most streams of a session: in use, asked for, being left, and one that is refused.
const MOST_STREAMS: usize = 4;

impl Session {
    /// The stream that was wanted is open.
    pub fn handle_stream(&mut self, id: StreamId, now: Instant) {
        let Some(OpenStream::Asked) = self.opening else {
            self.actions.push_back(Action::CloseStream(id));
            return;
        };
        self.opening = None;
        self.attempt += 1;
        let paused = self.paused(now);
        let mut out: VecDeque<_> = self.first_frame(paused).into_iter().collect();
        match self.phase {
            Phase::Resetting(reason) => out.push_back(Frame::Reset(Reset { reason })),
            Phase::Finishing => out.push_back(Frame::Done),
            Phase::Opening
            | Phase::Connecting
            | Phase::Running
            | Phase::Draining(_)
            | Phase::Over => {}
        }
        self.streams.push(Stream {
            id,
            state: State::Asking {
                since: now,
                is_paused: paused.is_some(),
            },
            out,
        });
        self.settle(now);
    }

    /// No stream could be opened.
    pub fn handle_stream_failed(&mut self, now: Instant) {
        if let Some(OpenStream::Asked) = self.opening {
            self.pause(now);
        }
        self.settle(now);
    }

    /// There is a better path than that of the stream in use, or one at all.
    pub fn handle_better_path(&mut self, now: Instant) {
        match self.opening {
            None if self.phase == Phase::Running && !self.is_asking() => self.want_stream(),
            Some(OpenStream::Failed(_)) => {
                self.opening = None;
                self.want_stream();
            }
            None | Some(OpenStream::Asked) => {}
        }
        self.settle(now);
    }

    /// The stream has ended, on either side.
    pub fn handle_stream_lost(&mut self, id: StreamId, now: Instant) {
        let Some(index) = self.streams.iter().position(|stream| stream.id == id) else {
            return;
        };
        let stream = self.streams.remove(index);
        match stream.state {
            State::Left | State::Closing => {}
            State::Current => {
                self.waiting_since = Some(now);
                if !self.is_closed {
                    self.events.push_back(Event::Waiting);
                }
                self.want_stream_again(now);
            }
            State::Asking { .. } => self.want_stream_again(now),
        }
        self.settle(now);
    }

    /// The peer sent `first`, an `OPEN` or `RESUME` of this session, on a new stream.
    pub fn handle_attach(&mut self, stream: StreamId, first: Frame, now: Instant) {
        self.attach(stream, first, now);
        self.settle(now);
    }

    pub(super) fn attach(&mut self, id: StreamId, first: Frame, now: Instant) {
        let attempt = match &first {
            Frame::Open(open) => open.attempt,
            Frame::Resume(resume) => resume.attempt,
            _ => 0,
        };
        if self.streams.len() >= MOST_STREAMS || matches!(self.side, Side::Opener(_)) {
            self.actions.push_back(Action::CloseStream(id));
            return;
        }
        let mut stream = Stream {
            id,
            state: State::Current,
            out: VecDeque::new(),
        };
        let refusal = match self.phase {
            Phase::Draining(_) | Phase::Over => Some(Refusal::UnknownSession),
            _ if attempt <= self.attempt => Some(Refusal::Stale),
            _ => None,
        };
        if let Some(refusal) = refusal {
            let instance = self.instance;
            stream
                .out
                .push_back(Frame::Refuse(Refuse { instance, refusal }));
            self.streams.push(stream);
            self.close_stream(self.streams.len() - 1);
            return;
        }
        self.attempt = attempt;
        self.leave_streams();
        self.streams.push(stream);
        if let Phase::Resetting(reason) = self.phase {
            self.send_on_current(Frame::Reset(Reset { reason }));
            return;
        }
        // The opener may have noticed a loss that this side has not, or the other way round.
        let pause = self.paused(now).max(match &first {
            Frame::Resume(resume) => self.believed(resume.progress.paused),
            _ => None,
        });
        let moved = self.take_up(&first, pause);
        match moved {
            Ok(()) => self.carried_on(id, self.phase == Phase::Connecting, pause, now),
            Err(violation) => self.violated(violation, now),
        }
    }

    /// The peer stands where `first` says.
    fn take_up(&mut self, first: &Frame, pause: Option<Duration>) -> Result<(), super::Violation> {
        match first {
            Frame::Open(open) => self.outgoing.restart(open.limit)?,
            Frame::Resume(resume) => {
                let progress = resume.progress;
                self.outgoing.confirm(progress.delivered, &mut self.share)?;
                self.outgoing.rewind(progress.received, progress.limit)?;
            }
            _ => {}
        }
        if self.phase != Phase::Connecting {
            let resumes = matches!(first, Frame::Resume(_));
            self.accept_on_current(resumes, pause);
        }
        Ok(())
    }

    /// `ACCEPT` for the stream that waits for the target.
    pub(super) fn answer(&mut self) {
        self.accept_on_current(false, None);
    }

    fn accept_on_current(&mut self, resumes: bool, pause: Option<Duration>) {
        let progress = self.progress(resumes, pause);
        self.send_on_current(Frame::Accept(progress));
    }

    fn progress(&mut self, resumes: bool, paused: Option<Duration>) -> Accept {
        Accept {
            paused,
            linger: Some(self.linger),
            ..self.incoming.progress(resumes, self.instance, &self.share)
        }
    }

    /// For how long it has had no stream.
    fn paused(&self, now: Instant) -> Option<Duration> {
        let since = self.waiting_since.filter(|_| self.phase != Phase::Opening);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// A session that had no stream for longer is over.
    fn believed(&self, paused: Option<Duration>) -> Option<Duration> {
        paused.map(|paused| paused.min(self.linger))
    }

    /// The answer to `OPEN` or `RESUME`, on the stream with `index`.
    pub(super) fn accepted(
        &mut self,
        index: usize,
        accept: Accept,
        now: Instant,
    ) -> Result<(), super::Violation> {
        let id = self.streams[index].id;
        if self
            .peer_instance
            .is_some_and(|peer| peer != accept.instance)
        {
            self.end_here(super::End::PeerRestarted, now);
            return Ok(());
        }
        self.peer_instance = Some(accept.instance);
        if let Phase::Resetting(_) | Phase::Finishing = self.phase {
            self.streams[index].state = State::Current;
            return Ok(());
        }
        self.outgoing.confirm(accept.delivered, &mut self.share)?;
        self.lingers_no_longer_than(accept.linger);
        let is_first = self.phase == Phase::Opening;
        if is_first {
            // The stream goes on behind the first data, wherever the peer is in it.
            self.outgoing.limit(accept.limit);
            self.phase = Phase::Running;
            self.events.push_back(Event::Opened);
        } else {
            self.outgoing.rewind(accept.received, accept.limit)?;
        }
        self.leave_streams();
        for left in 0..self.streams.len() {
            if self.streams[left].state == State::Left {
                self.close_stream(left);
            }
        }
        // A stream that was lost after the question was left already: the peer has moved from it.
        let was_paused = matches!(
            self.streams[index].state,
            State::Asking {
                is_paused: true,
                ..
            }
        );
        let theirs = self.believed(accept.paused);
        let own = self.paused(now);
        let own = own.filter(|_| was_paused || theirs.is_some());
        self.streams[index].state = State::Current;
        self.carried_on(id, is_first, own.max(theirs), now);
        Ok(())
    }

    /// `pause`: how long it had no stream, as the side knows that noticed it first.
    fn carried_on(&mut self, to: StreamId, is_first: bool, pause: Option<Duration>, now: Instant) {
        self.failures = 0;
        self.progress.1 = now;
        self.waiting_since = None;
        if is_first || self.is_closed {
            return;
        }
        self.events.push_back(match pause {
            Some(pause) => Event::Resumed { to, pause },
            None => Event::Moved { to },
        });
    }

    /// The stream in use, and what was asked for before, is being left.
    fn leave_streams(&mut self) {
        for stream in &mut self.streams {
            match stream.state {
                State::Current => {
                    stream.state = State::Left;
                    stream.out.clear();
                }
                State::Asking { .. } | State::Left | State::Closing => {}
            }
        }
    }

    pub(super) fn send_on_current(&mut self, frame: Frame) {
        let mut streams = self.streams.iter_mut();
        if let Some(stream) = streams.find(|stream| stream.state == State::Current) {
            stream.out.push_back(frame);
        }
    }

    pub(super) fn close_stream(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if stream.state != State::Closing {
            stream.state = State::Closing;
            self.actions.push_back(Action::CloseStream(stream.id));
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        let mut streams = self.streams.iter();
        streams.any(|stream| matches!(stream.state, State::Asking { .. }))
    }

    pub(super) fn want_stream(&mut self) {
        if let (Side::Opener(_), None) = (&self.side, self.opening) {
            self.opening = Some(OpenStream::Asked);
            self.actions.push_back(Action::OpenStream);
        }
    }

    /// The first stream after one that carried the session is wanted at once, the next ones after a pause.
    ///
    /// Also with a stream in use: the peer may have taken up the session on a stream whose answer never came, and left this one.
    fn want_stream_again(&mut self, now: Instant) {
        let is_served = self.is_asking() || self.opening.is_some();
        let is_over = matches!(self.phase, Phase::Draining(_) | Phase::Over);
        if is_served || is_over || matches!(self.side, Side::Acceptor) {
            return;
        }
        match self.failures {
            0 => {
                self.failures = 1;
                self.want_stream();
            }
            _ => self.pause(now),
        }
    }

    fn pause(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8));
        self.failures += 1;
        self.opening = Some(OpenStream::Failed(now + pause.min(MOST_PAUSE)));
    }

    /// Until when the answer to a resume has to be there.
    pub(super) fn answer_due(&self) -> Option<Instant> {
        if self.phase == Phase::Opening {
            return None;
        }
        let asking = self.streams.iter().filter_map(|stream| match stream.state {
            State::Asking { since, .. } => Some(since + self.settings.answer_timeout),
            State::Current | State::Left | State::Closing => None,
        });
        asking.min()
    }

    pub(super) fn give_up_asking(&mut self, now: Instant) {
        for index in 0..self.streams.len() {
            if matches!(self.streams[index].state, State::Asking { .. }) {
                self.close_stream(index);
            }
        }
        self.want_stream_again(now);
    }

    /// `OPEN` before the first answer, else `RESUME`.
    fn first_frame(&mut self, paused: Option<Duration>) -> Option<Frame> {
        let Side::Opener(opening) = &self.side else {
            return None;
        };
        let Opening {
            session,
            service,
            client,
        } = opening.clone();
        let (instance, attempt) = (self.instance, self.attempt);
        let progress = self.progress(true, paused);
        if self.phase != Phase::Opening {
            return Some(Frame::Resume(Resume {
                session,
                instance,
                attempt,
                progress,
            }));
        }
        self.outgoing.restart(self.settings.first_window).ok()?;
        Some(Frame::Open(Open {
            session,
            instance,
            attempt,
            service,
            carries: Carries::Bytes,
            limit: progress.limit,
            client,
            linger: progress.linger,
        }))
    }
}
