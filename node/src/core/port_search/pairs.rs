//! Packets between pairs of known ports. Their sockets have sent to nobody but the relay.
//!
//! A router may accept or answer a packet that nobody has asked for. The router then takes the 4-tuple, and the packet that its own host
//! sends later leaves from another port. So in each pair one side opens its NAT first, with packets that end on the way. The other side's
//! packets then pass. The pairs differ in who opens, and how far the openings go, since nobody knows which router accepts.

use std::time::{Duration, Instant};

use p2pnode_protocol::port_search::Part;

/// Openings of a pair. Packets that go all the way follow, for a NAT that is further away.
const OPENINGS: u32 = 3;

/// Packets of all pairs of a side. They are repeated after this.
pub(super) const IN_ALL: u32 = 16;
const REPEAT: Duration = Duration::from_millis(200);

/// How much later the side that answers sends to the other one's openings: its answer is under way for as long.
const LATER: Duration = Duration::from_millis(500);

/// How far a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Through this side's NATs, and not to the remote's.
    Near,
    /// Through the first NAT of this side alone, where the remote's is so near that the others would arrive.
    Next,
    /// All the way.
    All,
}

/// What one side sends.
#[derive(Debug)]
pub(super) struct Pairs {
    part: Part,
    most: u32,
    /// How many packets each pair has had, and when the next one is due.
    sent: Vec<(u32, Instant)>,
}

/// The side that opens the nth pair, and how far its openings go.
const fn opening(nth: usize) -> (Part, Hop) {
    match nth {
        0 => (Part::Answerer, Hop::Near),
        _ => (Part::Asker, Hop::Next),
    }
}

impl Pairs {
    pub(super) fn new(pairs: usize, part: Part, now: Instant) -> Self {
        let due = |nth| match (opening(nth), part) {
            ((Part::Asker, _), Part::Answerer) => now + LATER,
            _ => now,
        };
        Self {
            part,
            most: IN_ALL / u32::try_from(pairs).map_or(IN_ALL, |pairs| pairs.max(1)),
            sent: (0..pairs).map(|nth| (0, due(nth))).collect(),
        }
    }

    /// When the next packet is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let left = self.sent.iter().filter(|(sent, _)| *sent < self.most);
        left.map(|(_, due)| *due).min()
    }

    /// The pairs that send now, and how far.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<(u16, Hop)> {
        let mut sends = Vec::new();
        for (nth, (sent, due)) in (0..).zip(&mut self.sent) {
            if *sent >= self.most || now < *due {
                continue;
            }
            let (opener, near) = opening(usize::from(nth));
            let is_opening = opener == self.part && *sent < OPENINGS;
            sends.push((nth, if is_opening { near } else { Hop::All }));
            *sent += 1;
            *due = now + REPEAT;
        }
        sends
    }
}
