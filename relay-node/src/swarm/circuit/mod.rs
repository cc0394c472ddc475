//! The server of [circuit relay v2](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md).
//!
//! From below: [`wire`] and [`message`] (bytes), `exchange` (one handshake), `handler` (those of a connection), `copy` and `pace`
//! (what runs over a circuit, and how fast), `behaviour` (the relay in the swarm).
//!
//! A request comes over a stream of HOP to the handler, and from there through the event loop to
//! [`RelayState`](crate::core::RelayState). A reservation is answered at once. For a circuit the destination is asked over STOP by the
//! handler of its connection, whose stream goes straight to the handshake that waits for it; both streams then go to a task that
//! carries bytes between them until they end.

mod message;
mod wire;

mod behaviour;
mod copy;
mod exchange;
mod handler;
mod pace;

pub(crate) use self::behaviour::{Behaviour, Event};
