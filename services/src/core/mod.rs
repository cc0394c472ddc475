//! The machines: sessions, their memory and sockets, who may open them, and flows of datagrams.
//!
//! They do no IO. Each has the dialect of this project: `handle_*(.., now)`, `poll_action()`, `poll_event()`, `poll_timeout()`,
//! `handle_timeout(now)`.

pub mod access;
pub mod flows;
pub mod memory;
pub mod session;
pub mod sessions;
pub mod sockets;
