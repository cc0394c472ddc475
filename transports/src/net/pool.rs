//! Which port of the range is used next. Pure: no socket, no clock; the caller says what time it is and what became of a
//! port.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use crate::net::{
    holder::{HeldBy, Holder},
    range::PortRange,
};

/// The ports of a [`PortRange`] and who uses them.
///
/// Ports are handed out first-fit from an offset that is hashed from a seed (the peer id): the same node takes the same port
/// after a restart, so mappings and pinholes live on, and nodes behind one NAT start at different ones.
#[derive(Debug, Clone)]
pub(crate) struct PortPool {
    range: PortRange,
    offset: usize,
    /// By distance from the start of the range.
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// In use, as often as it was claimed: one number serves UDP and TCP, IPv4 and IPv6.
    InUse(u16),
    /// Not to be claimed before this instant.
    Cooling(Instant),
}

impl PortPool {
    pub(crate) const fn range(&self) -> PortRange {
        self.range
    }

    /// All ports free. `seed` decides which is first.
    pub(crate) fn new(range: PortRange, seed: &[u8]) -> Self {
        let offset = (fnv1a(seed) % range.len() as u64) as usize;
        Self {
            range,
            offset,
            states: vec![State::Free; range.len()],
        }
    }

    /// Claims the next free port: one of the `held` ones only where no other is free.
    ///
    /// # Errors
    ///
    /// [`Exhausted`], with no holders, where every port is in use or still cooling at `now`.
    pub(crate) fn claim_beside(&mut self, held: &[u16], now: Instant) -> Result<u16, Exhausted> {
        self.claim_first(now, |port| held.contains(&port))
    }

    /// Claims the free port that is farthest from the `silent` ones, around the range. The first is half a range away, the next two a
    /// quarter: a block of the range that a firewall drops is left after a few.
    ///
    /// # Errors
    ///
    /// As [`claim_beside`](Self::claim_beside).
    pub(crate) fn claim_far(
        &mut self,
        mut silent: Vec<u16>,
        now: Instant,
    ) -> Result<u16, Exhausted> {
        silent.sort_unstable();
        let len = self.range.len();
        // Around the range, the nearest one is the next below or above, or the last or first of all.
        let nearest = |port: u16| {
            let above = silent.partition_point(|other| *other < port);
            let neighbours = [above.checked_sub(1), Some(above)];
            let around = [silent.first(), silent.last()];
            let near = neighbours
                .map(|at| silent.get(at?))
                .into_iter()
                .chain(around)
                .flatten();
            let away = near.map(|other| {
                let straight = usize::from(port.abs_diff(*other));
                straight.min(len.saturating_sub(straight))
            });
            away.min()
        };
        self.claim_first(now, |port| Reverse(nearest(port)))
    }

    /// Claims the free port with the least key, the first of several.
    fn claim_first<K: Ord>(
        &mut self,
        now: Instant,
        key: impl Fn(u16) -> K,
    ) -> Result<u16, Exhausted> {
        let free = self.order().filter(|&port| self.is_free(port, now));
        let port = free.min_by_key(|port| key(*port)).ok_or(Exhausted {
            range: self.range,
            holders: Vec::new(),
        })?;
        self.set(port, State::InUse(1));
        Ok(port)
    }

    /// Claims this port if it is free at `now`.
    pub(crate) fn claim_free(&mut self, port: u16, now: Instant) -> bool {
        self.is_free(port, now) && self.claim_port(port)
    }

    /// Claims this very port: once more where it is in use, early where it cools. For a second socket on a number that is
    /// ours already, and for a socket whose bind is the proof that the port is free. `false` outside the range.
    pub(crate) fn claim_port(&mut self, port: u16) -> bool {
        let Some(state) = self.state(port) else {
            return false;
        };
        let users = match state {
            State::InUse(users) => users.saturating_add(1),
            State::Free | State::Cooling(_) => 1,
        };
        self.set(port, State::InUse(users));
        true
    }

    /// Gives back one claim. The last one frees the port, at once or, with `cool_until`, from then on. Without effect on a
    /// port that is not in use.
    pub(crate) fn release(&mut self, port: u16, cool_until: Option<Instant>) {
        let next = match self.state(port) {
            Some(State::InUse(users)) if users > 1 => State::InUse(users - 1),
            Some(State::InUse(_)) => cool_until.map_or(State::Free, State::Cooling),
            Some(State::Free | State::Cooling(_)) | None => return,
        };
        self.set(port, next);
    }

