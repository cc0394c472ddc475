//! What ports wait for until they are offered.

use std::{collections::BTreeSet, fmt};

use super::interface::{Method, Unchecked};

/// What a port waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// A default route of IPv4: without one there is no router and no way out.
    Route,
    /// A port of the range to ask the router from.
    Port,
    /// An answer of the router.
    Router,
    /// An answer of a relay to the port that is to be held.
    Relay,
    /// A relay that checks the mapping.
    Check(Unchecked),
    /// A mapping of this method that lets something in.
    Open(Method),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => {
                "this host has no default route of IPv4, so there is no router to ask: connect it to a network; the port is asked for as soon as there is a route"
            }
            Self::Port => {
                "no port of the range is free to ask the router from: widen dial.port_range, or stop what holds its ports; asked again"
            }
            Self::Router => {
                "the router does not answer: turn on PCP, NAT-PMP or UPnP there and set mappings.mode to auto, or map the port by hand; asked again"
            }
            Self::Relay => {
                "no relay answers the port: check the relays with `p2pnode netcheck`; asked again"
            }
            Self::Check(why) => return write!(f, "no relay checks the mapping: {why}; asked again"),
            Self::Open(Method::Hold) => {
                "no check from outside came in, so the NAT lets nobody in to what is held: have the router map the port, or use a host behind another NAT; asked again"
            }
            Self::Open(Method::Pcp | Method::NatPmp | Method::Upnp) => {
                "no check from outside came in, although the router has granted the mapping: open its firewall and any NAT outside it for the port; asked again"
            }
        })
    }
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConnected => {
                "none is connected over IPv4; check the relays with `p2pnode netcheck`"
            }
            Self::Unsupported => {
                "it does not know /p2pnode/probe/1; run a relay-node of this release"
            }
            Self::NoAnswer => "it does not answer; check its log",
            Self::Hidden => {
                "it does not see an outside address of this node; use a relay outside this network, and no proxy in front of it"
            }
            Self::Refused => "it refuses; check its log",
        })
    }
}

/// What has been reported of a port.
#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) waits: BTreeSet<Wait>,
    /// Whether the last check was not made. The first one may only have been early.
    pub(super) is_unchecked: bool,
}
