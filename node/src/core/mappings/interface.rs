//! What the machine and its driver say to each other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2pnode_protocol::mapping::Protocol;
use serde::{Deserialize, Serialize};

/// How long a mapping is asked for. A node that dies leaves it no longer.
pub(super) const LEASE: u32 = 7200;
/// How often a mapping is looked at: what is published has to follow its loss within 30 s.
pub(super) const WATCH: Duration = Duration::from_secs(15);
/// How often a mapping that is proved is checked again.
pub(super) const CHECK: Duration = Duration::from_secs(15);
/// How long a mapping is believed that traffic alone keeps, and how often there is some: relays end TCP connections that are silent
/// for 15 s, and many NATs forget UDP after 30 s.
pub(super) const HELD: u32 = 45;
pub(super) const HOLD: Duration = Duration::from_secs(10);

p2pnode_protocol::named! {
    /// A way to have ports mapped. The better one comes first.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Method {
        /// The Port Control Protocol ([RFC 6887](https://www.rfc-editor.org/rfc/rfc6887)).
        Pcp => "pcp",
        /// Its predecessor ([RFC 6886](https://www.rfc-editor.org/rfc/rfc6886)).
        NatPmp => "nat-pmp",
        /// UPnP IGD.
        Upnp => "upnp",
        /// What the NAT gives to traffic towards a relay, which is kept up.
        Hold => "hold",
    }
}

impl Method {
    /// Whose word a mapping is until it is verified.
    pub(crate) const fn witness(self) -> &'static str {
        match self {
            Self::Pcp | Self::NatPmp | Self::Upnp => "the router",
            Self::Hold => "a relay",
        }
    }
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

/// What the driver does. It asks the router, relays for nonces, and nobody else.
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
    /// Ask a relay from the port itself as whom it sees the port. [`Mappings::handle_held`](super::Mappings::handle_held) follows.
    Hold { inside: Inside },
    /// Have a relay send a nonce to the outside port. [`Mappings::handle_checked`](super::Mappings::handle_checked) follows.
    Check {
        inside: Inside,
        /// The claim.
        external: SocketAddr,
        /// Which relay: this one of those that can be asked, counted round and round.
        relay: usize,
    },
}

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The nonce came to the port, from a relay that had sent it to this address.
    Arrived(SocketAddr),
    /// A relay has sent it, and it did not come.
    Silent,
    /// No relay has sent any.
    Unknown(Unchecked),
}

/// Why no relay has sent a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unchecked {
    /// None is connected.
    NotConnected,
    /// The relay does not know the protocol.
    Unsupported,
    /// The relay did not answer.
    NoAnswer,
    /// The relay sees no outside address of this node.
    Hidden,
    /// The relay refuses for another reason.
    Refused,
}

/// A mapping, for observers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) inside: Inside,
    pub(crate) method: Method,
    /// Where the router says that the port is reached.
    pub(crate) external: SocketAddr,
    /// Where it was reached.
    pub(crate) verified: Option<SocketAddr>,
}

/// What the router has shown, whatever became of its mappings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RouterFacts {
    /// The outside address that it has named last. It shows another NAT in front.
    pub(crate) outside: Option<IpAddr>,
    /// The last grant for each port at which no check from outside came in.
    pub(crate) dead: Vec<Claim>,
}

impl RouterFacts {
    /// Notes that a grant is dead, and forgets an earlier one for the same port.
    pub(super) fn found_dead(&mut self, claim: Claim) {
        self.forget(claim.inside);
        self.dead.push(claim);
    }

    pub(super) fn forget(&mut self, inside: Inside) {
        self.dead.retain(|claim| claim.inside != inside);
    }
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
    /// A check from outside has proved a mapping: this node is reached there.
    Proved { inside: Inside, at: SocketAddr },
    /// The mapping was proved, and a check has failed. The router is asked again.
    Doubted { inside: Inside },
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

/// What has become of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MappingState {
    /// The router says that it maps the port.
    Claimed,
    /// A check from outside came in: the address is offered.
    Verified,
    /// It is offered no longer: a check has failed, or the router names another address.
    Withdrawn,
    /// The router maps the port no longer.
    Lost,
}

/// What becomes of a port that is exposed, for its reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exposure {
    /// What has changed.
    pub(crate) state: ExposureState,
    /// What clients speak.
    pub(crate) protocol: Protocol,
    /// The port of the range.
    pub(crate) port: Option<u16>,
    /// How the router was asked.
    pub(crate) method: Option<Method>,
    /// The outside address: the router's word, or where a check from outside came in.
    pub(crate) address: Option<SocketAddr>,
    /// Why there is none.
    pub(crate) reason: Option<String>,
}

impl Exposure {
    /// Nothing but this is known.
    pub(crate) const fn new(protocol: Protocol, state: ExposureState) -> Self {
        Self {
            state,
            protocol,
            port: None,
            method: None,
            address: None,
            reason: None,
        }
    }
}

/// What has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExposureState {
    /// The port is open at this host.
    Open,
    /// The router says that it maps the port.
    Claimed,
    /// A check from outside came in.
    Verified,
    /// It is reached there no longer.
    Withdrawn,
    /// The router maps the port no longer.
    Lost,
    /// The router maps no port, and is asked again.
    Refused,
    /// Nothing comes further until what the reason names is there.
    Waiting,
    /// There is no port, and nothing is tried.
    Failed,
}

impl From<MappingState> for ExposureState {
    fn from(state: MappingState) -> Self {
        match state {
            MappingState::Claimed => Self::Claimed,
            MappingState::Verified => Self::Verified,
            MappingState::Withdrawn => Self::Withdrawn,
            MappingState::Lost => Self::Lost,
        }
    }
}

/// What is different: a proof that is gone comes before anything that is new.
pub(crate) fn changes(before: &[Claim], now: &[Claim]) -> Vec<(MappingState, Claim)> {
    let of = |claims: &[Claim], claim: &Claim| {
        let same = |other: &&Claim| other.inside == claim.inside;
        claims.iter().find(same).copied()
    };
    let mut changes = Vec::new();
    for claim in before {
        match of(now, claim) {
            None => changes.push((MappingState::Lost, *claim)),
            Some(after) if claim.verified.is_some() && after.verified != claim.verified => {
                changes.push((MappingState::Withdrawn, *claim));
            }
            Some(_) => {}
        }
    }
    for claim in now {
        let earlier = of(before, claim);
        if earlier.is_none_or(|earlier| earlier.external != claim.external) {
            let unverified = Claim {
                verified: None,
                ..*claim
            };
            changes.push((MappingState::Claimed, unverified));
        }
        if claim.verified.is_some() && earlier.and_then(|of| of.verified) != claim.verified {
            changes.push((MappingState::Verified, *claim));
        }
    }
    changes
}
