//! What one connection of yamux holds. Pure.

use std::collections::{HashMap, VecDeque};

use super::{CARRYING, Class};

/// Streams of a remote that wait until another ends or the class of the peer rises. A peer of rust-libp2p has at most that many that
/// were not acknowledged, so an honest one never has more.
pub(crate) const WAITING: u32 = 256;

/// What a stream costs on which nothing arrived: yamux's state of it, and ours.
const STREAM: u64 = 1024;

/// What a frame costs that has a body, apart from the body: an allocation, and two entries in queues. Without it a remote that sends
/// single bytes would have this process hold a hundred times what it counts.
const FRAME: u64 = 80;

/// A frame whose header has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stream: u32,
    /// Bytes of its body.
    pub(crate) len: u32,
    /// Whether it opens the stream.
    pub(crate) opens: bool,
    /// Whether it resets the stream. Such a body is not kept.
    pub(crate) resets: bool,
    /// Whether nothing follows on the stream.
    pub(crate) ends: bool,
}

/// Whether a connection is read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Read,
    /// Once something was read.
    Wait,
    /// Never: it is to be closed.
    Close,
}

/// The bytes and streams of one connection.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) class: Class,
    streams: HashMap<u32, Stream>,
    /// Of all streams.
    held: u64,
    /// What it may hold while it carries, and the bytes that were read since that was so much.
    earned: u32,
    read: u64,
    /// The frame that is being read, which has its memory already.
    arriving: Option<Frame>,
    /// The streams that the remote opened: all, and those in use.
    inbound: u32,
    used: u32,
}

#[derive(Debug, Default)]
struct Stream {
    /// What is left of each frame that was not read whole. The memory of a frame is freed at its end.
    unread: VecDeque<u32>,
    /// What was read of the first.
    read: u32,
    inbound: bool,
    used: bool,
    /// The remote has sent all, and it has arrived.
    ended: bool,
}

impl Stream {
    fn held(&self) -> u64 {
        STREAM + self.unread.iter().map(|len| cost(*len)).sum::<u64>()
    }
}

fn cost(len: u32) -> u64 {
    match len {
        0 => 0,
        len => u64::from(len) + FRAME,
    }
}

impl Ledger {
    pub(super) fn new(class: Class) -> Self {
        Self {
            class,
            streams: HashMap::new(),
            held: 0,
            earned: CARRYING,
            read: 0,
            arriving: None,
            inbound: 0,
            used: 0,
        }
    }

    /// What the memory of a frame costs that arrives.
    pub(super) fn cost(frame: Frame) -> u64 {
        cost(frame.len)
    }

    /// In bytes.
    pub(super) fn held(&self) -> u64 {
        self.held + self.arriving.map_or(0, |frame| cost(frame.len))
    }

    /// What it holds without what its streams cost.
    fn unread(&self) -> u64 {
        self.held() - STREAM * self.streams.len() as u64
    }

    /// The bytes that it may hold.
    fn most(&self) -> u64 {
        match self.class {
            Class::Stranger | Class::Known => self.class.bytes().into(),
            Class::Carrying | Class::Serving => self.earned.into(),
        }
    }

    /// Whether more is read. `is_short`: the process has no memory left, so nobody may hold more than a small part of its bytes.
    pub(super) fn verdict(&self, is_short: bool) -> Verdict {
        let (stranger, held) = (self.class == Class::Stranger, self.held());
        let most = self.most();
        if stranger && (self.inbound > self.class.streams() + WAITING || held > most) {
            Verdict::Close
        } else if held > most || is_short && self.unread() > self.class.bytes_if_short() {
            Verdict::Wait
        } else {
            Verdict::Read
        }
    }

    /// This side has opened a stream.
    pub(super) fn opened(&mut self, id: u32) {
        self.insert(id, Stream::default());
    }

    /// The header of a frame has arrived.
    pub(super) fn begins(&mut self, frame: Frame) {
        if frame.opens && !self.streams.contains_key(&frame.stream) {
            self.inbound += 1;
            let inbound = Stream {
                inbound: true,
                ..Stream::default()
            };
            self.insert(frame.stream, inbound);
        }
        self.arriving = Some(frame);
    }

    /// Its body has, too.
    pub(super) fn arrived(&mut self) {
        let Some(frame) = self.arriving.take() else {
            return;
        };
        // yamux drops what comes on a stream that is gone here.
        let Some(stream) = self.streams.get_mut(&frame.stream) else {
            return;
        };
        if frame.resets {
            return;
        }
        stream.ended |= frame.ends;
        if frame.len > 0 {
            stream.unread.push_back(frame.len);
            self.held += cost(frame.len);
        }
    }

