//! QUIC version 1 ([RFC 9000](https://www.rfc-editor.org/rfc/rfc9000)) as libp2p uses it
//! ([specification](https://github.com/libp2p/specs/blob/master/quic/README.md)), on quinn. Each stream of libp2p is one
//! bidirectional stream. The ALPN is `libp2p`, and the certificates are those of TCP.
//!
//! libp2p-quic chooses its sockets itself, and dials from an ephemeral port whenever none of them suits. Here the caller of a
//! dial names the socket: a [`Dialer`] has one punch socket for each family, which dials and accepts. [`Listeners`] have sockets
//! of their own, which only accept. Settings that had to be measured (`docs/benchmarks.md`) are fixed here as well: first
//! repetition, buffers, windows, number of streams, congestion control.
//!
//! From the top: `dialer` and `listeners` (whose socket), `punch` (both arms of a punch), `socket` (one UDP socket and its
//! packets). `punch_sockets` has those that dial, and where they move. Below are `connection` (the multiplexer) and `datagrams`
//! (what it carries alongside streams). `life` knows whether the remote hears this side, `tolerance` and `flight` how fast it may
//! send. `settings` has quinn's, and why.

pub(crate) mod congestion;

mod connection;
mod datagrams;
mod dialer;
mod failure;
mod flight;
mod found;
mod life;
mod listeners;
mod punch;
mod punch_sockets;
mod restraint;
mod settings;
mod socket;
mod streams;
pub(crate) mod stun;
mod tolerance;
mod window;

pub(crate) use dialer::{Dial, Dialer};
pub(crate) use listeners::Listeners;
pub use settings::{QuicRuntime, tokio_runtime};
pub(crate) use settings::{Role, Settings};
