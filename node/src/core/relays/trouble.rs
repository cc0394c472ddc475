//! Why a relay is of no use to this node now.

use std::fmt;

use libp2p::PeerId;

use super::RelayKeeper;
use crate::{config::RelayAddr, core::fault::Fault};

/// What is wrong with a relay. The text continues `relay ID ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It does not admit this node, in these words.
    Refused(String),
    /// No leg to it is up: of the faults the one that another dial may not have, and each reason once.
    Down(Fault, String),
    /// The last request for a reservation has failed, or the reservation has ended.
    Unreserved(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(words) => write!(f, "refused us: {words}"),
            Self::Down(_, reason) => write!(f, "is not connected: {reason}"),
            Self::Unreserved(reason) => write!(f, "gave no reservation: {reason}"),
        }
    }
}

impl RelayKeeper {
    /// A leg is down, for this reason: its dial failed, or its connection ended.
    pub(crate) fn handle_down_for(&mut self, relay: &RelayAddr, fault: Fault, reason: &str) {
        for leg in self.legs.iter_mut().filter(|leg| leg.relay == *relay) {
            leg.down_for = Some((fault, reason.to_owned()));
        }
    }

    /// Why no leg to this relay is up, each reason once. Of the faults the one that another dial may not have.
    pub(crate) fn down_for(&self, relay: &PeerId) -> Option<(Fault, String)> {
        let mut legs = self.legs.iter().filter(|leg| leg.relay.peer == *relay);
        if legs.clone().any(|leg| leg.connection().is_some()) {
            return None;
        }
        let first = legs.find_map(|leg| leg.down_for.clone())?;
        let more = legs.filter_map(|leg| leg.down_for.as_ref());
        Some(more.fold(first, |(fault, mut text), (other, reason)| {
            if !text.contains(reason.as_str()) {
                text = format!("{text}; {reason}");
            }
            (fault.max(*other), text)
        }))
    }

    /// Why this relay holds no reservation for this node, or why no connection to it is open, if that is known.
    pub(crate) fn trouble(&self, relay: &PeerId) -> Option<Trouble> {
        if let Some(words) = self.refusal(relay) {
            return Some(Trouble::Refused(words.to_owned()));
        }
        if let Some((fault, reason)) = self.down_for(relay) {
            return Some(Trouble::Down(fault, reason));
        }
        let failure = self.reservation_failure(relay)?;
        Some(Trouble::Unreserved(failure.to_owned()))
    }

    /// The same as a reason why the relay cannot be reached.
    pub(crate) fn absence(&self, relay: &PeerId) -> Option<String> {
        Some(match self.trouble(relay)? {
            Trouble::Refused(words) => format!("it refused us: {words}"),
            Trouble::Down(_, reason) => reason,
            Trouble::Unreserved(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Instant;

    use libp2p::{core::transport::ListenerId, swarm::ConnectionId};
    use p2pnode_transports::{Family, FamilyPolicy};

    use super::*;
    use crate::core::relays::Action;

    const WHY: &str = "because";

    /// A relay that is dialed, and then has this trouble. A trouble without a case does not compile.
    fn caused(trouble: &Trouble) -> (RelayKeeper, RelayAddr) {
        let relay = RelayAddr {
            peer: PeerId::random(),
            addr: "/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap(),
        };
        let (now, leg) = (Instant::now(), ConnectionId::new_unchecked(1));
        let mut keeper = RelayKeeper::new(std::slice::from_ref(&relay), 1, FamilyPolicy::Auto, now);
        keeper.handle_timeout(now);
        assert!(matches!(
            keeper.poll_action(),
            Some(Action::Dial { leg: 0, .. })
        ));
        keeper.handle_dialing(0, leg);
        if let Trouble::Down(fault, reason) = trouble {
            keeper.handle_dial_failed(leg, now, 0.5);
            keeper.handle_down_for(&relay, *fault, reason);
            return (keeper, relay);
        }
        keeper.handle_established(leg, now);
        keeper.handle_identified(leg, now);
        match trouble {
            Trouble::Down(..) => {}
            Trouble::Refused(words) => {
                keeper.handle_refused(relay.peer, leg, words, now, 0.5);
            }
            Trouble::Unreserved(reason) => {
                let listener = ListenerId::next();
                keeper.handle_timeout(now);
                keeper.handle_reserving(&relay, listener);
                keeper.handle_listener_closed(listener, now, 0.5);
                keeper.handle_unreserved(relay.peer, reason);
            }
        }
        (keeper, relay)
    }

    #[test]
    fn each_trouble_of_a_relay_has_a_case_and_ends_with_what_it_lacked() {
        for trouble in [
            Trouble::Refused(WHY.to_owned()),
            Trouble::Down(Fault::Local, WHY.to_owned()),
            Trouble::Down(Fault::Remote, WHY.to_owned()),
            Trouble::Unreserved(WHY.to_owned()),
        ] {
            let (mut keeper, relay) = caused(&trouble);
            let peer = relay.peer;
            assert_eq!(keeper.trouble(&peer), Some(trouble.clone()));
            // Its end.
            let (now, leg) = (Instant::now(), ConnectionId::new_unchecked(2));
            match trouble {
                Trouble::Refused(_) => continue,
                Trouble::Down(..) => {
                    keeper.handle_dialing(0, leg);
                    keeper.handle_established(leg, now);
                }
                Trouble::Unreserved(_) => {
                    let listener = ListenerId::next();
                    keeper.handle_reserving(&relay, listener);
                    keeper.handle_reserved(&peer, Family::Ip4);
                }
            }
            assert_eq!(keeper.trouble(&peer), None, "{trouble:?}");
        }
    }
}
