//! Datagrams that wait for a stream: few, and the newest.

use std::collections::VecDeque;

use bytes::Bytes;

/// The most datagrams in a queue: what a stream that stalls for a moment has to catch up with.
pub(super) const DATAGRAMS: usize = 64;

/// The most bytes in a queue: two of the longest datagrams.
pub(super) const BYTES: usize = 128 << 10;

/// What a datagram takes beside its bytes.
const OVERHEAD: usize = 64;

/// What the queues of one peer, or of all, hold and may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) held: usize,
    pub(super) most: usize,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Takes `datagram` in. The oldest ones give way to it, in this queue only. How many datagrams are lost, itself included.
    pub(super) fn push(&mut self, datagram: Bytes, rooms: [&mut Room; 2]) -> u64 {
        let [peer, all] = rooms;
        let cost = datagram.len() + OVERHEAD;
        let mut lost = 0;
        let fits = |queue: &Self, peer: &Room, all: &Room| {
            queue.datagrams.len() < DATAGRAMS
                && queue.bytes + cost <= BYTES
                && peer.held + cost <= peer.most
                && all.held + cost <= all.most
        };
        while !fits(self, peer, all) {
            lost += 1;
            if self.pop([peer, all]).is_none() {
                return lost;
            }
        }
        for room in [peer, all] {
            room.held += cost;
        }
        self.bytes += cost;
        self.datagrams.push_back(datagram);
        lost
    }

    pub(super) fn pop(&mut self, rooms: [&mut Room; 2]) -> Option<Bytes> {
        let datagram = self.datagrams.pop_front()?;
        let cost = datagram.len() + OVERHEAD;
        self.bytes -= cost;
        for room in rooms {
            room.held -= cost;
        }
        if self.datagrams.is_empty() {
            self.datagrams = VecDeque::new();
        }
        Some(datagram)
    }
}
