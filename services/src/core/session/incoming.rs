//! The direction toward this side: what has come, and what the local socket has taken of it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};

use super::violation::Violation;
use crate::{
    core::memory::{PIECE, Share},
    wire::{Accept, Frame},
};

/// How soon the local socket has to take a window to be faster than it, if the round trip is unknown or shorter.
const PROMPT: Duration = Duration::from_millis(10);

/// How much room there should be before dropped data is asked for again, unless all is delivered.
const WORTH_IT: usize = 16 << 10;

/// What has come and is not delivered. Offsets count bytes; the end takes one more.
#[derive(Debug)]
pub(super) struct Incoming {
    queue: VecDeque<Bytes>,
    /// All below has come: the offset that is expected.
    received: u64,
    /// All below is in the local socket.
    delivered: u64,
    /// How many bytes the direction has, once that is known.
    end: Option<u64>,
    window: u64,
    most_window: u64,
    /// The peer may send what is below.
    limit: u64,
    /// The greatest limit that was promised.
    promised: u64,
    /// What the peer knows to be delivered.
    acked: u64,
    /// A confirmation is due at once.
    due: bool,
    /// Data was dropped: what follows it is dropped as well until it comes again.
    gap: Gap,
    /// The peer had used up this limit, at that time.
    blocked: Option<(u64, Instant)>,
    /// The peer is blocked at the present limit, which is below the window for want of memory.
    starved: bool,
    /// The limit with which the window has grown last: a peer that is blocked below it does not know that yet.
    grown: u64,
    /// The local socket takes nothing further: what comes is dropped and confirmed. Its end is not, so that the peer waits for the reset.
    discards: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    No,
    /// Data was dropped.
    Dropped,
    /// And asked for again.
    Asked,
}

