//! Who may use the relay: pure, with both clocks as arguments. The wall clock decides when a token ends, and may jump; the
//! monotonic one how long a peer has time to present one.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::join::{Refusal, Token, TokenId};

use crate::{config::Access, core::denial::DenialReason};

/// How long a connection may stay whose peer is not admitted: time to present a token, on a slow link as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Invalid tokens that a peer may present while it is connected: those that it has in its file, and then some. The relay does not
/// look at what comes after, and closes the connections of the peer.
const MAX_TRIES: u32 = 8;

/// Who is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    /// These, and all if there are neither these nor tokens.
    allow: HashSet<PeerId>,
    /// These always: the other relays.
    relays: HashSet<PeerId>,
    /// Whether tokens are good for anything.
    tokens: bool,
    revoked: HashSet<TokenId>,
}

/// What has become other between two rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference {
    /// Peers that `access.allow` names now and did not before.
    pub allowed: usize,
    /// Peers that it does not name any more.
    pub disallowed: usize,
    /// Tokens that are revoked now.
    pub revoked: usize,
    /// Tokens that are no longer revoked.
    pub restored: usize,
}

p2pnode_protocol::named! {
    /// Why a peer is not admitted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Refused {
        /// There are no tokens, and `access.allow` does not name it.
        NotAllowed,
        /// It has presented no token.
        NoToken,
        /// What it has presented is none.
        Malformed,
        /// The token is another relay's.
        OtherRelay,
        /// The token is for another peer.
        OtherPeer,
        /// The token's time is over.
        Expired,
        /// The token is revoked.
        Revoked,
        /// It has presented too many.
        TooOften,
    }
}

impl Refused {
    /// How the relay counts it.
    #[must_use]
    pub fn reason(self) -> DenialReason {
        match self {
            Self::NotAllowed => DenialReason::Access,
            Self::NoToken => DenialReason::NoToken,
            Self::Malformed | Self::TooOften => DenialReason::TokenMalformed,
            Self::OtherRelay | Self::OtherPeer => DenialReason::TokenForeign,
            Self::Expired => DenialReason::TokenExpired,
            Self::Revoked => DenialReason::TokenRevoked,
        }
    }

    /// What the peer is answered.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::NotAllowed => Refusal::NotAllowed,
            Self::NoToken => Refusal::NoToken,
            Self::Malformed => Refusal::Malformed,
            Self::OtherRelay => Refusal::OtherRelay,
            Self::OtherPeer => Refusal::OtherPeer,
            Self::Expired => Refusal::Expired,
            Self::Revoked => Refusal::Revoked,
            Self::TooOften => Refusal::TooOften,
        }
    }
}

impl Rules {
    /// Those of `access`, for a relay that knows these others, which need no second mention.
    pub(crate) fn new(access: &Access, relays: impl IntoIterator<Item = PeerId>) -> Self {
        Self {
            allow: access.allow.iter().copied().collect(),
            relays: relays.into_iter().collect(),
            tokens: access.tokens,
            revoked: access.revoked.iter().copied().collect(),
        }
    }

    /// Those of `access`, for the same relay.
    pub(crate) fn renewed(&self, access: &Access) -> Self {
        Self::new(access, self.relays.iter().copied())
    }

    /// Whether anybody is admitted.
    pub(crate) fn are_open(&self) -> bool {
        self.allow.is_empty() && !self.tokens
    }

    /// Whether tokens are good for anything.
    pub(crate) fn take_tokens(&self) -> bool {
        self.tokens
    }

    /// How many peers `access.allow` names.
    pub(crate) fn allowed(&self) -> usize {
        self.allow.len()
    }

    /// How many tokens are revoked.
    pub(crate) fn revoked(&self) -> usize {
        self.revoked.len()
    }

    /// What is other in `new`.
    pub(crate) fn difference(&self, new: &Self) -> Difference {
        Difference {
            allowed: new.allow.difference(&self.allow).count(),
            disallowed: self.allow.difference(&new.allow).count(),
            revoked: new.revoked.difference(&self.revoked).count(),
            restored: self.revoked.difference(&new.revoked).count(),
        }
    }

    fn admit_by_id(&self, peer: &PeerId) -> bool {
        self.are_open() || self.allow.contains(peer) || self.relays.contains(peer)
    }

    fn judge(&self, claim: &Claim, now: SystemTime) -> Result<(), Refused> {
        if claim.expires <= now {
            Err(Refused::Expired)
        } else if self.revoked.contains(&claim.id) {
            Err(Refused::Revoked)
        } else {
            Ok(())
        }
    }
}

/// A token that was presented and was good then.
#[derive(Debug, Clone, Copy)]
struct Claim {
    id: TokenId,
    expires: SystemTime,
}

/// A peer that is connected.
#[derive(Debug, Default)]
struct Known {
    /// Its connections, and since when each may wait to be admitted.
    connections: HashMap<ConnectionId, Instant>,
    claim: Option<Claim>,
    /// Invalid tokens that it has presented.
    tries: u32,
}

/// The rules, and the peers that are connected.
#[derive(Debug)]
pub(crate) struct Admission {
    local: PeerId,
    rules: Rules,
    peers: HashMap<PeerId, Known>,
}