    /// Whether the remote has ended the stream, and all of it has arrived.
    pub(super) fn has_ended(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.ended)
    }

    /// The program has read that much of a stream.
    pub(super) fn read(&mut self, id: u32, bytes: usize) {
        self.read += bytes as u64;
        if self.read >= self.earned.into() {
            self.earned = (2 * self.earned).min(Class::Carrying.bytes());
            self.read = 0;
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let mut left = u32::try_from(bytes).unwrap_or(u32::MAX);
        while let Some(first) = stream.unread.front().copied() {
            let rest = first - stream.read;
            if left < rest {
                stream.read += left;
                return;
            }
            left -= rest;
            stream.read = 0;
            stream.unread.pop_front();
            self.held -= cost(first);
        }
        if stream.unread.capacity() > 64 {
            stream.unread = VecDeque::new();
        }
    }

    /// Whether one more stream of the remote may be used.
    pub(super) fn admits(&self) -> bool {
        self.used < self.class.streams()
    }

    /// Whether so many streams wait that the newest is to be reset.
    pub(super) fn is_crowded(&self) -> bool {
        self.inbound > self.class.streams() + WAITING
    }

    /// A stream of the remote is used from now on.
    pub(super) fn uses(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.used
        {
            stream.used = true;
            self.used += 1;
        }
    }

    /// This side has dropped a stream.
    pub(super) fn dropped(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.held -= stream.held();
            self.inbound -= u32::from(stream.inbound);
            self.used -= u32::from(stream.used);
        }
    }

    fn insert(&mut self, id: u32, stream: Stream) {
        self.held += STREAM;
        if let Some(before) = self.streams.insert(id, stream) {
            // yamux never has two of one number; the ledger stays right if it had.
            self.held -= before.held();
            self.inbound -= u32::from(before.inbound);
            self.used -= u32::from(before.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u32 = 1 << 20;

    fn data(stream: u32, len: u32) -> Frame {
        Frame {
            stream,
            len,
            opens: false,
            resets: false,
            ends: false,
        }
    }

    fn open(ledger: &mut Ledger, stream: u32) {
        let opens = Frame {
            opens: true,
            ..data(stream, 0)
        };
        ledger.begins(opens);
        ledger.arrived();
    }

    fn send(ledger: &mut Ledger, stream: u32, len: u32) -> Verdict {
        ledger.begins(data(stream, len));
        let verdict = ledger.verdict(false);
        ledger.arrived();
        verdict
    }

    #[test]
    fn a_stranger_is_closed_above_its_bytes_and_another_waits_until_it_was_read() {
        for (class, over) in [
            (Class::Stranger, Verdict::Close),
            (Class::Known, Verdict::Wait),
            (Class::Carrying, Verdict::Wait),
        ] {
            let mut ledger = Ledger::new(class);
            open(&mut ledger, 1);
            let piece = 16 << 10;
            let most = u32::try_from(ledger.most()).expect("a class's");
            let fit = (most - 64 * 1024) / (piece + 80);
            for _ in 0..fit {
                assert_eq!(send(&mut ledger, 1, piece), Verdict::Read, "{class:?}");
            }
            assert_eq!(send(&mut ledger, 1, MIB), over, "{class:?}");
            ledger.read(1, (fit * piece) as usize);
            ledger.read(1, MIB as usize);
            assert_eq!(ledger.held(), STREAM);
            assert_eq!(ledger.verdict(false), Verdict::Read, "{class:?}");
        }
    }

    #[test]
    fn a_connection_that_carries_may_hold_more_once_as_much_was_read() {
        let mut ledger = Ledger::new(Class::Carrying);
        open(&mut ledger, 1);
        for most in [8, 16, 32, 32] {
            assert_eq!(ledger.most(), most << 20);
            for _ in 0..most {
                send(&mut ledger, 1, MIB);
                ledger.read(1, MIB as usize);
            }
        }
        ledger.class = Class::Known;
        assert_eq!(ledger.most(), 4 << 20);
    }

    #[test]
    fn without_memory_a_connection_waits_that_holds_a_small_part_of_its_bytes_and_one_that_is_read_goes_on()
     {
        for class in [Class::Stranger, Class::Known, Class::Carrying] {
            let mut ledger = Ledger::new(class);
            open(&mut ledger, 1);
            let share = class.bytes() / 128;
            send(&mut ledger, 1, share / 2);
            assert_eq!(ledger.verdict(true), Verdict::Read, "{class:?}");
            send(&mut ledger, 1, share / 2);
            assert_eq!(ledger.verdict(true), Verdict::Wait, "{class:?}");
            assert_eq!(ledger.verdict(false), Verdict::Read, "{class:?}");
            ledger.read(1, share as usize / 2);
            assert_eq!(ledger.verdict(true), Verdict::Read, "{class:?}");
        }
        let mut stranger = Ledger::new(Class::Stranger);
        open(&mut stranger, 1);
        send(&mut stranger, 1, MIB);
        assert_eq!(stranger.verdict(true), Verdict::Close);
    }

    #[test]
    fn single_bytes_cost_what_they_take_and_not_what_they_carry() {
        let mut ledger = Ledger::new(Class::Stranger);
        open(&mut ledger, 1);
        let sent = (1..).find(|_| send(&mut ledger, 1, 1) == Verdict::Close);
        assert!(sent.is_some_and(|sent| sent < 13_000), "{sent:?}");
    }

    #[test]
    fn a_body_counts_from_its_header_on_and_on_a_stream_that_is_gone_only_until_it_has_arrived() {
        let mut ledger = Ledger::new(Class::Stranger);
        assert_eq!(send(&mut ledger, 7, MIB), Verdict::Close);
        assert_eq!(ledger.held(), 0);
        open(&mut ledger, 7);
        let resets = Frame {
            resets: true,
            ..data(7, 1000)
        };
        ledger.begins(resets);
        ledger.arrived();
        assert_eq!(ledger.held(), STREAM);
    }

    #[test]
    fn a_stream_has_ended_once_its_last_body_has_arrived_and_never_by_a_reset() {
        let mut ledger = Ledger::new(Class::Carrying);
        for (id, resets) in [(1, false), (2, true)] {
            open(&mut ledger, id);
            let last = Frame {
                ends: true,
                resets,
                ..data(id, 1000)
            };
            ledger.begins(last);
            assert!(!ledger.has_ended(id));
            ledger.arrived();
            assert_eq!(ledger.has_ended(id), !resets);
        }
        assert!(!ledger.has_ended(3), "there is none");
    }

    #[test]
    fn a_stranger_uses_its_streams_one_after_the_other_and_is_closed_if_too_many_wait() {
        let mut ledger = Ledger::new(Class::Stranger);
        for id in 0..16 + WAITING {
            open(&mut ledger, id);
            assert_eq!(ledger.admits(), id < 16, "{id}");
            if ledger.admits() {
                ledger.uses(id);
            }
            assert_eq!(ledger.verdict(false), Verdict::Read, "{id}");
        }
        ledger.dropped(3);
        assert!(ledger.admits());
        ledger.uses(16);
        assert!(!ledger.admits());
        open(&mut ledger, 1000);
        open(&mut ledger, 1001);
        assert_eq!(ledger.verdict(false), Verdict::Close);
        ledger.class = Class::Known;
        assert_eq!(ledger.verdict(false), Verdict::Read);
        assert!(ledger.admits() && !ledger.is_crowded());
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_sent_and_not_read(
            steps in prop::collection::vec((0..4_u32, 0..5_u8, 0..5000_u32), 0..200)
        ) {
            let mut ledger = Ledger::new(Class::Carrying);
            let mut unread: HashMap<u32, VecDeque<u32>> = HashMap::new();
            for (id, what, len) in steps {
                match what {
                    0 => {
                        open(&mut ledger, id);
                        unread.entry(id).or_default();
                    }
                    1 => {
                        ledger.dropped(id);
                        unread.remove(&id);
                    }
                    2 => if let Some(frames) = unread.get_mut(&id) {
                        // Whole frames.
                        let bytes = frames.pop_front().unwrap_or_default();
                        ledger.read(id, bytes as usize);
                    },
                    _ => {
                        send(&mut ledger, id, len);
                        if let Some(frames) = unread.get_mut(&id) && len > 0 {
                            frames.push_back(len);
                        }
                    }
                }
                let frames = unread.values().flatten().map(|len| cost(*len)).sum::<u64>();
                prop_assert_eq!(ledger.held(), frames + STREAM * unread.len() as u64);
                prop_assert_eq!(ledger.inbound as usize, unread.len());
            }
        }
    }
}
