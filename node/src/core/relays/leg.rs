//! The legs to a relay: one for each of its addresses and IP families.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, multiaddr::Protocol, swarm::ConnectionId};
use p2pnode_daemon::backoff::{backoff, full_jitter};
use p2pnode_transports::{Family, FamilyPolicy};

use crate::{config::RelayAddr, core::fault::Fault};

/// First wait after a leg was lost or could not be dialed.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// The longest wait before the first dial after a loss. The many nodes of a relay that ends are spread over it.
pub(super) const LOST_MAX: Duration = Duration::from_secs(1);

/// Longest wait between two dials of a leg in the first minute. A QUIC dial gives up after 4 s and retransmits until then. So this
/// node finds a relay that comes back within 5 s.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long a leg is dialed at that pace: what returns at all mostly returns by then. Afterwards its address may be somebody
/// else's.
pub(super) const LIKELY: Duration = Duration::from_secs(60);

/// The first waits after that, and after connections that came to nothing. They double.
const LATE_MIN: Duration = Duration::from_secs(4);
const VAIN_MIN: Duration = Duration::from_secs(1);

/// The longest wait, as a share of the time since the loss: a relay that returns is found in a small part of the time that it was
/// away.
pub(super) const SHARE: u32 = 7;

/// The longest wait of all.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(300);

/// A connection without a reservation that lives this long was not refused.
pub(super) const STABLE: Duration = Duration::from_secs(30);

/// The longest that a relay may ask this node to stay away.
const HOLD_MAX: Duration = Duration::from_secs(600);

/// Longest wait where the relay's name leads to it in the other family: it may have no address in this one, ever.
const BACKOFF_MAX_TWIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Leg {
    pub(super) relay: RelayAddr,
    pub(super) family: Family,
    /// One of two legs to the same name.
    pub(super) is_twin: bool,
    /// Of two legs to one address in one family the one that is to have the punch port.
    pub(super) is_second: bool,
    pub(super) state: State,
    /// When its last dial began.
    pub(super) dialed_at: Instant,
    /// Dials in a row that failed.
    pub(super) failures: u32,
    /// Since when it is looked for; `None` from a success on.
    pub(super) wanted_since: Option<Instant>,
    /// Failures after [`LIKELY`].
    late: u32,
    /// Connections in a row that ended soon and without a reservation.
    pub(super) vain: u32,
    /// How long the relay asks this node to stay away once the connection has ended.
    pub(super) hold: Option<Duration>,
    /// Connections in a row on which the relay did not admit this node.
    pub(super) refusals: u32,
    /// Why it is down.
    pub(super) down_for: Option<(Fault, String)>,
    /// Whether the connection is doubtful, and what is done about that.
    pub(super) doubt: Doubt,
    /// A connection that was replaced and is not closed yet.
    pub(super) replaced: Option<ConnectionId>,
}

/// A connection that has missed a ping. Another one is dialed alongside, and replaces it unless an answer comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It answers.
    None,
    /// Another one is to be dialed.
    Begun,
    /// Another one is being dialed. `is_over`: the first has answered meanwhile.
    Dialing {
        connection: Option<ConnectionId>,
        is_over: bool,
    },
    /// The dial has failed. The next ping that is missed begins another one.
    Failed,
}

