//! What the flows ask their caller to do, and how they name a flow and its end.

use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;

use crate::{
    core::{session::StreamId, sessions::Role},
    wire::{Refusal, ResetReason, SessionId, datagram::FlowNumber},
};

/// A flow, as one process names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The other side.
    pub peer: PeerId,
    /// Who opened it.
    pub role: Role,
    /// Its number.
    pub number: FlowNumber,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a stream for the flow on the peer's best path.
    OpenStream(FlowKey),
    /// Send what `poll_transmit` still returns for the stream, and the reset of a flow that is over, then close it.
    CloseStream(FlowKey, StreamId, Option<ResetReason>),
    /// Send this QUIC datagram on the peer's best path.
    SendDatagram(PeerId, Bytes),
    /// Send it to the client, or to the target.
    Deliver(FlowKey, Bytes),
    /// The peer has accepted a flow that this side opened.
    Opened(FlowKey),
    /// The flow goes on on its newest stream, after it had none for that time; `None`: it had one.
    Carried(FlowKey, Option<Duration>),
    /// The flow is over: close its socket.
    Closed(FlowKey, SessionId, End),
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// No datagram came for its idle time, here or at the peer.
    Idle,
    /// The peer refused it.
    Refused(Refusal),
    /// The peer ended it.
    ResetByPeer(ResetReason),
    /// This side ended it.
    Reset,
    /// No stream could be opened to its peer.
    Unreachable,
    /// The peer broke the protocol.
    Violation,
}

/// Datagrams that went nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Older ones, for newer ones in the same queue.
    pub displaced: u64,
    /// Of no flow that the peer has.
    pub unknown: u64,
    /// Of a client for which no flow could be made.
    pub refused: u64,
}
