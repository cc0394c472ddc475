//! One stream of a session.

use std::{collections::VecDeque, time::Instant};

use crate::wire::Frame;

/// A stream, numbered by the task that drives the session. No number comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) state: State,
    /// What it sends before data.
    pub(super) out: VecDeque<Frame>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The opener has sent `OPEN` or `RESUME` and waits for the answer.
    Asking {
        since: Instant,
        /// The session had no stream then.
        is_paused: bool,
    },
    /// It carries the session.
    Current,
    /// It has carried the session, and may still bring data.
    Left,
    /// It only sends what it has to.
    Closing,
}