impl Admission {
    /// Nobody is connected yet to the relay `local`.
    pub(crate) fn new(local: PeerId, rules: Rules) -> Self {
        Self {
            local,
            rules,
            peers: HashMap::new(),
        }
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether a connection with `peer` may stay for now. Where there are tokens it may: it has one, perhaps.
    pub(crate) fn may_connect(&self, peer: &PeerId) -> Result<(), Refused> {
        if self.rules.tokens || self.rules.admit_by_id(peer) {
            Ok(())
        } else {
            Err(Refused::NotAllowed)
        }
    }

    /// Whether `peer` may reserve, call, ask and register at `now`.
    pub(crate) fn admitted(&self, peer: &PeerId, now: SystemTime) -> Result<(), Refused> {
        if self.rules.admit_by_id(peer) {
            return Ok(());
        }
        if !self.rules.tokens {
            return Err(Refused::NotAllowed);
        }
        let claim = self.peers.get(peer).and_then(|known| known.claim.as_ref());
        claim.map_or(Err(Refused::NoToken), |claim| self.rules.judge(claim, now))
    }

    /// A connection with `peer` is open.
    pub(crate) fn opened(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        let known = self.peers.entry(peer).or_default();
        known.connections.insert(connection, now);
    }

    /// A connection with `peer` is closed. With the last of them what it has presented is forgotten.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.connections.remove(&connection);
            if known.connections.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// `peer`, which is connected, presents a token, or only itself. Until when it is admitted, if that has an end.
    ///
    /// A token that is refused takes nothing from the peer that it had before.
    pub(crate) fn present(
        &mut self,
        peer: PeerId,
        token: Option<&str>,
        now: SystemTime,
    ) -> Result<Option<SystemTime>, Refused> {
        if self.rules.admit_by_id(&peer) {
            return Ok(None);
        }
        if !self.rules.tokens {
            return Err(Refused::NotAllowed);
        }
        let Some(known) = self.peers.get_mut(&peer) else {
            return Err(Refused::NoToken);
        };
        // Verifying a signature is what costs the relay most of all that a stranger can ask for.
        if known.tries >= MAX_TRIES {
            return Err(Refused::TooOften);
        }
        let presented = judge(&self.rules, self.local, peer, token, now);
        match presented {
            Ok(claim) => {
                known.claim = Some(claim);
                known.tries = 0;
                Ok(Some(claim.expires))
            }
            Err(refused) => {
                known.tries += 1;
                Err(refused)
            }
        }
    }

    /// From now on other rules hold. The peers that are connected and were admitted, and are not any more.
    pub(crate) fn set(&mut self, rules: Rules, now: SystemTime) -> Vec<(PeerId, Refused)> {
        let before: Vec<PeerId> = self
            .peers
            .keys()
            .filter(|peer| self.admitted(peer, now).is_ok())
            .copied()
            .collect();
        self.rules = rules;
        let ended = |peer: PeerId| self.admitted(&peer, now).err().map(|why| (peer, why));
        before.into_iter().filter_map(ended).collect()
    }

    /// The peers whose token has ended by `now`. Each is returned once: what it had presented is forgotten, also if the clock is set
    /// back later.
    pub(crate) fn expire(&mut self, now: SystemTime) -> Vec<PeerId> {
        let mut expired = Vec::new();
        for (peer, known) in &mut self.peers {
            let over = known.claim.take_if(|claim| claim.expires <= now);
            if over.is_some() && !self.rules.admit_by_id(peer) {
                expired.push(*peer);
            }
        }
        expired
    }

    /// The connections whose peers are not admitted and have had their time or their tries.
    pub(crate) fn overdue(&self, now: SystemTime, at: Instant) -> Vec<(PeerId, ConnectionId)> {
        if self.rules.are_open() {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        for (peer, known) in &self.peers {
            if self.admitted(peer, now).is_ok() {
                continue;
            }
            let late = |since: &Instant| {
                known.tries >= MAX_TRIES || at.saturating_duration_since(*since) >= PATIENCE
            };
            let connections = known.connections.iter();
            overdue.extend(
                connections
                    .filter(|(_, since)| late(since))
                    .map(|(id, _)| (*peer, *id)),
            );
        }
        overdue
    }

    /// Whether anybody is connected.
    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// How many peers are connected that a token admits.
    pub(crate) fn by_token(&self, now: SystemTime) -> usize {
        let claims = self.peers.values().filter_map(|known| known.claim.as_ref());
        claims
            .filter(|claim| self.rules.judge(claim, now).is_ok())
            .count()
    }

    /// How many peers are connected that are not admitted.
    pub(crate) fn waiting(&self, now: SystemTime) -> usize {
        let peers = self.peers.keys();
        peers
            .filter(|peer| self.admitted(peer, now).is_err())
            .count()
    }
}

/// What `token` is worth when `peer` presents it to the relay `local`.
fn judge(
    rules: &Rules,
    local: PeerId,
    peer: PeerId,
    token: Option<&str>,
    now: SystemTime,
) -> Result<Claim, Refused> {
    let token = Token::read(token.ok_or(Refused::NoToken)?).map_err(|_| Refused::Malformed)?;
    if token.relay != local {
        return Err(Refused::OtherRelay);
    }
    if token.peer != peer {
        return Err(Refused::OtherPeer);
    }
    let claim = Claim {
        id: token.id,
        expires: token.expires,
    };
    rules.judge(&claim, now).map(|()| claim)
}

#[cfg(test)]
mod tests;
