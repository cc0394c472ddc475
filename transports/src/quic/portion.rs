//! How many datagrams a connection hands to the kernel at once, where many share a socket.
//!
//! quinn makes the buffer in which a connection's packets are sent large enough for all that the socket may take at once when two of them go
//! together for the first time, which is in the handshake, and keeps it: 13 kB for each connection of a relay, most of which never have
//! more than a ping to send (`docs/notes.md`). So a connection begins with one datagram at a time, and has as many as the socket
//! takes once it has shown that this saves work: in the first round trip in which it has much to send.

use std::cell::Cell;

/// So many calls of the kernel would have been spared: what was sent is no handshake. The first ten datagrams of whatever is
/// longer are more.
const ENOUGH: u32 = 8;

/// How much a connection may hand over at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Portion {
    /// One datagram; of the last turns so many could have gone with others.
    One { spared: u32 },
    /// As many as the socket takes. What that costs is spent for good.
    Many,
}

impl Default for Portion {
    fn default() -> Self {
        Self::One { spared: 0 }
    }
}

impl Portion {
    /// What follows from a turn in which so many datagrams were sent. Turns with one take back what was collected in others, so that an
    /// idle connection does not get there in the course of days.
    fn after(self, sent: u32) -> Self {
        let Self::One { spared } = self else {
            return self;
        };
        let spared = match sent {
            0 => spared,
            1 => spared.saturating_sub(1),
            more => spared.saturating_add(more - 1),
        };
        if spared < ENOUGH {
            Self::One { spared }
        } else {
            Self::Many
        }
    }

    /// Runs a turn of the connection whose portion this is, on this thread: [`segments`] and [`sent`] are about it.
    pub(super) fn during<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        TURN.set(Some(Turn {
            portion: *self,
            sent: 0,
        }));
        let done = turn();
        if let Some(turn) = TURN.take() {
            *self = turn.portion.after(turn.sent);
        }
        done
    }
}

/// A turn that has begun.
#[derive(Debug, Clone, Copy)]
struct Turn {
    portion: Portion,
    sent: u32,
}

thread_local! {
    /// That of this thread. quinn asks the socket, which does not know for whom.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// How many of the datagrams that a socket takes at once whoever has its turn may hand over; all of them where nobody has.
pub(super) fn segments(most: usize) -> usize {
    match TURN.get() {
        Some(Turn {
            portion: Portion::One { .. },
            ..
        }) => 1,
        Some(Turn {
            portion: Portion::Many,
            ..
        })
        | None => most,
    }
}

/// A datagram was sent, or several at once.
pub(super) fn sent() {
    TURN.set(TURN.get().map(|turn| Turn {
        sent: turn.sent.saturating_add(1),
        ..turn
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(portion: &mut Portion, datagrams: u32) {
        portion.during(|| (0..datagrams).for_each(|_| sent()));
    }

    #[test]
    fn a_connection_has_one_at_a_time_until_it_has_much_to_send() {
        let mut portion = Portion::default();
        // A handshake, and days with a ping now and then.
        turn(&mut portion, 3);
        for _ in 0..10_000 {
            turn(&mut portion, 1);
            turn(&mut portion, 0);
            turn(&mut portion, 2);
            turn(&mut portion, 1);
        }
        assert_eq!(portion.during(|| segments(64)), 1);
        turn(&mut portion, 10);
        assert_eq!(portion.during(|| segments(64)), 64);
        turn(&mut portion, 1);
        assert_eq!(portion.during(|| segments(64)), 64);
    }

    #[test]
    fn a_few_at_a_time_all_the_time_are_much() {
        let mut portion = Portion::default();
        let turns = (1..100).find(|_| {
            turn(&mut portion, 3);
            portion == Portion::Many
        });
        assert_eq!(turns, Some(4));
    }

    #[test]
    fn what_is_sent_out_of_turn_counts_for_nobody() {
        let mut portion = Portion::default();
        portion.during(|| ());
        (0..100).for_each(|_| sent());
        assert_eq!(segments(64), 64);
        assert_eq!(portion.during(|| segments(64)), 1);
        assert_eq!(portion, Portion::default());
    }
}
