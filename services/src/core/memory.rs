//! What all sessions may hold together, and how they share it. See decision 0702.
//!
//! A quarter is kept for floors: each session may always hold [`FLOOR`] bytes. The rest is shared by what is free of it. A
//! session may hold a quarter of that, and the sessions of one peer as much as that.
//!
//! What a session holds beyond its first window comes out of one half of the shared part. A session may hold a half of what is
//! free there, and so may the sessions of one peer together. So sessions that were fast and whose readers stopped leave others
//! their first window. What they hold cannot be taken back: their senders have read it.
//!
//! A third of what one peer may hold is kept for first windows. In that third each session gets the less, the less is left. So
//! many sessions that nobody reads make the windows of others narrower, and the window of none ends at its floor all at once.
//!
//! Counters are atomic, since sessions run on several threads. The sum is exact; the shares may be off by what others take in
//! the same moment.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::wire::{FIRST_WINDOW, MAX_DATA};

/// What each session may always hold.
pub const FLOOR: usize = 2 << 10;

/// What a piece of data takes in addition to its bytes: its place in a queue, and the header of its allocation.
pub const PIECE: usize = 64;

/// The least part of a piece that is held alone.
const LEAST_PIECE: usize = 512;

/// The first window, and the places of its pieces.
const NARROW: usize = FIRST_WINDOW as usize + (FIRST_WINDOW as usize / MAX_DATA + 1) * PIECE;

/// The memory of all sessions.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Total>);

/// The part of one peer.
#[derive(Debug, Clone)]
pub struct PeerMemory(Arc<Peer>);

/// The part of one session. What it holds is free again when it is dropped.
#[derive(Debug)]
pub struct Share {
    peer: PeerMemory,
    held: usize,
    is_strangers: bool,
}

#[derive(Debug)]
struct Total {
    /// What is shared, beyond the floors.
    shared: usize,
    /// What is held of it.
    used: AtomicUsize,
    /// What of that is beyond first windows.
    wide: AtomicUsize,
    most_sessions: usize,
    sessions: AtomicUsize,
    /// Those of peers that no service names: a half of all at most, whatever ids they take.
    strangers: AtomicUsize,
}

#[derive(Debug)]
struct Peer {
    memory: Memory,
    /// What its sessions hold beyond their floors.
    used: AtomicUsize,
    /// And beyond their first windows.
    wide: AtomicUsize,
}

impl Memory {
    /// `bytes` for all sessions.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let most_sessions = bytes / 4 / FLOOR;
        Self(Arc::new(Total {
            shared: bytes - most_sessions * FLOOR,
            used: AtomicUsize::new(0),
            wide: AtomicUsize::new(0),
            most_sessions,
            sessions: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
        }))
    }

    /// The part of a peer. It is kept as long as one of its sessions is.
    #[must_use]
    pub fn peer(&self) -> PeerMemory {
        PeerMemory(Arc::new(Peer {
            memory: self.clone(),
            used: AtomicUsize::new(0),
            wide: AtomicUsize::new(0),
        }))
    }

    /// How many bytes are held at most: what is shared, and the floors of the sessions that there are.
    #[must_use]
    pub fn held_at_most(&self) -> usize {
        self.0.used.load(Relaxed) + self.0.sessions.load(Relaxed) * FLOOR
    }

    /// What is free beyond first windows.
    fn free_wide(&self) -> usize {
        (self.0.shared / 2).saturating_sub(self.0.wide.load(Relaxed))
    }

    fn free(&self) -> usize {
        self.0.shared.saturating_sub(self.0.used.load(Relaxed))
    }

    /// The third of what a peer may hold that is for first windows: a peer alone may hold a half of what is shared.
    fn kept(&self) -> usize {
        self.0.shared / 6
    }
}

impl PeerMemory {
    /// The part of a new session. `None`: the floors of all sessions would exceed their part of the memory.
    #[must_use]
    pub fn session(&self) -> Option<Share> {
        let total = &self.0.memory.0;
        let admitted = total.sessions.fetch_update(Relaxed, Relaxed, |sessions| {
            (sessions < total.most_sessions).then_some(sessions + 1)
        });
        admitted.ok().map(|_| Share {
            peer: self.clone(),
            held: 0,
            is_strangers: false,
        })
    }