/// What a connection that opens is for the legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    /// A leg.
    Leg,
    /// A leg, in the place of this connection, which is doubtful.
    Replaces(ConnectionId),
    /// One that is needed no longer: the leg that was doubtful has answered.
    Surplus,
    /// None of ours.
    NotOurs,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Down {
        retry_at: Instant,
    },
    Dialing(Option<ConnectionId>),
    Up {
        connection: ConnectionId,
        since: Instant,
        /// Whether the relay granted or renewed a reservation meanwhile.
        has_proved: bool,
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
        let leg = |(family, addr)| {
            let peer = relay.peer;
            Self::to(RelayAddr { peer, addr }, family, is_twin, now)
        };
        addrs.into_iter().map(leg).collect()
    }

    /// A leg that is to be dialed then.
    fn to(relay: RelayAddr, family: Family, is_twin: bool, retry_at: Instant) -> Self {
        Self {
            relay,
            family,
            is_twin,
            is_second: false,
            state: State::Down { retry_at },
            dialed_at: retry_at,
            failures: 0,
            wanted_since: None,
            late: 0,
            vain: 0,
            hold: None,
            refusals: 0,
            down_for: None,
            doubt: Doubt::None,
            replaced: None,
        }
    }

    /// A second one to where this one leads, to be dialed then.
    pub(super) fn second(&self, retry_at: Instant) -> Self {
        Self {
            is_second: true,
            ..Self::to(self.relay.clone(), self.family, self.is_twin, retry_at)
        }
    }

    /// Whether it is a second one to where the other leads.
    pub(super) fn is_second_with(&self, other: &Self) -> bool {
        self.is_second && (&self.relay, self.family) == (&other.relay, other.family)
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self.state {
            State::Up { connection, .. } => Some(connection),
            State::Down { .. } | State::Dialing(_) => None,
        }
    }

    /// The connection, and since when it is open.
    pub(super) fn up_since(&self) -> Option<(ConnectionId, Instant)> {
        match self.state {
            State::Up {
                connection, since, ..
            } => Some((connection, since)),
            State::Down { .. } | State::Dialing(_) => None,
        }
    }

    /// Whether its last ping was missed, or the connection before it is not closed yet: libp2p would still take that.
    pub(super) fn is_doubtful(&self) -> bool {
        let is_doubted = match self.doubt {
            Doubt::None | Doubt::Dialing { is_over: true, .. } => false,
            Doubt::Begun | Doubt::Dialing { .. } | Doubt::Failed => true,
        };
        is_doubted || self.replaced.is_some()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.is_doubtful()
            && matches!(
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

    /// Whether something may be asked for on it now: it takes circuits and answers.
    pub(super) fn is_usable(&self) -> bool {
        self.takes_circuits() && !self.is_doubtful()
    }

    /// The relay has granted or renewed a reservation over it.
    pub(super) fn proved(&mut self) {
        if let State::Up { has_proved, .. } = &mut self.state {
            *has_proved = true;
            self.succeeded();
        }
    }

    fn succeeded(&mut self) {
        self.wanted_since = None;
        self.late = 0;
        self.vain = 0;
    }

    /// The leg was lost, or could not be dialed. `is_alone`: no other leg to the relay is up.
    ///
    /// A connection is no success: a relay that takes connections and closes them would be dialed at once, for ever.
    pub(super) fn down(&mut self, is_alone: bool, now: Instant, jitter: f64) {
        let is_vain = match self.state {
            State::Up {
                since, has_proved, ..
            } => {
                let was_good = has_proved || since + STABLE <= now;
                if was_good {
                    self.succeeded();
                }
                !was_good
            }
            State::Down { .. } | State::Dialing(_) => false,
        };
        let since = *self.wanted_since.get_or_insert(now);
        let wait = if is_vain {
            self.vain = self.vain.saturating_add(1);
            full_jitter(VAIN_MIN, RETRY_MAX, self.vain, jitter)
        } else if self.is_twin && !is_alone {
            backoff(BACKOFF_MIN, BACKOFF_MAX_TWIN, self.failures, jitter)
        } else if self.failures == 0 {
            full_jitter(LOST_MAX, LOST_MAX, 0, jitter)
        } else if now < since + LIKELY {
            backoff(BACKOFF_MIN, BACKOFF_MAX, self.failures, jitter)
        } else {
            self.late = self.late.saturating_add(1);
            let longest = (now.saturating_duration_since(since) / SHARE).clamp(LATE_MIN, RETRY_MAX);
            full_jitter(LATE_MIN, longest, self.late, jitter)
        };
        let hold = self.hold.take().map(|hold| {
            let spread = hold
                .min(HOLD_MAX)
                .mul_f64(1.5 - jitter.clamp(0.0, 1.0) / 2.0);
            spread.min(HOLD_MAX)
        });
        self.state = State::Down {
            retry_at: now + wait.max(hold.unwrap_or_default()),
        };
    }

    /// Its connection has missed a ping.
    pub(super) fn doubt(&mut self) {
        match &mut self.doubt {
            Doubt::None | Doubt::Failed => self.doubt = Doubt::Begun,
            Doubt::Dialing { is_over, .. } => *is_over = false,
            Doubt::Begun => {}
        }
    }

    /// Its connection has answered.
    pub(super) fn trust(&mut self) {
        match &mut self.doubt {
            Doubt::Dialing { is_over, .. } => *is_over = true,
            Doubt::None | Doubt::Begun | Doubt::Failed => self.doubt = Doubt::None,
        }
    }

    /// The dial alongside, which goes on alone once the connection is closed.
    pub(super) fn take_spare(&mut self) {
        if let Doubt::Dialing { connection, .. } = self.doubt {
            self.state = State::Dialing(connection);
        }
        self.doubt = Doubt::None;
    }

    /// Something has changed: it is dialed at once if it waits.
    pub(super) fn retry(&mut self, now: Instant) {
        if let State::Down { retry_at } = &mut self.state {
            *retry_at = now.min(*retry_at);
        }
    }
}
