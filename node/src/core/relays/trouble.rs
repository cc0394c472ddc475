//! Why a relay is of no use to this node now.

use libp2p::PeerId;

use super::RelayKeeper;
use crate::{config::RelayAddr, core::dialer::Fault};

impl RelayKeeper {
    /// A leg is down, for this reason: its dial failed, or its connection ended.
    pub(crate) fn handle_down_for(&mut self, relay: &RelayAddr, fault: Fault, reason: &str) {
        for leg in self.legs.iter_mut().filter(|leg| leg.relay == *relay) {
            leg.down_for = Some((fault, reason.to_owned()));
        }
    }

    /// The relay has given no reservation, for this reason.
    pub(crate) fn handle_ungranted(&mut self, relay: PeerId, reason: &str) {
        self.ungranted.insert(relay, reason.to_owned());
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
    pub(crate) fn trouble(&self, relay: &PeerId) -> Option<String> {
        if let Some(refusal) = self.refusal(relay) {
            return Some(format!("refused us: {refusal}"));
        }
        if let Some((_, reason)) = self.down_for(relay) {
            return Some(reason);
        }
        let ungranted = self.ungranted.get(relay).filter(|_| !self.holds(relay))?;
        Some(format!("gave no reservation: {ungranted}"))
    }
}
