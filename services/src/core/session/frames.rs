//! What streams bring, and what they take.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of fourteen frames few belong in a state, and a new one belongs in none"
)]

use std::time::Instant;

use super::{End, Phase, Session, Side, StreamId, Violation, stream::State};
use crate::wire::Frame;

impl Session {
    /// `frame` has come on the stream. The first frame of a stream that the peer opened goes to `handle_attach` instead.
    pub fn handle_frame(&mut self, stream: StreamId, frame: Frame, now: Instant) {
        let found = self.streams.iter().position(|known| known.id == stream);
        if let Some(index) = found
            && let Err(violation) = self.take(index, frame, now)
        {
            self.violated(violation, now);
        }
        self.settle(now);
    }

    fn take(&mut self, index: usize, frame: Frame, now: Instant) -> Result<(), Violation> {
        match self.streams[index].state {
            State::Closing => Ok(()),
            State::Asking { .. } => self.take_answer(index, frame, now),
            State::Left => self.take_late(index, frame, now),
            State::Current => self.take_current(index, frame, now),
        }
    }

    fn take_answer(&mut self, index: usize, frame: Frame, now: Instant) -> Result<(), Violation> {
        match frame {
            Frame::Accept(accept) => self.accepted(index, accept, now),
            Frame::Refuse(refuse) => {
                self.close_stream(index);
                if refuse.refusal != crate::wire::Refusal::Stale {
                    self.refused(refuse, now);
                }
                Ok(())
            }
            Frame::Reset(reset) => {
                self.reset_by_peer(index, reset.reason, now);
                Ok(())
            }
            Frame::Done if self.has_ended() => {
                self.forget();
                Ok(())
            }
            Frame::Skipped(_) => Ok(()),
            _ => Err(Violation::Order("sends data before it accepts")),
        }
    }

    /// On a stream that is being left, all but data is out of date.
    fn take_late(&mut self, index: usize, frame: Frame, now: Instant) -> Result<(), Violation> {
        match frame {
            Frame::Data { offset, bytes } if self.takes_data() => {
                let share = &mut self.share;
                self.incoming.receive(offset, bytes, true, share)
            }
            Frame::Fin { offset } if self.takes_data() => self.incoming.receive_end(offset, true),
            Frame::Reset(reset) => {
                self.reset_by_peer(index, reset.reason, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_current(&mut self, index: usize, frame: Frame, now: Instant) -> Result<(), Violation> {
        if self.has_ended() {
            match frame {
                Frame::Done => self.forget(),
                Frame::Reset(reset) => self.reset_by_peer(index, reset.reason, now),
                // What was on its way when this side ended.
                _ => {}
            }
            return Ok(());
        }
        match frame {
            Frame::Data { offset, bytes } => {
                let share = &mut self.share;
                self.incoming.receive(offset, bytes, false, share)
            }
            Frame::Fin { offset } => self.incoming.receive_end(offset, false),
            Frame::Ack { delivered, limit } => {
                self.outgoing.limit(limit);
                self.outgoing.confirm(delivered, &mut self.share)
            }
            Frame::Blocked { limit } => {
                self.incoming.block(limit, self.rtt, &self.share, now);
                Ok(())
            }
            Frame::Rewind { from, limit } => self.outgoing.rewind(from, limit),
            Frame::Reset(reset) => {
                self.reset_by_peer(index, reset.reason, now);
                Ok(())
            }
            Frame::Done => self.done(index),
            Frame::Skipped(_) => Ok(()),
            Frame::Open(_) | Frame::Resume(_) | Frame::Accept(_) | Frame::Refuse(_) => {
                Err(Violation::Order("begins a stream twice"))
            }
            Frame::Hello(_) | Frame::Offer(_) | Frame::Datagram(_) => {
                Err(Violation::Order("sends what no session carries"))
            }
        }
    }

    /// The opener has everything, and it knows that this side has.
    fn done(&mut self, index: usize) -> Result<(), Violation> {
        if !self.incoming.is_finished() || !self.outgoing.is_sent() {
            return Err(Violation::Order("is done before its time"));
        }
        self.streams[index].out.clear();
        self.streams[index].out.push_back(Frame::Done);
        self.finish();
        Ok(())
    }

    fn reset_by_peer(&mut self, index: usize, reason: crate::wire::ResetReason, now: Instant) {
        self.streams[index].out.clear();
        self.streams[index].out.push_back(Frame::Done);
        self.end_here(End::ResetByPeer(reason), now);
        self.close_stream(index);
    }

    fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Resetting(_) | Phase::Finishing | Phase::Draining(_) | Phase::Over => true,
            Phase::Opening | Phase::Connecting | Phase::Running => false,
        }
    }

    fn takes_data(&self) -> bool {
        !self.has_ended()
    }

    /// What the stream takes next.
    pub fn poll_transmit(&mut self, stream: StreamId, now: Instant) -> Option<Frame> {
        let index = self.streams.iter().position(|known| known.id == stream)?;
        if let Some(frame) = self.streams[index].out.pop_front() {
            return Some(frame);
        }
        let frame = match (self.streams[index].state, self.phase) {
            (State::Closing, _) => {
                self.streams.remove(index);
                None
            }
            // The first data goes behind `OPEN`.
            (State::Asking { .. }, Phase::Opening) => self.outgoing.poll(),
            (State::Current, Phase::Running) => {
                self.outgoing.accepted();
                self.poll_running()
            }
            _ => None,
        };
        self.settle(now);
        frame
    }

    fn poll_running(&mut self) -> Option<Frame> {
        if let Some(frame) = self.incoming.poll_frame(&self.share) {
            return Some(frame);
        }
        // A confirmation rides with data.
        if self.outgoing.has_data() && self.incoming.is_unconfirmed() {
            return Some(self.incoming.ack(&self.share));
        }
        self.outgoing.poll()
    }

    /// Whether the session is on a stream, and on which.
    #[must_use]
    pub fn current(&self) -> Option<StreamId> {
        let mut streams = self.streams.iter();
        let current = streams.find(|stream| stream.state == State::Current);
        current.map(|stream| stream.id)
    }

    /// Whether this side opened it.
    #[must_use]
    pub fn is_opener(&self) -> bool {
        matches!(self.side, Side::Opener(_))
    }
}
