//! The legs to a relay: one for each of its addresses and IP families.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_daemon::backoff::backoff;
use p2pnode_transports::{Family, FamilyPolicy};

use crate::config::RelayAddr;

/// First wait after a leg was lost or could not be dialed.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Longest wait between two dials of a leg. A QUIC dial gives up after 4 s and retransmits until then. So this node finds a relay
/// that comes back within 5 s.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Longest wait where the relay's name leads to it in the other family: it may have no address in this one, ever.
const BACKOFF_MAX_TWIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Leg {
    pub(super) relay: RelayAddr,
    pub(super) family: Family,
    /// One of two legs to the same name.
    pub(super) is_twin: bool,
    pub(super) state: State,
    /// Dials in a row that failed.
    pub(super) failures: u32,
    /// Connections in a row on which the relay did not admit this node.
    pub(super) refusals: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Down {
        retry_at: Instant,
    },
    Dialing(Option<ConnectionId>),
    Up {
        connection: ConnectionId,
        identified: bool,
        join: Join,
    },
}

/// Whether the relay has admitted this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// It has, or it is not asked.
    Done,
    /// It has not. Circuits may be asked for all the same if this node has no token for it.
    Awaited { has_token: bool },
}

impl Leg {
    /// The legs to a relay at `relay`, in the order in which `policy` prefers them. There is none if `policy` allows none. A name
    /// gets a leg in each family, because a relay observes mappings only in the family of the leg. A circuit also needs a leg in
    /// the family of the other side.
    pub(super) fn of(relay: &RelayAddr, policy: FamilyPolicy, now: Instant) -> Vec<Self> {
        let addr = &relay.addr;
        let of_name = |name: &str| {
            let twin = |family, host: Protocol<'_>| {
                let rest = addr.iter().skip(1);
                let addr = std::iter::once(host).chain(rest).collect();
                (family, addr)
            };
            vec![
                twin(Family::Ip4, Protocol::Dns4(name.into())),
                twin(Family::Ip6, Protocol::Dns6(name.into())),
            ]
        };
        let mut addrs: Vec<(Family, Multiaddr)> = match (Family::of(addr), addr.iter().next()) {
            (Some(family), _) => vec![(family, addr.clone())],
            (None, Some(Protocol::Dns(name))) => of_name(&name),
            // No transport dials such an address. The failure of the dial reports the address.
            (None, _) => vec![(Family::Ip4, addr.clone())],
        };
        addrs.retain(|(family, _)| policy.allows(*family));
        addrs.sort_by_key(|(family, _)| policy.rank(*family));
        let is_twin = addrs.len() > 1;
        let leg = |(family, addr)| Self {
            relay: RelayAddr {
                peer: relay.peer,
                addr,
            },
            family,
            is_twin,
            state: State::Down { retry_at: now },
            failures: 0,
            refusals: 0,
        };
        addrs.into_iter().map(leg).collect()
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self.state {
            State::Up { connection, .. } => Some(connection),
            State::Down { .. } | State::Dialing(_) => None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(
            self.state,
            State::Up {
                identified: true,
                join: Join::Done,
                ..
            }
        )
    }

    /// Whether circuits can be asked for on it.
    pub(super) fn takes_circuits(&self) -> bool {
        match self.state {
            State::Up { join, .. } => join != Join::Awaited { has_token: true },
            State::Down { .. } | State::Dialing(_) => false,
        }
    }

    /// The leg was lost, or could not be dialed. `is_alone`: no other leg to the relay is up.
    pub(super) fn down(&mut self, is_alone: bool, now: Instant, jitter: f64) {
        let max = if self.is_twin && !is_alone {
            BACKOFF_MAX_TWIN
        } else {
            BACKOFF_MAX
        };
        self.state = State::Down {
            retry_at: now + backoff(BACKOFF_MIN, max, self.failures, jitter),
        };
    }
}
