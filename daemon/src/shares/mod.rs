//! Places that many share: which one is given up for a newcomer. Pure, with the time as an argument.
//!
//! Each holder belongs to parts of the network that contain one another. An IPv6 address belongs to its /64, /56 and /48, a
//! circuit to its caller and its relay. The load of a part is how many places it has, divided by its weight. A newcomer displaces
//! the oldest holder of the part with the highest load, if its own load stays below that. At the same load it displaces a holder
//! only after `patience`, which lets an honest holder finish. Within one part the same rule decides between the smaller parts.

mod handshakes;
mod places;

#[cfg(test)]
mod tests;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

use p2pnode_protocol::Network;

pub use self::{
    handshakes::{Handshakes, PATIENCE},
    places::{InFamily, Place, Places},
};

/// Holders that are looked at for one newcomer: bounds its cost where many may not be displaced.
const LOOKED_AT: usize = 1024;

/// Loads are whole numbers: places times this, divided by the weight, which divides this.
const UNIT: usize = 64;

/// A part of the network.
pub trait Part: Copy + Ord + Hash {
    /// How many times the places of a smallest part it may have.
    fn weight(self) -> usize;
}

impl Part for Network {
    fn weight(self) -> usize {
        Network::weight(self) as usize
    }
}

/// Who has which place.
#[derive(Debug)]
pub struct Shares<K, P> {
    /// Places taken so far, as names that grow.
    taken: u64,
    holders: HashMap<K, Holder<P>>,
    /// The holders of each part, the oldest first.
    members: HashMap<P, BTreeMap<u64, K>>,
    loads: BTreeSet<(usize, P)>,
}

#[derive(Debug)]
struct Holder<P> {
    number: u64,
    since: Instant,
    /// The largest first.
    parts: Vec<P>,
}

/// A holder that may be displaced.
#[derive(Debug, Clone, Copy)]
struct Candidate<K> {
    key: K,
    /// The highest load of its parts.
    load: usize,
}

impl<K, P> Default for Shares<K, P> {
    fn default() -> Self {
        Self {
            taken: 0,
            holders: HashMap::new(),
            members: HashMap::new(),
            loads: BTreeSet::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, P: Part> Shares<K, P> {
    /// Places that are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether none is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Places that a part has.
    #[must_use]
    pub fn of(&self, part: P) -> usize {
        self.members.get(&part).map_or(0, BTreeMap::len)
    }

    /// `key`, which has none, takes a place; `parts` are its parts, the smallest first.
    pub fn take(&mut self, key: K, parts: impl IntoIterator<Item = P>, now: Instant) {
        let mut parts: Vec<P> = parts.into_iter().collect();
        parts.reverse();
        let number = self.taken;
        self.taken += 1;
        for part in &parts {
            self.change(*part, |members| {
                members.insert(number, key);
            });
        }
        self.holders.insert(
            key,
            Holder {
                number,
                since: now,
                parts,
            },
        );
    }

    /// The place of `key` is free again. Returns whether it had one.
    pub fn leave(&mut self, key: &K) -> bool {
        let Some(holder) = self.holders.remove(key) else {
            return false;
        };
        for part in holder.parts {
            self.change(part, |members| {
                members.remove(&holder.number);
            });
        }
        true
    }

    /// The largest part of a holder.
    fn largest(&self, key: &K) -> Option<P> {
        self.holders.get(key)?.parts.first().copied()
    }

    /// Who gives up its place for a newcomer of `parts`, the smallest first, if anybody does. Only those that `may` leave are looked
    /// at; it is called with the holder and its largest part.
    #[must_use]
    pub fn displaced(
        &self,
        parts: impl IntoIterator<Item = P>,
        patience: Duration,
        now: Instant,
        may: impl Fn(&K, P) -> bool,
    ) -> Option<K> {
        let mut parts: Vec<P> = parts.into_iter().collect();
        parts.reverse();
        let mut within = None;
        let mut left = LOOKED_AT;
        let patient = |candidate: Candidate<K>| {
            let since = self.holders.get(&candidate.key)?.since;
            let waited = now.saturating_duration_since(since);
            (waited >= patience).then_some(candidate.key)
        };
        loop {
            let candidate = match within {
                None => self.heaviest(&mut left, &may),
                Some(part) => self.heaviest_within(part, &mut left, &may),
            }?;
            let smaller = match within {
                None => parts.as_slice(),
                Some(part) => below(&parts, part),
            };
            let own = smaller.iter().copied();
            let own = own.map(|part| (load(self.of(part) + 1, part), part)).max();
            let Some((own_load, own)) = own else {
                return match within {
                    None => Some(candidate.key),
                    Some(_) => patient(candidate),
                };
            };
            match candidate.load.cmp(&own_load) {
                Ordering::Greater => return Some(candidate.key),
                Ordering::Less if self.of(own) > 0 => within = Some(own),
                Ordering::Less | Ordering::Equal => return patient(candidate),
            }
        }
    }

    /// The candidate of all parts.
    fn heaviest(&self, left: &mut usize, may: &impl Fn(&K, P) -> bool) -> Option<Candidate<K>> {
        let mut found: Option<(u64, Candidate<K>)> = None;
        for (load, part) in self.loads.iter().rev() {
            if *left == 0 || found.is_some_and(|(_, found)| found.load > *load) {
                break;
            }
            let Some(inner) = self.heaviest_within(*part, left, may) else {
                continue;
            };
            let number = self.holders.get(&inner.key)?.number;
            if found.is_none_or(|(oldest, _)| number < oldest) {
                let candidate = Candidate {
                    key: inner.key,
                    load: *load,
                };
                found = Some((number, candidate));
            }
        }
        found.map(|(_, found)| found)
    }

    /// The candidate of a part: the oldest of its heaviest smaller part.
    fn heaviest_within(
        &self,
        part: P,
        left: &mut usize,
        may: &impl Fn(&K, P) -> bool,
    ) -> Option<Candidate<K>> {
        let mut found: Option<(Vec<usize>, Candidate<K>)> = None;
        for key in self.members.get(&part)?.values() {
            if *left == 0 {
                break;
            }
            *left -= 1;
            let holder = self.holders.get(key)?;
            if !holder
                .parts
                .first()
                .is_some_and(|largest| may(key, *largest))
            {
                continue;
            }
            let smaller = below(&holder.parts, part).iter();
            let loads: Vec<usize> = smaller.map(|part| load(self.of(*part), *part)).collect();
            let candidate = Candidate {
                key: *key,
                load: loads.iter().copied().max().unwrap_or_default(),
            };
            let is_heavier = |(others, other): &(Vec<usize>, Candidate<K>)| {
                (candidate.load, &loads) > (other.load, others)
            };
            if found.as_ref().is_none_or(is_heavier) {
                found = Some((loads, candidate));
            }
        }
        found.map(|(_, candidate)| candidate)
    }

    fn change(&mut self, part: P, change: impl FnOnce(&mut BTreeMap<u64, K>)) {
        let members = self.members.entry(part).or_default();
        self.loads.remove(&(load(members.len(), part), part));
        change(members);
        if members.is_empty() {
            self.members.remove(&part);
        } else {
            self.loads.insert((load(members.len(), part), part));
        }
    }
}

fn load<P: Part>(places: usize, part: P) -> usize {
    places * UNIT / part.weight()
}

/// Those of `parts`, the largest first, that are smaller than `part`.
fn below<P: Part>(parts: &[P], part: P) -> &[P] {
    let at = parts.iter().position(|other| *other == part);
    at.map_or(&[], |at| &parts[at + 1..])
}