    /// The same for a session that a peer opens which no service names. `None` also if such peers have a half of all.
    #[must_use]
    pub fn session_of_stranger(&self) -> Option<Share> {
        let total = &self.0.memory.0;
        let most = total.most_sessions / 2;
        let admitted = total.strangers.fetch_update(Relaxed, Relaxed, |sessions| {
            (sessions < most).then_some(sessions + 1)
        });
        admitted.ok()?;
        let share = self.session();
        if share.is_none() {
            total.strangers.fetch_sub(1, Relaxed);
        }
        share.map(|mut share| {
            share.is_strangers = true;
            share
        })
    }
}

impl Share {
    /// What the session holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many bytes further it may hold.
    #[must_use]
    pub fn room(&self) -> usize {
        let peer = &self.peer.0;
        let free = peer.memory.free();
        // With x bytes further: beyond + x <= (free - x) / 4, and peer + x <= free - x.
        let own = free.saturating_sub(4 * beyond(self.held)) / 5;
        let peers = free.saturating_sub(peer.used.load(Relaxed)) / 2;
        // The same beyond the first window, with a half of what is free there.
        let free = peer.memory.free_wide();
        let own_wide = free.saturating_sub(2 * wide(self.held)) / 3;
        let peers_wide = free.saturating_sub(peer.wide.load(Relaxed)) / 2;
        let kept = peer.memory.kept();
        let first = narrow(peers, kept).saturating_sub(self.held);
        let more = own_wide.min(peers_wide).min(peers.saturating_sub(kept));
        let room = FLOOR.saturating_sub(self.held) + own.min(peers);
        room.min(first + more)
    }

    /// How many bytes of a piece of `wanted` it may hold. A piece that would be cut to almost nothing waits instead: its place
    /// would take more than its bytes.
    #[must_use]
    pub fn piece(&self, wanted: usize) -> usize {
        let room = self.room().saturating_sub(PIECE);
        match room < wanted && room < LEAST_PIECE {
            true => 0,
            false => room.min(wanted),
        }
    }

    /// Holds `bytes` further, if it may.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        if bytes > self.room() {
            return false;
        }
        let more = beyond(self.held + bytes) - beyond(self.held);
        let peer = &self.peer.0;
        let total = &peer.memory.0;
        let taken = total.used.fetch_update(Relaxed, Relaxed, |used| {
            Some(used + more).filter(|used| *used <= total.shared)
        });
        if taken.is_err() {
            return false;
        }
        peer.used.fetch_add(more, Relaxed);
        let more = wide(self.held + bytes) - wide(self.held);
        total.wide.fetch_add(more, Relaxed);
        peer.wide.fetch_add(more, Relaxed);
        self.held += bytes;
        true
    }

    /// `bytes` are held no longer.
    ///
    /// # Panics
    /// If it does not hold that many.
    pub fn release(&mut self, bytes: usize) {
        let held = self
            .held
            .checked_sub(bytes)
            .expect("what is released is held");
        let less = beyond(self.held) - beyond(held);
        self.peer.0.memory.0.used.fetch_sub(less, Relaxed);
        self.peer.0.used.fetch_sub(less, Relaxed);
        let less = wide(self.held) - wide(held);
        self.peer.0.memory.0.wide.fetch_sub(less, Relaxed);
        self.peer.0.wide.fetch_sub(less, Relaxed);
        self.held = held;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release(self.held);
        let total = &self.peer.0.memory.0;
        total.sessions.fetch_sub(1, Relaxed);
        total
            .strangers
            .fetch_sub(usize::from(self.is_strangers), Relaxed);
    }
}

/// What a session may hold as its first window, where its peer's sessions may take `left` and `kept` is for first windows.
fn narrow(left: usize, kept: usize) -> usize {
    match left < kept {
        true => FLOOR.max(NARROW / 1024 * (left / (kept / 1024).max(1)).min(1024)),
        false => NARROW,
    }
}

