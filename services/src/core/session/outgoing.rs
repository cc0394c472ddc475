//! The direction away from this side: what the peer has not confirmed.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

use super::violation::Violation;
use crate::{
    core::memory::{PIECE, Share},
    wire::{Frame, MAX_DATA},
};

/// How much goes with the opening. All streams that a stranger may open at once are within the bytes that it may have unread.
const FIRST_FLIGHT: u64 = 32 << 10;

/// What is kept until the peer has delivered it. Offsets count bytes; the end takes one more.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pieces: VecDeque<Bytes>,
    /// All below is confirmed: the offset of the first byte in `pieces`.
    confirmed: u64,
    /// The offset behind the last byte in `pieces`.
    end: u64,
    /// The offset to send next on the stream in use.
    next: u64,
    /// The piece that holds `next`, and the offset of its first byte.
    cursor: (usize, u64),
    /// The greatest offset that `next` has had.
    sent: u64,
    /// The peer takes what is below.
    limit: u64,
    /// The limit for which the peer knows that it holds this side back.
    blocked: Option<u64>,
    /// The peer has accepted the session, or this side has.
    is_accepted: bool,
    /// The local socket has ended.
    ended: bool,
    /// By a reset: there is no `FIN`.
    is_cut: bool,
}

impl Outgoing {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// How many bytes it takes from the local socket.
    pub(super) fn room(&self, share: &Share) -> usize {
        if self.ended {
            return 0;
        }
        let window = usize::try_from(self.limit.saturating_sub(self.end)).unwrap_or(usize::MAX);
        share.piece(window)
    }

    /// Bytes of the local socket, at most [`Self::room`].
    ///
    /// # Panics
    /// If they are more than that.
    pub(super) fn push(&mut self, bytes: Bytes, share: &mut Share) {
        if bytes.is_empty() {
            return;
        }
        let fits = bytes.len() <= self.room(share) && share.take(bytes.len() + PIECE);
        assert!(fits, "no more is read than there is room for");
        self.end += bytes.len() as u64;
        self.pieces.push_back(bytes);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The local socket was reset. If it has not ended before, nothing follows the data.
    pub(super) fn cut(&mut self) {
        self.is_cut = !self.ended;
        self.ended = true;
    }

    /// How many bytes the peer has delivered.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Whether the peer has delivered all that the local socket gave.
    pub(super) fn is_delivered(&self) -> bool {
        let has_fin = self.ended && !self.is_cut;
        self.confirmed >= self.end + u64::from(has_fin)
    }

    /// Whether everything and its end was sent at least once.
    pub(super) fn is_sent(&self) -> bool {
        self.ended && self.sent == self.end + 1
    }

    /// Whether the peer has delivered everything and its end.
    pub(super) fn is_confirmed(&self) -> bool {
        self.ended && self.confirmed == self.end + 1
    }

    pub(super) fn limit(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// The peer has delivered all below `delivered`.
    pub(super) fn confirm(&mut self, delivered: u64, share: &mut Share) -> Result<(), Violation> {
        if delivered > self.sent {
            return Err(Violation::Confirmation("confirms what was never sent"));
        }
        while self.confirmed < delivered.min(self.end) {
            let Some(first) = self.pieces.front_mut() else {
                break;
            };
            let more = usize::try_from(delivered - self.confirmed).unwrap_or(usize::MAX);
            let confirmed = first.len().min(more);
            self.confirmed += confirmed as u64;
            if confirmed < first.len() {
                first.advance(confirmed);
                share.release(confirmed);
                // The cursor's piece begins later now.
                if self.cursor.0 == 0 {
                    self.cursor.1 = self.confirmed;
                }
            } else {
                self.pieces.pop_front();
                share.release(confirmed + PIECE);
                self.cursor = match self.cursor.0.checked_sub(1) {
                    Some(index) => (index, self.cursor.1),
                    None => (0, self.confirmed),
                };
            }
        }
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
        self.confirmed = self.confirmed.max(delivered);
        self.next = self.next.max(self.confirmed);
        Ok(())
    }

    /// The peer has received all below `from`: what follows is sent again, up to `limit`.
    pub(super) fn rewind(&mut self, from: u64, limit: u64) -> Result<(), Violation> {
        if from > self.sent {
            return Err(Violation::Confirmation("asks for what was never sent"));
        }
        // A confirmation on the earlier stream may have overtaken the question.
        let from = from.max(self.confirmed);
        (self.next, self.limit, self.blocked) = (from, limit, None);
        let mut at = self.confirmed.min(self.end);
        self.cursor = (0, at);
        for (index, piece) in self.pieces.iter().enumerate() {
            self.cursor = (index, at);
            at += piece.len() as u64;
            if from < at {
                return Ok(());
            }
        }
        self.cursor = (self.pieces.len(), at);
        Ok(())
    }

    /// From the first byte on: the peer does not know the session yet.
    pub(super) fn restart(&mut self, limit: u64) -> Result<(), Violation> {
        self.rewind(0, limit)
    }

    /// Whether there is data to send.
    pub(super) fn has_data(&self) -> bool {
        self.next < self.end.min(self.permitted())
    }

    /// Data below this may be sent.
    fn permitted(&self) -> u64 {
        match self.is_accepted {
            true => self.limit,
            false => self.limit.min(FIRST_FLIGHT),
        }
    }

    pub(super) fn accepted(&mut self) {
        self.is_accepted = true;
    }

    /// What is to be sent next.
    pub(super) fn poll(&mut self) -> Option<Frame> {
        if self.has_data() {
            return Some(self.data());
        }
        if self.ended && !self.is_cut && self.next == self.end {
            self.next += 1;
            self.sent = self.sent.max(self.next);
            return Some(Frame::Fin { offset: self.end });
        }
        let limit = self.limit;
        let is_blocked = !self.ended || self.next < self.end;
        if is_blocked && self.next >= limit && self.blocked != Some(limit) {
            self.blocked = Some(limit);
            return Some(Frame::Blocked { limit });
        }
        None
    }

    fn data(&mut self) -> Frame {
        let (index, start) = self.cursor;
        let piece = &self.pieces[index];
        let skip = usize::try_from(self.next - start).expect("the piece holds the offset");
        let most = usize::try_from(self.permitted() - self.next).unwrap_or(usize::MAX);
        let length = (piece.len() - skip).min(most).min(MAX_DATA);
        let bytes = piece.slice(skip..skip + length);
        let offset = self.next;
        self.next += length as u64;
        self.sent = self.sent.max(self.next);
        if skip + length == piece.len() {
            self.cursor = (index + 1, self.next);
        }
        Frame::Data { offset, bytes }
    }

    /// Nothing is kept any longer.
    pub(super) fn clear(&mut self, share: &mut Share) {
        let held: usize = self.pieces.iter().map(|piece| piece.len() + PIECE).sum();
        share.release(held);
        self.pieces = VecDeque::new();
        self.ended = true;
        // Whatever the peer confirms of it is fine.
        (self.confirmed, self.next) = (self.end + 1, self.end + 1);
        self.sent = self.next;
    }
}
