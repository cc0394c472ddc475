//! By which protocol the router maps ports.

use std::time::{Duration, Instant};

use super::interface::Method;

/// How long a better method may be late.
const HEAD_START: Duration = Duration::from_millis(300);
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// Nothing is asked, until then if there is a time.
    Idle(Option<Instant>),
    Asking {
        tries: u32,
        next: Instant,
        /// The best method that has answered, and until when a better one is waited for.
        best: Option<(Method, Instant)>,
    },
    Found(Method),
}

impl Search {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Idle(at) => *at,
            Self::Asking { next, best, .. } => {
                Some(best.map_or(*next, |(_, until)| until.min(*next)))
            }
            Self::Found(_) => None,
        }
    }

    /// Notes that the router knows `method`.
    pub(super) fn answered(&mut self, method: Method, methods: &[Method], now: Instant) {
        let Self::Asking { best, .. } = self else {
            return;
        };
        if !methods.contains(&method) {
            return;
        }
        if methods.first() == Some(&method) {
            *self = Self::Found(method);
        } else if best.is_none_or(|(known, _)| method < known) {
            let until = best.map_or(now + HEAD_START, |(_, until)| until);
            *best = Some((method, until));
        }
    }
}