    /// The ports that are not in use, in the order in which they should be tried: the free ones as [`claim`](Self::claim)
    /// would hand them out, then the cooling ones.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<u16> {
        let unused = || {
            self.order()
                .filter(|&port| !matches!(self.state(port), Some(State::InUse(_))))
        };
        let (mut free, cooling): (Vec<_>, Vec<_>) =
            unused().partition(|&port| self.is_free(port, now));
        free.extend(cooling);
        free
    }

    /// How long until the first cooling port is free again; `None` where none cools at `now`.
    pub(crate) fn next_free_in(&self, now: Instant) -> Option<Duration> {
        let waits = self.states.iter().filter_map(|state| match state {
            State::Cooling(until) if *until > now => Some(*until - now),
            State::Cooling(_) | State::Free | State::InUse(_) => None,
        });
        waits.min()
    }

    /// How many ports are in which state at `now`.
    pub(crate) fn counts(&self, now: Instant) -> PoolCounts {
        let mut counts = PoolCounts::default();
        for state in &self.states {
            match state {
                State::InUse(_) => counts.in_use += 1,
                State::Cooling(until) if *until > now => counts.cooling += 1,
                State::Cooling(_) | State::Free => counts.free += 1,
            }
        }
        counts
    }

    /// Every port once, from the offset on and around.
    fn order(&self) -> impl Iterator<Item = u16> + use<> {
        let (range, offset) = (self.range, self.offset);
        range.iter().skip(offset).chain(range.iter().take(offset))
    }

    fn is_free(&self, port: u16, now: Instant) -> bool {
        match self.state(port) {
            Some(State::Free) => true,
            Some(State::Cooling(until)) => until <= now,
            Some(State::InUse(_)) | None => false,
        }
    }

    fn state(&self, port: u16) -> Option<State> {
        self.states.get(self.index(port)?).copied()
    }

    fn set(&mut self, port: u16, state: State) {
        if let Some(slot) = self
            .index(port)
            .and_then(|index| self.states.get_mut(index))
        {
            *slot = state;
        }
    }

    fn index(&self, port: u16) -> Option<usize> {
        port.checked_sub(self.range.start()).map(usize::from)
    }
}

/// How many ports of a pool are in which state. The three add up to the length of the range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Nobody of this node uses them (another process may).
    pub free: usize,
    /// Punch ports and ports of open connections.
    pub in_use: usize,
    /// Used a short while ago, or found taken by somebody else.
    pub cooling: usize,
}

/// No port of the range is left for a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// The range.
    pub range: PortRange,
    /// What holds its ports, as far as it was looked at: the first few, in the order in which they were tried.
    pub holders: Vec<Holder>,
}

impl Exhausted {
    /// The same; these connections are named first, as far as there is room.
    pub(crate) fn held_by(mut self, connections: impl IntoIterator<Item = Holder>) -> Self {
        let room = self.holders.len().max(1);
        let mut holders: Vec<_> = connections.into_iter().collect();
        holders.retain(|holder| self.range.contains(holder.port));
        holders.append(&mut self.holders);
        holders.truncate(room);
        self.holders = holders;
        self
    }

    /// Whether the kernel forbids the ports that were looked at, and nobody holds them.
    pub fn is_forbidden(&self) -> bool {
        let is_forbidden = |holder: &Holder| matches!(holder.by, HeldBy::Refused(_));
        !self.holders.is_empty() && self.holders.iter().all(is_forbidden)
    }
}

impl std::fmt::Display for Exhausted {
    /// One line: `port range 40000-40000 exhausted: udp 40000 held by pid 123 (nc)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "port range {} exhausted", self.range)?;
        for (n, holder) in self.holders.iter().enumerate() {
            f.write_str(if n == 0 { ": " } else { ", " })?;
            holder.fmt(f)?;
        }
        if !self.holders.is_empty() && self.holders.len() < self.range.len() {
            write!(f, ", and so on")?;
        }
        Ok(())
    }
}

impl std::error::Error for Exhausted {}

/// 64-bit FNV-1a. Not a standard hasher: those may change with the toolchain or are keyed by chance, and the port has to be
/// the same after a restart and an upgrade.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
