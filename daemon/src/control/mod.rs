//! The control socket, over which the commands of a program ask its running process.
//!
//! The protocol is HTTP over a Unix socket, versioned under `/v1`. Each program defines its requests. An error is a status of 400
//! or above, and a text of one line. The mode of the socket is 0600: a user who can open it controls the process.

mod client;
mod server;
mod show;

pub use client::{Client, ClientError, Lines};
pub use server::{Answer, Refusal, Server, ServerError};
pub use show::{Form, Shown, show};

/// How messages name the process behind a control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// What the process is: `node`.
    pub noun: &'static str,
    /// The command that starts one: `p2pnode run`.
    pub run: &'static str,
}

#[cfg(test)]
mod tests;
