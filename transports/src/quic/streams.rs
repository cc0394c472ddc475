//! How many streams a remote may have open at once. Pure.
//!
//! quinn keeps an entry in two tables for each stream that the remote is allowed, opened or not (`docs/notes.md`). So a
//! connection begins with few and is allowed more as it uses them.

use crate::net::budget::Class;

/// The streams of a connection that its remote opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    allowed: u32,
    /// What the class of the peer allows at most.
    most: u32,
    open: u32,
}

impl Streams {
    /// The remote has what a stranger may open. A node that has just connected opens eight at once at a relay.
    pub(super) fn new(class: Class) -> Self {
        Self {
            allowed: Class::Stranger.streams(),
            most: class.streams(),
            open: 0,
        }
    }

    /// One was opened. Where half of what is allowed is in use, twice as many are allowed from now on: the new number.
    pub(super) fn opened(&mut self) -> Option<u32> {
        self.open = self.open.saturating_add(1);
        self.grow()
    }

    /// One is gone. What was allowed stays.
    pub(super) fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// The peer is of another class: what is allowed from now on, if that is another number.
    pub(super) fn set_class(&mut self, class: Class) -> Option<u32> {
        self.most = class.streams();
        if self.allowed > self.most {
            self.allowed = self.most;
            return Some(self.allowed);
        }
        self.grow()
    }

    fn grow(&mut self) -> Option<u32> {
        let before = self.allowed;
        while self.open.saturating_mul(2) > self.allowed && self.allowed < self.most {
            self.allowed = self.allowed.saturating_mul(2).min(self.most);
        }
        (self.allowed != before).then_some(self.allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_is_never_allowed_more_and_many_at_once_are_up_to_a_bound() {
        let mut streams = Streams::new(Class::Carrying);
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

    #[test]
    fn a_stranger_has_its_few_until_its_class_rises_even_if_it_waits_for_more() {
        let mut streams = Streams::new(Class::Stranger);
        for _ in 0..16 {
            assert_eq!(streams.opened(), None);
        }
        assert_eq!(streams.set_class(Class::Known), Some(32));
        assert_eq!(streams.opened(), Some(64));
        assert_eq!(streams.set_class(Class::Stranger), Some(16));
        assert_eq!(streams.opened(), None);
    }
}