impl Incoming {
    pub(super) fn new(first_window: u64, most_window: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            received: 0,
            delivered: 0,
            end: None,
            window: first_window,
            most_window,
            limit: first_window,
            promised: first_window,
            acked: 0,
            due: false,
            gap: Gap::No,
            blocked: None,
            starved: false,
            grown: 0,
            discards: false,
        }
    }

    /// `bytes` have come. On a stream that is being left, some before them may be missing.
    pub(super) fn receive(
        &mut self,
        offset: u64,
        mut bytes: Bytes,
        is_left: bool,
        share: &mut Share,
    ) -> Result<(), Violation> {
        let end = offset + bytes.len() as u64;
        if end > self.promised {
            return Err(Violation::Offset("sends beyond the limit"));
        }
        if self.end.is_some_and(|last| end > last) {
            return Err(Violation::Offset("sends behind its end"));
        }
        if end <= self.received {
            return Ok(());
        }
        if self.discards {
            // Nobody will have it, so its sender need not keep it.
            if offset <= self.received {
                (self.received, self.delivered, self.due) = (end, end, true);
            }
            return Ok(());
        }
        if offset > self.received {
            return self.missing(is_left);
        }
        bytes.advance(usize::try_from(self.received - offset).expect("less than the bytes"));
        let fits = share.piece(bytes.len());
        self.gap = match fits < bytes.len() {
            true => Gap::Dropped,
            false => Gap::No,
        };
        bytes.truncate(fits);
        if !bytes.is_empty() && share.take(fits + PIECE) {
            self.received += fits as u64;
            self.queue.push_back(bytes);
        } else {
            self.gap = Gap::Dropped;
        }
        Ok(())
    }

    /// The direction ends after `offset` bytes.
    pub(super) fn receive_end(&mut self, offset: u64, is_left: bool) -> Result<(), Violation> {
        match self.end {
            Some(end) if end == offset => return Ok(()),
            Some(_) => return Err(Violation::Offset("ends twice")),
            None if self.discards => return Ok(()),
            None => {}
        }
        if offset > self.received {
            return self.missing(is_left);
        }
        if offset < self.received {
            return Err(Violation::Offset("ends before what it has sent"));
        }
        self.end = Some(offset);
        self.received += 1;
        Ok(())
    }

    fn missing(&self, is_left: bool) -> Result<(), Violation> {
        match is_left || self.gap != Gap::No {
            true => Ok(()),
            false => Err(Violation::Offset("leaves a gap")),
        }
    }

    /// Bytes for the local socket.
    pub(super) fn poll(&mut self, share: &mut Share) -> Option<Bytes> {
        let bytes = self.queue.pop_front()?;
        share.release(PIECE);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(bytes)
    }

    /// The local socket has taken `bytes`.
    pub(super) fn deliver(&mut self, bytes: usize, rtt: Duration, share: &mut Share, now: Instant) {
        self.delivered += bytes as u64;
        share.release(bytes);
        self.grow(rtt, now);
        self.look_for_memory(share);
        // Where memory is short, the peer has no whole window to send until it hears of this.
        let window = self.window.min(2 * share.room() as u64);
        self.due |= self.delivered - self.acked >= window / 4;
    }

    /// Whether all bytes are delivered, and the end is to be: true once.
    pub(super) fn poll_end(&mut self) -> bool {
        let now = self.end == Some(self.delivered) && !self.discards;
        if now {
            self.delivered += 1;
            self.due = true;
        }
        now
    }

    /// Nothing further is delivered.
    pub(super) fn discard(&mut self, share: &mut Share) {
        self.clear(share);
        (self.discards, self.starved, self.due) = (true, false, true);
        let bytes = self.end.unwrap_or(self.received);
        self.delivered = self.delivered.max(bytes);
        // What was dropped is not asked for again.
        self.gap = Gap::Asked;
    }

    /// How many bytes the local socket has taken.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether bytes have come that the local socket is still to take.
    pub(super) fn is_undelivered(&self) -> bool {
        let bytes = self.end.unwrap_or(self.received);
        !self.discards && self.delivered < bytes
    }

    /// Whether everything and its end is delivered.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.delivered > end)
    }

    /// The peer has sent all below `limit`, and would send more.
    pub(super) fn block(&mut self, limit: u64, rtt: Duration, share: &Share, now: Instant) {
        if limit >= self.grown && limit <= self.promised {
            self.blocked = Some((limit, now));
            self.grow(rtt, now);
        }
        self.starved = limit == self.limit;
        // It does not know the limit, or will in a moment.
        self.due |= limit < self.limit;
        self.look_for_memory(share);
    }

    fn grow(&mut self, rtt: Duration, now: Instant) {
        let Some((limit, since)) = self.blocked.filter(|(limit, _)| self.delivered >= *limit)
        else {
            return;
        };
        self.blocked = None;
        if now.saturating_duration_since(since) <= rtt.max(PROMPT) && limit >= self.window {
            self.window = (2 * self.window).min(self.most_window);
            self.grown = self.delivered + self.window;
            self.due = true;
        }
    }

    /// What the peer may send by now: the window, as far as there is memory.
    fn permitted(&self, share: &Share) -> u64 {
        let room = self.received + share.room().saturating_sub(PIECE) as u64;
        self.limit.max(room.min(self.delivered + self.window))
    }

    /// Whether it waits for memory that others hold.
    pub(super) fn is_starved(&self) -> bool {
        self.gap == Gap::Dropped || (self.starved && self.limit < self.delivered + self.window)
    }

    /// Memory may be there by now.
    pub(super) fn look_for_memory(&mut self, share: &Share) {
        self.due |= self.starved && self.permitted(share) > self.limit;
    }

    /// Whether something is delivered that the peer does not know.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.delivered > self.acked
    }

    /// The peer has waited long enough for what is delivered.
    pub(super) fn confirm_now(&mut self) {
        self.due = true;
    }

    /// Whether the peer has to know at once.
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// What it has to know next.
    pub(super) fn poll_frame(&mut self, share: &Share) -> Option<Frame> {
        let room = share.room().saturating_sub(PIECE);
        let worth_it = room >= WORTH_IT || (room > 0 && self.received == self.delivered);
        if self.gap == Gap::Dropped && worth_it {
            self.gap = Gap::Asked;
            self.limit = (self.received + room as u64).min(self.delivered + self.window);
            self.promised = self.promised.max(self.limit);
            return Some(Frame::Rewind {
                from: self.received,
                limit: self.limit,
            });
        }
        self.due.then(|| self.ack(share))
    }

    /// The confirmation of all that is delivered.
    pub(super) fn ack(&mut self, share: &Share) -> Frame {
        // The peer would send behind what was dropped.
        if self.gap != Gap::Dropped {
            self.permit(share);
        }
        (self.acked, self.due) = (self.delivered, false);
        Frame::Ack {
            delivered: self.delivered,
            limit: self.limit,
        }
    }

    fn permit(&mut self, share: &Share) {
        let limit = self.permitted(share);
        self.starved &= limit == self.limit;
        self.limit = limit;
        self.promised = self.promised.max(limit);
    }

    /// Where this side stands, for a stream that begins. If the peer resumes there, it sends from `received` on.
    pub(super) fn progress(&mut self, resumes: bool, instance: u64, share: &Share) -> Accept {
        if self.gap == Gap::Dropped && resumes {
            self.gap = Gap::Asked;
            self.limit = self.received;
        }
        if self.gap != Gap::Dropped {
            self.permit(share);
        }
        (self.acked, self.due) = (self.delivered, false);
        Accept {
            instance,
            received: self.received,
            delivered: self.delivered,
            limit: self.limit,
            ..Accept::default()
        }
    }

    /// Nothing is kept any longer. What the local socket was given and has not taken counts until then.
    pub(super) fn clear(&mut self, share: &mut Share) {
        let queued: usize = self.queue.iter().map(|piece| piece.len() + PIECE).sum();
        share.release(queued);
        self.queue = VecDeque::new();
    }

    /// How much the peer may send beyond what is delivered.
    #[cfg(test)]
    pub(super) fn window(&self) -> u64 {
        self.window
    }
}
