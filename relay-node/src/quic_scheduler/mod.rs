//! How the relay shares its QUIC sockets out between thousands of connections.
//!
//! [`FairRuntime`] is the runtime that the relay gives quinn for each socket it listens on. A thread reads the socket ([`reader`]),
//! no faster than the connections handle what it reads ([`backpressure`]). One task drives all connections ([`scheduler`]), in
//! turns that [`fair_queue`] shares out. A node does not need it: quinn's own runtime for tokio is faster for a few connections.

mod backpressure;
mod fair_queue;
mod reader;
mod scheduler;

pub(crate) use reader::FairRuntime;

#[cfg(test)]
mod tests;
