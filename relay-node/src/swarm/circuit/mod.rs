//! The server of [circuit relay v2](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md).
//!
//! From below: [`p2pnode_protocol::circuit`] (messages), `exchange` (one handshake), `handler` (those of a connection). Above are
//! `copy` and `pace` (what runs over a circuit, and how fast), and `behaviour` (the relay in the swarm).
//!
//! A request comes over a stream of HOP to the handler, and from there through the event loop to
//! [`RelayState`](crate::core::RelayState). A reservation is answered at once. For a circuit the handler of the destination's
//! connection asks over STOP. Its stream goes straight to the handshake that waits for it. Both streams then go to a task that
//! carries bytes between them until they end.

mod behaviour;
mod copy;
mod exchange;
mod handler;
mod pace;

pub(crate) use self::behaviour::{Behaviour, Event};
