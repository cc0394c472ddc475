//! Services in the node: what carries bytes between local sockets and sessions.
//!
//! - [`Hub`]: what all tasks share. The event loop reports paths to it, and asks it which peers to keep a path to.
//! - `driver`: one session with its local socket and its streams, as a task.
//! - `carrier`: frames over one stream.
//! - `inbound`: streams that peers open.
//! - `forward`, `listener`, `target`, `local`: forwards, listeners, targets, and local sockets.
//! - `udp`: flows of datagrams, `flows`: what they share, and `listen_socket`: where those of clients come. `raw`: streams of other implementations. `socks`: the SOCKS5 server.
//! - `servers`: what runs apart from sessions.
//! - `sources`: from where targets are dialed, and the addresses of peers.
//! - `session`: sessions for programs that use the library.
//! - `places`: how many local sockets there may be.
//! - `report`, `refusals`: what happens to sessions, for commands, logs and metrics.
//!
//! The machines of `p2pnode-services` decide what a session does; each task here drives one. No task waits for another one, and the
//! event loop waits for none of them.

mod carrier;
mod driver;
mod flows;
mod forward;
mod forwards;
mod hub;
mod inbound;
mod lines;
mod listen_socket;
mod listener;
mod local;
mod offering;
mod offers;
mod opening;
mod paths;
mod places;
mod raw;
mod refusals;
mod report;
mod running;
mod servers;
mod session;
mod socks;
mod sources;
mod status;
mod target;
#[cfg(test)]
mod tests;
mod udp;

pub use self::session::{Callers, Incoming, OpenSessionError, ServeError, Session};
pub(crate) use self::{
    forwards::ForwardError,
    hub::{Hub, Needs},
    lines::{Ended, Line, ListError, Listed, Report, SessionReport, State, reports},
    local::Socket,
    offers::Goal,
    opening::{OpenError, Wanted},
    paths::{Chosen, Connection},
    sources::PeerAddresses,
};
