//! The control socket: how the commands of a program ask a process of it that runs. HTTP over a Unix socket, versioned under
//! `/v1`; which requests there are, each program says. An error is a status of 400 or above and a text of one line.
//!
//! Who may open the socket may command the process: its mode is 0600.

mod client;
mod server;
mod show;

pub use client::{Client, ClientError, Lines};
pub use server::{Refusal, Server, ServerError};
pub use show::show;

/// What texts call the process behind a control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// What it is: `node`.
    pub noun: &'static str,
    /// The command that starts one: `p2pnode run`.
    pub run: &'static str,
}

#[cfg(test)]
mod tests;
