//! QUIC version 1 ([RFC 9000](https://www.rfc-editor.org/rfc/rfc9000)) as libp2p uses it
//! ([specification](https://github.com/libp2p/specs/blob/master/quic/README.md)), on quinn: one bidirectional stream for each
//! stream of libp2p, ALPN `libp2p`, the same certificates as over TCP.
//!
//! libp2p-quic chooses its sockets itself, and dials from an ephemeral port whenever none of them suits. Here the caller of a dial
//! names the socket: a [`Dialer`] has one punch socket for each family, which dials and accepts. [`Listeners`] have sockets of
//! their own, which only accept. Settings that had to be measured (`docs/benchmarks.md`) are fixed here as well: the time to the
//! first repetition, buffers, windows, the number of streams, congestion control.
//!
//! From the top: `dialer` and `listeners` (whose socket), `punch` (both arms of a punch), `socket` (one UDP socket and what comes
//! in on it), `connection` (the multiplexer),
//! `datagrams` (what it carries alongside streams), `settings` (quinn's, and why).

pub(crate) mod congestion;

mod connection;
mod datagrams;
mod dialer;
mod failure;
mod found;
mod listeners;
mod punch;
mod restraint;
mod settings;
mod socket;
mod streams;
pub(crate) mod stun;
mod window;

pub(crate) use dialer::{Dial, Dialer};
pub(crate) use listeners::Listeners;
pub use settings::{QuicRuntime, tokio_runtime};
pub(crate) use settings::{Role, Settings};
