//! The side of the local socket.

use std::time::Instant;

use bytes::Bytes;

use super::{Event, Phase, Session};
use crate::wire::ResetReason;

impl Session {
    /// The target is connected.
    pub fn handle_connected(&mut self, now: Instant) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Running;
            self.events.push_back(Event::Opened);
            self.answer();
        }
        self.settle(now);
    }

    /// How many bytes it takes from the local socket. 0: it is not to be read.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.phase {
            Phase::Opening | Phase::Running => self.outgoing.room(&self.share),
            Phase::Connecting
            | Phase::Resetting(_)
            | Phase::Finishing
            | Phase::Draining(_)
            | Phase::Over => 0,
        }
    }

    /// Bytes of the local socket. They stay in their buffer until the peer has delivered them.
    ///
    /// # Panics
    /// If they are more than [`Self::room`] was.
    pub fn handle_data(&mut self, bytes: Bytes, now: Instant) {
        if !self.is_closed {
            self.outgoing.push(bytes, &mut self.share);
        }
        self.settle(now);
    }

    /// The local socket has ended its direction.
    pub fn handle_end(&mut self, now: Instant) {
        self.outgoing.end();
        self.settle(now);
    }

    /// The local socket takes nothing further, since its other side has reset it. What that side sent before may still be read.
    pub fn handle_broken(&mut self, now: Instant) {
        self.incoming.discard(&mut self.share);
        self.settle(now);
    }

    /// The local socket was reset, the target could not be dialed, or the session is not wanted any longer.
    ///
    /// After [`ResetReason::LocalReset`], the peer gets what the socket sent before, then the reset. Other resets are immediate.
    pub fn handle_reset(&mut self, reason: ResetReason, now: Instant) {
        match reason == ResetReason::LocalReset && !self.is_closed {
            true => self.reset_behind_data(now),
            false => self.reset(reason, now),
        }
        self.settle(now);
    }

    /// Bytes for the local socket. It has taken them when [`Self::handle_delivered`] says so.
    pub fn poll_data(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Running | Phase::Draining(_) => self.incoming.poll(&mut self.share),
            Phase::Opening
            | Phase::Connecting
            | Phase::Resetting(_)
            | Phase::Finishing
            | Phase::Over => None,
        }
    }

    /// The local socket has taken `bytes` of what [`Self::poll_data`] returned.
    pub fn handle_delivered(&mut self, bytes: usize, now: Instant) {
        self.incoming.deliver(bytes, self.rtt, &mut self.share, now);
        self.settle(now);
    }
}
