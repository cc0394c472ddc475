//! Places of which each IP family keeps a part.

use std::{
    collections::BTreeMap,
    hash::Hash,
    time::{Duration, Instant},
};

use p2pnode_protocol::{Family, Network};

use super::{Part, Shares};

/// Places for sources, of which some are kept for each IP family.
#[derive(Debug)]
pub struct Places<K, P> {
    /// Who has them.
    pub shares: Shares<K, P>,
    pub(super) limit: usize,
    pub(super) kept: usize,
    pub(super) of_family: BTreeMap<Family, usize>,
}

/// A part that says of which IP family it is.
pub trait InFamily: Part {
    /// The family; `None` for what has none.
    fn family(self) -> Option<Family>;
}

impl InFamily for Network {
    fn family(self) -> Option<Family> {
        Some(match self {
            Self::Ip4(_) => Family::Ip4,
            Self::Net64(_) | Self::Net56(_) | Self::Net48(_) => Family::Ip6,
        })
    }
}

/// Whether a newcomer gets a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<K> {
    /// There is one.
    Free,
    /// This holder has to leave for it.
    Of(K),
    /// Nobody leaves for it.
    None,
}

impl<K> Place<K> {
    /// Who has to leave, or `refusal` if nobody leaves.
    ///
    /// # Errors
    /// `refusal`, if there is no place.
    pub fn or<E>(self, refusal: E) -> Result<Option<K>, E> {
        match self {
            Self::Free => Ok(None),
            Self::Of(displaced) => Ok(Some(displaced)),
            Self::None => Err(refusal),
        }
    }
}

impl<K: Copy + Eq + Hash, P: InFamily> Places<K, P> {
    /// So many, of which `kept` are for either family.
    #[must_use]
    pub fn new(limit: usize, kept: usize) -> Self {
        Self {
            shares: Shares::default(),
            limit,
            kept,
            of_family: BTreeMap::new(),
        }
    }

    /// Whether a newcomer of `parts`, the smallest first, gets a place; `is_full` if there is none left for a reason that is not
    /// known here. Only those leave for it that `may`.
    #[must_use]
    pub fn place(
        &self,
        parts: &[P],
        is_full: bool,
        patience: Duration,
        now: Instant,
        may: impl Fn(&K) -> bool,
    ) -> Place<K> {
        let family = parts.last().and_then(|part| part.family());
        let taken = |family| self.of_family.get(&family).copied().unwrap_or_default();
        let has_its_part = |family| taken(family) >= self.limit.saturating_sub(self.kept).max(1);
        let is_whole = family.is_some_and(has_its_part);
        if !is_whole && !is_full && self.shares.len() < self.limit {
            return Place::Free;
        }
        let may = |key: &K, part: P| {
            let other = part.family();
            let is_kept = |other| is_whole || taken(other) <= self.kept;
            may(key) && (other == family || !other.is_some_and(is_kept))
        };
        let displaced = self
            .shares
            .displaced(parts.iter().copied(), patience, now, may);
        displaced.map_or(Place::None, Place::Of)
    }

    /// `key` takes a place.
    pub fn take(&mut self, key: K, parts: &[P], now: Instant) {
        self.shares.take(key, parts.iter().copied(), now);
        if let Some(family) = parts.last().and_then(|part| part.family()) {
            *self.of_family.entry(family).or_default() += 1;
        }
    }

    /// The place of `key` is free again. Returns whether it had one.
    pub fn leave(&mut self, key: &K) -> bool {
        if let Some(family) = self.shares.largest(key).and_then(InFamily::family)
            && let Some(taken) = self.of_family.get_mut(&family)
        {
            *taken -= 1;
        }
        self.shares.leave(key)
    }
}
