//! How many streams a remote may have open at once. Pure.
//!
//! quinn keeps an entry in two tables for each stream that the remote is allowed, opened or not (`docs/notes.md`), so a
//! connection begins with few and is allowed more as it uses them.

/// What a remote may open before it has shown that it needs more. A node that has just connected opens eight at once at a relay, and a
/// relay as many and ten questions.
pub(super) const FIRST: u32 = 16;

/// What it may have at most: four times what libp2p allows by default.
pub(super) const MOST: u32 = 1024;

/// The streams of a connection that its remote opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    allowed: u32,
    open: u32,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            allowed: FIRST,
            open: 0,
        }
    }
}

impl Streams {
    /// One was opened. Where half of what is allowed is in use, twice as many are allowed from now on: the new number.
    pub(super) fn opened(&mut self) -> Option<u32> {
        self.open = self.open.saturating_add(1);
        let wanted = self.open.saturating_mul(2) > self.allowed && self.allowed < MOST;
        wanted.then(|| {
            self.allowed = self.allowed.saturating_mul(2).min(MOST);
            self.allowed
        })
    }

    /// One is gone. What was allowed stays.
    pub(super) fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_is_never_allowed_more_and_many_at_once_are_up_to_a_bound() {
        let mut streams = Streams::default();
        for _ in 0..10_000 {
            assert_eq!(streams.opened(), None);
            streams.closed();
        }
        let raised: Vec<_> = (1..=5000)
            .filter_map(|n| streams.opened().map(|to| (n, to)))
            .collect();
        assert_eq!(
            raised,
            [
                (9, 32),
                (17, 64),
                (33, 128),
                (65, 256),
                (129, 512),
                (257, 1024)
            ]
        );
    }
}
