//! TCP with TLS 1.3 or Noise and yamux, dialed from the range.
//!
//! Dials have sockets of their own. libp2p-tcp leaves the range for `PortUse::New`, before its listener has an address, and where
//! the 4-tuple of a connection is in use. Listening on the punch port is libp2p-tcp's.
//!
//! From the top: `dialer` (the punch ports), `dial` (one dial, ordinary or punch), `connect` (its port), `pending_syn` (what a punch
//! leaves to the next). `moves` has the punch port follow a dial. Below are `memory` (remotes that lack TLS or need small segments) and `auth` (TLS or Noise, then yamux). A
//! socket is in `accepted` until somebody takes it; `stream` has its lease and its end. Around a connection, from the socket up:
//! `read_buffer` (fewer and larger reads), TLS with `last_word` or Noise with `eof_is_error`, `write_coalescer` (fewer and larger writes), `yamux`.

pub(crate) mod accepted;
pub(crate) mod auth;
pub(crate) mod yamux;

mod connect;
mod dial;
mod dialer;
mod eof_is_error;
mod last_word;
mod memory;
mod moves;
mod pending_syn;
mod read_buffer;
mod role;
mod stream;
mod write_coalescer;

pub(crate) use dialer::Dialer;
