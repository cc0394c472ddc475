//! How many local sockets sessions may have open, and how those who hold them share that.
//!
//! Each socket is an open file. A process without free files answers neither its control socket nor its relays, so sessions may hold a
//! part of them only. Each holder may have `TIMES_FREE` times what is free. One that takes all it can get so leaves a part to others,
//! and several such holders have the same. See decision 0733.
//!
//! A peer that no service names may have any number of ids. All such peers together have one half of what is there, so others keep
//! the other half. See decision 0745.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// How much of what is free one holder may have: alone, eight ninths of all.
const TIMES_FREE: usize = 8;

/// A log has a line of what is full at most once in this time.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Who holds sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The clients of a forward, by its number.
    Forward(u64),
    /// The clients of the SOCKS5 server.
    Socks,
    /// The targets of the sessions of a peer that some service names.
    Peer(PeerId),
    /// The same of a peer that none names.
    Stranger(PeerId),
}

/// The local sockets of a process. Clones are the same.
#[derive(Debug, Clone)]
pub struct Sockets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    /// What of that strangers hold.
    strangers: usize,
    holders: HashMap<Holder, usize>,
    logged: Option<Instant>,
}

/// The place of one socket, which is free again when this is dropped.
#[derive(Debug, Default)]
pub struct Place(Option<(Sockets, Holder)>);

/// A holder has its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// How many sockets it holds.
    pub held: usize,
    /// How many all hold, or all strangers if it is one.
    pub all: usize,
    /// How many these may hold.
    pub most: usize,
    /// Whether a line of the log is due.
    pub is_logged: bool,
}

impl Sockets {
    /// None yet, and at most that many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            state: Mutex::default(),
        }))
    }

    /// Whether `holder` may have another one.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admits(&self, holder: &Holder, now: Instant) -> Result<(), Full> {
        let mut state = self.state();
        let held = state.holders.get(holder).copied().unwrap_or_default();
        let (all, most) = match holder {
            Holder::Stranger(_) => (state.strangers, self.0.most / 2),
            Holder::Forward(_) | Holder::Socks | Holder::Peer(_) => (state.held, self.0.most),
        };
        let free = most.saturating_sub(all);
        let free = free.min(self.0.most.saturating_sub(state.held));
        if held < free.saturating_mul(TIMES_FREE) {
            return Ok(());
        }
        let is_logged = state
            .logged
            .is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_PERIOD);
        if is_logged {
            state.logged = Some(now);
        }
        Err(Full {
            held,
            all,
            most,
            is_logged,
        })
    }

    /// A place for a socket of `holder`, which is there already or was admitted.
    #[must_use]
    pub fn take(&self, holder: Holder) -> Place {
        let mut state = self.state();
        state.held += 1;
        state.strangers += usize::from(matches!(holder, Holder::Stranger(_)));
        *state.holders.entry(holder).or_default() += 1;
        Place(Some((self.clone(), holder)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((sockets, holder)) = self.0.take() else {
            return;
        };
        let mut state = sockets.state();
        state.held -= 1;
        state.strangers -= usize::from(matches!(holder, Holder::Stranger(_)));
        if let Some(held) = state.holders.get_mut(&holder) {
            *held -= 1;
            if *held == 0 {
                state.holders.remove(&holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(sockets: &Sockets, holder: Holder) -> Vec<Place> {
        let now = Instant::now();
        let admitted = || sockets.admits(&holder, now).is_ok();
        std::iter::from_fn(|| admitted().then(|| sockets.take(holder))).collect()
    }

    #[test]
    fn a_holder_that_takes_all_it_can_get_leaves_a_ninth_and_several_have_the_same() {
        let sockets = Sockets::new(1000);
        let first = fill(&sockets, Holder::Forward(1));
        assert_eq!(first.len(), 889);
        let second = fill(&sockets, Holder::Peer(PeerId::random()));
        assert_eq!(second.len(), 99);
        drop(first);
        let again = fill(&sockets, Holder::Forward(1));
        assert_eq!(again.len(), 801, "eight times what is free");
        drop((second, again));
        assert_eq!(fill(&sockets, Holder::Socks).len(), 889, "all were free");
    }

    #[test]
    fn strangers_leave_a_half_to_others_however_many_ids_they_have() {
        let sockets = Sockets::new(448);
        let strangers = || fill(&sockets, Holder::Stranger(PeerId::random()));
        let places: Vec<_> = (0..100).flat_map(|_| strangers()).collect();
        assert_eq!(places.len(), 224);
        let others = [
            Holder::Socks,
            Holder::Forward(1),
            Holder::Peer(PeerId::random()),
        ];
        let held = others.map(|holder| fill(&sockets, holder));
        assert_eq!(held.each_ref().map(Vec::len), [200, 22, 2]);
        drop(places);
        assert!(!strangers().is_empty());
    }

    #[test]
    fn all_hold_no_more_than_they_may_however_few_these_are() {
        for most in 0..40 {
            let sockets = Sockets::new(most);
            let places: Vec<_> = (0..10)
                .flat_map(|number| fill(&sockets, Holder::Forward(number)))
                .collect();
            assert_eq!(places.len(), most, "holders enough take all");
        }
    }

    #[test]
    fn what_is_full_is_due_for_the_log_once_a_minute() {
        let (sockets, start) = (Sockets::new(0), Instant::now());
        let lines = |second| {
            let now = start + Duration::from_secs(second);
            let full = sockets.admits(&Holder::Socks, now).err();
            full.map(|full| full.is_logged)
        };
        assert_eq!(
            [0, 0, 59, 60, 61].map(lines),
            [true, false, false, true, false].map(Some)
        );
    }
}
