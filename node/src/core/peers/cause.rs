//! Why the best path of a peer changes.

use std::fmt;

use super::How;
use crate::core::liveness::{Ended, Farewell};

/// Why the best path of a peer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PathCause {
    /// A connection was made, in this way.
    Made(How),
    /// A connection broke, or no longer answered.
    Lost,
    /// This node closed a connection: a surplus one, one that nothing uses, or all at its end.
    Closed,
    /// The peer closed a connection on a path that still answered.
    ClosedByPeer,
    /// A ping on a connection that is open was not answered.
    Missed,
    /// Among the connections that are open another one is the best now.
    Ranked,
}

impl PathCause {
    /// Why a connection went that `ended` so.
    pub(crate) const fn of_end(ended: Ended, farewell: Farewell) -> Self {
        match (farewell, ended) {
            (Farewell::Lost, _)
            | (Farewell::Wanted, Ended::Broken | Ended::Clock | Ended::Reset) => Self::Lost,
            (Farewell::Wanted, Ended::Ours) => Self::Closed,
            (Farewell::Wanted, Ended::Theirs) => Self::ClosedByPeer,
        }
    }
}

impl fmt::Display for PathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made(how) => return how.fmt(f),
            Self::Lost => "lost",
            Self::Closed => "closed",
            Self::ClosedByPeer => "closed_by_peer",
            Self::Missed => "missed",
            Self::Ranked => "ranked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_connection_has_the_cause_of_the_side_that_wanted_it() {
        let of = PathCause::of_end;
        assert_eq!(of(Ended::Ours, Farewell::Wanted), PathCause::Closed);
        assert_eq!(of(Ended::Theirs, Farewell::Wanted), PathCause::ClosedByPeer);
        assert_eq!(of(Ended::Broken, Farewell::Lost), PathCause::Lost);
        // This node closes what no longer answers, and a graceful close of a dead path is a loss.
        assert_eq!(of(Ended::Ours, Farewell::Lost), PathCause::Lost);
        assert_eq!(of(Ended::Theirs, Farewell::Lost), PathCause::Lost);
    }
}
