//! What the machine and its driver say to each other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2pnode_protocol::mapping::Protocol;

/// How long a mapping is asked for. A node that dies leaves it no longer.
pub(super) const LEASE: u32 = 7200;
/// How often a mapping is looked at: what is published has to follow its loss within 30 s.
pub(super) const WATCH: Duration = Duration::from_secs(15);

/// A way to have ports mapped. The better one comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Pcp,
    NatPmp,
    Upnp,
}

impl Method {
    pub(crate) const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];
}

/// The router of a family, and the address that this host has towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) router: IpAddr,
    pub(crate) own: IpAddr,
}

/// A port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inside {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// What the driver does. It asks the router and nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a datagram from a port of the range.
    Send { to: SocketAddr, datagram: Vec<u8> },
    /// Connect from a port of the range, send, and report what came back until the end or `Response::is_whole`.
    Call {
        id: u64,
        to: SocketAddr,
        request: Vec<u8>,
    },
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The router claims this mapping. It is to be verified from outside.
    Granted {
        inside: Inside,
        external: SocketAddr,
        method: Method,
    },
    /// A mapping that was granted is no more.
    Lost { inside: Inside, reason: Lost },
    /// The router maps no port.
    Refused { inside: Inside, reason: String },
}

/// Why a mapping is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The router did not renew it in time.
    Expired,
    /// The router has another one in its place.
    Replaced,
    /// There is another router, or none.
    GatewayChanged,
    /// The port is not wanted any longer.
    Unwanted,
    /// A check from outside has failed.
    Unverified,
}