fn wide(held: usize) -> usize {
    held.saturating_sub(NARROW)
}

fn beyond(held: usize) -> usize {
    held.saturating_sub(FLOOR)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn fill(share: &mut Share, piece: usize) -> usize {
        while share.take(piece.min(share.room()).max(1)) {}
        share.held()
    }

    #[test]
    fn the_default_admits_16384_sessions_and_one_alone_may_hold_16_mib() {
        let memory = Memory::new(128 * MIB);
        let peer = memory.peer();
        assert!(fill(&mut peer.session().unwrap(), 65_536) >= 16 * MIB);
        let mut shares: Vec<_> = std::iter::from_fn(|| peer.session()).collect();
        assert_eq!(shares.len(), 16_384);
        assert!(shares.iter_mut().all(|share| share.take(FLOOR)));
        assert!(memory.held_at_most() <= 128 * MIB);
        shares.clear();
        assert_eq!(memory.held_at_most(), 0);
    }

    #[test]
    fn sessions_that_nobody_reads_narrow_the_first_window_of_others_little_by_little() {
        let memory = Memory::new(128 * MIB);
        for (unread, least) in [(120, 256), (190, 80), (250, 32), (300, 16), (400, 3)] {
            let mut shares: Vec<_> = Vec::new();
            let (one, other) = (memory.peer(), memory.peer());
            for _ in 0..unread {
                let mut share = one.session().unwrap();
                let room = share.room().min(256 << 10);
                assert!(share.take(room));
                shares.push(share);
            }
            let room = one.session().unwrap().room();
            assert!(room >= least << 10, "{room} behind {unread}");
            assert!(other.session().unwrap().room() >= 4 * MIB);
        }
    }

    #[test]
    fn sessions_whose_readers_stopped_leave_others_of_their_peer_the_same() {
        let memory = Memory::new(128 * MIB);
        let peer = memory.peer();
        let mut stopped = Vec::new();
        for sessions in 0..300 {
            let room = peer.session().unwrap().room();
            let least = match sessions {
                0..30 => 256,
                30..100 => 80,
                100..150 => 32,
                150..200 => 16,
                _ => 3,
            };
            assert!(room >= least << 10, "{room} behind {sessions}");
            let mut share = peer.session().unwrap();
            fill(&mut share, 65_536);
            stopped.push(share);
        }
        drop(stopped);
        assert_eq!(memory.held_at_most(), 0);
    }

    #[test]
    fn a_peer_that_takes_what_it_can_leaves_another_one_half() {
        let memory = Memory::new(128 * MIB);
        let (greedy, other) = (memory.peer(), memory.peer());
        let mut shares: Vec<_> = (0..1000).map(|_| greedy.session().unwrap()).collect();
        for share in &mut shares {
            fill(share, 65_536);
        }
        assert!(other.session().unwrap().room() > 8 * MIB);
        assert!(memory.held_at_most() <= 128 * MIB);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_and_released_the_sum_stays_below_the_memory(
            steps in proptest::collection::vec((0..8usize, 1..100_000usize, any::<bool>()), 0..300),
        ) {
            let memory = Memory::new(MIB);
            let peers = [memory.peer(), memory.peer()];
            let mut shares: Vec<_> = (0..8).map(|n| peers[n % 2].session().unwrap()).collect();
            for (n, bytes, take) in steps {
                let share = &mut shares[n];
                if take {
                    let room = share.room();
                    prop_assert!(share.take(bytes) == (bytes <= room));
                } else {
                    share.release(bytes.min(share.held()));
                }
                let held: usize = shares.iter().map(Share::held).sum();
                prop_assert!(held <= memory.held_at_most() && memory.held_at_most() <= MIB);
                prop_assert!(shares.iter().all(|share| share.held() >= FLOOR || share.room() > 0));
            }
            drop(shares);
            prop_assert_eq!(memory.held_at_most(), 0);
        }
    }
}
