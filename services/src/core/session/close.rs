//! How a session ends.

use std::time::{Duration, Instant};

use super::{Action, End, Event, Phase, Session, Side, Violation, stream::State};
use crate::wire::{Frame, Refusal, Refuse, Reset, ResetReason};

impl Session {
    /// Both directions have ended, and all is delivered and confirmed.
    pub(super) fn complete(&mut self, now: Instant) {
        if !self.outgoing.is_confirmed() || !self.incoming.is_finished() {
            return;
        }
        self.close(End::Completed);
        if let Side::Opener(_) = self.side {
            self.phase = Phase::Finishing;
            self.forget_at = Some(now + self.linger);
            self.send_on_all(&Frame::Done);
        }
    }

    pub(super) fn reset(&mut self, reason: ResetReason, now: Instant) {
        self.reset_as(End::Reset(reason), reason, now);
    }

    /// The peer gets what the local socket sent before it was reset, then the reset.
    pub(super) fn reset_behind_data(&mut self, now: Instant) {
        self.resets = true;
        self.progress.1 = now;
        self.outgoing.cut();
        self.incoming.discard(&mut self.share);
    }

    /// A reset that waits for data is due once that data is delivered.
    pub(super) fn end_behind_data(&mut self, now: Instant) {
        let taken = self.outgoing.confirmed() + self.incoming.delivered();
        if taken != self.progress.0 {
            self.progress = (taken, now);
        }
        if let Phase::Draining(end) = self.phase {
            if !self.incoming.is_undelivered() {
                self.drained(end);
            }
        } else if self.resets && self.outgoing.is_delivered() {
            self.cut(now);
        }
    }

    /// When a reset no longer waits for data: a session on a path that takes nothing for as long as it may linger.
    pub(super) fn cut_at(&self) -> Option<Instant> {
        let is_draining = matches!(self.phase, Phase::Draining(_));
        let waits = is_draining || (self.resets && self.waiting_since.is_none());
        waits.then(|| self.progress.1 + self.settings.linger)
    }

    pub(super) fn cut(&mut self, now: Instant) {
        self.resets = false;
        self.reset(ResetReason::LocalReset, now);
    }

    /// The local socket has what has come, or takes nothing further.
    fn drained(&mut self, end: End) {
        self.actions.push_back(Action::ResetLocal);
        self.close(end);
        self.forget();
    }

    fn reset_as(&mut self, end: End, reason: ResetReason, now: Instant) {
        match self.phase {
            Phase::Resetting(_) | Phase::Finishing | Phase::Over => return,
            Phase::Draining(end) => return self.drained(end),
            // Both sides have everything: nothing is left to reset.
            _ if self.is_closed => return,
            Phase::Opening | Phase::Connecting | Phase::Running => {}
        }
        self.close(end);
        self.actions.push_back(Action::ResetLocal);
        self.drop_data();
        // A peer that has never heard of the session needs no reset.
        if self.phase == Phase::Opening && self.attempt == 0 {
            self.forget();
            return;
        }
        self.phase = Phase::Resetting(reason);
        self.forget_at = Some(now + self.linger);
        self.send_on_all(&Frame::Reset(Reset { reason }));
    }

    /// On the stream in use, and on one that is asked for: the peer may have left the other.
    fn send_on_all(&mut self, frame: &Frame) {
        for stream in &mut self.streams {
            if stream.state != State::Closing {
                stream.out.push_back(frame.clone());
            }
        }
    }

    /// The peer broke the protocol.
    pub(super) fn violated(&mut self, violation: Violation, now: Instant) {
        self.violation.get_or_insert(violation);
        match self.phase {
            Phase::Resetting(_) | Phase::Finishing | Phase::Over => self.forget(),
            Phase::Draining(end) => self.drained(end),
            Phase::Opening | Phase::Connecting | Phase::Running => {
                self.reset(ResetReason::Violation, now);
            }
        }
    }

    /// The peer's process is `instance`. An opening without an answer may be with that one.
    pub fn handle_peer_instance(&mut self, instance: u64, now: Instant) {
        if self.peer_instance.is_some_and(|known| known != instance) {
            self.handle_peer_restarted(now);
        }
    }

    /// The peer's process is another one than that of the session.
    pub fn handle_peer_restarted(&mut self, now: Instant) {
        self.end_here(End::PeerRestarted, now);
        self.settle(now);
    }

    pub(super) fn refused(&mut self, refuse: Refuse, now: Instant) {
        let end = match refuse.refusal {
            Refusal::UnknownSession => match self.peer_instance {
                Some(instance) if instance == refuse.instance => End::ExpiredAtPeer,
                Some(_) => End::PeerRestarted,
                None => End::Refused(Refusal::UnknownSession),
            },
            Refusal::Unavailable
            | Refusal::Busy
            | Refusal::Stale
            | Refusal::Malformed
            | Refusal::TakesDatagrams
            | Refusal::TakesStreams
            | Refusal::Other => End::Refused(refuse.refusal),
        };
        self.end_here(end, now);
    }

    /// The peer knows nothing of the session any longer. The local socket takes what has come.
    pub(super) fn end_here(&mut self, end: End, now: Instant) {
        if let Phase::Draining(_) = self.phase {
            return;
        }
        if self.phase == Phase::Running && self.incoming.is_undelivered() {
            self.phase = Phase::Draining(end);
            self.progress.1 = now;
            self.outgoing.clear(&mut self.share);
            self.leave_network();
            return;
        }
        if !self.is_closed {
            self.actions.push_back(Action::ResetLocal);
        }
        self.close(end);
        self.forget();
    }

    /// The peer has everything, and knows that this side has.
    pub(super) fn finish(&mut self) {
        self.close(End::Completed);
        self.forget();
    }

    /// The peer gives it up after `linger`: then this side has nothing to wait for.
    pub(super) fn lingers_no_longer_than(&mut self, linger: Option<Duration>) {
        self.linger = self.linger.min(linger.unwrap_or(self.linger));
    }

    /// Until when an answer or a stream has to be there.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let since = self.waiting_since?;
        match self.phase {
            Phase::Opening => Some(since + self.settings.open_timeout),
            Phase::Connecting | Phase::Running => Some(since + self.linger),
            // They have a time of their own.
            Phase::Resetting(_) | Phase::Finishing | Phase::Draining(_) | Phase::Over => None,
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.phase == Phase::Opening {
            let end = match self.attempt {
                0 => End::NoAnswer,
                _ => End::Unanswered,
            };
            self.reset_as(end, ResetReason::TargetTimeout, now);
            return;
        }
        let complete = self.outgoing.is_confirmed() && self.incoming.is_finished();
        match complete {
            true => self.finish(),
            false => self.end_here(End::Expired, now),
        }
    }

    /// `end`, unless it has ended already.
    fn close(&mut self, end: End) {
        if !self.is_closed {
            self.is_closed = true;
            self.events.push_back(Event::Closed(end));
        }
    }

    fn drop_data(&mut self) {
        self.outgoing.clear(&mut self.share);
        self.incoming.clear(&mut self.share);
    }

    /// Nothing further is to be known of it. Streams send what they have to, and close.
    pub(super) fn forget(&mut self) {
        self.phase = Phase::Over;
        self.resets = false;
        self.drop_data();
        self.leave_network();
    }

    fn leave_network(&mut self) {
        (self.forget_at, self.opening, self.waiting_since) = (None, None, None);
        for stream in 0..self.streams.len() {
            self.close_stream(stream);
        }
    }
}
