//! The exit codes of commands.

use std::process::ExitCode;

use crate::{config::Faults, identity, key_lock::InUse, logging, signals::Signal};

/// The outcome of a command, by exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Success = 0,
    /// A failure without a code of its own.
    Failure = 1,
    /// Wrong usage or configuration; nothing was attempted. The argument parser exits with 2 as well.
    Usage = 2,
    /// The peer is connected, but only through a relay.
    RelayedOnly = 3,
    /// The peer could not be reached.
    Unreachable = 4,
    /// The peer is there, and refuses.
    Refused = 5,
    /// SIGHUP ended the command before its result, as a shell reports it.
    HungUp = 129,
    /// SIGINT ended the command before its result, as a shell reports it.
    Interrupted = 130,
    /// SIGTERM ended the command before its result, as a shell reports it.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that the user has to fix: wrong arguments or a configuration that cannot work. One line with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Exit {
    /// The exit of a command that a signal has ended before its result.
    #[must_use]
    pub const fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::Interrupt => Self::Interrupted,
            Signal::Terminate => Self::Terminated,
            Signal::Hangup => Self::HungUp,
        }
    }

    /// The exit of a command that failed with `error`.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        let usage = error.is::<Faults>()
            || error.is::<Usage>()
            || error.is::<logging::Error>()
            || error.is::<InUse>();
        let identity = error.downcast_ref::<identity::Error>();
        if usage || identity.is_some_and(identity::Error::is_usage) {
            Self::Usage
        } else {
            Self::Failure
        }
    }
}
