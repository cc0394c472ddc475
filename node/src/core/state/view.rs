//! What observers see of the state.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use libp2p::{Multiaddr, PeerId};
use p2pnode_transports::{Family, PortRange, Transport};

use super::NodeState;
#[cfg(test)]
use super::{Inquiries, Introductions, Joins, Liveness, Purpose};
use crate::{
    core::{
        admission::Recent, peers::PeerTable, port_search::SearchReport, reconnect::Lost,
        refusals::Refused, relays::RelayKeeper,
    },
    punch::Reason,
};

impl NodeState {
    /// Where another host uses the key of this node, as far as is known.
    pub(crate) fn key_elsewhere(&self) -> Option<SocketAddr> {
        self.own_key.other_host().map(|other| other.at)
    }

    /// Connections that were refused or ended early within the last minute.
    pub(crate) const fn turned_away(&self) -> &Recent {
        &self.turned_away
    }

    /// The node's own id.
    pub(crate) const fn local(&self) -> PeerId {
        self.local
    }

    /// The source ports that its packets leave from.
    pub(crate) const fn port_range(&self) -> PortRange {
        self.port_range
    }

    /// The open connections.
    pub(crate) const fn peers(&self) -> &PeerTable {
        &self.peers
    }

    /// The configured relays and the reservations on them.
    pub(crate) const fn relays(&self) -> &RelayKeeper {
        &self.relays
    }

    /// Where this node listens publicly.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Multiaddr> {
        self.addresses.public()
    }

    /// The punch port of each transport and family.
    pub(crate) const fn punch_ports(&self) -> &BTreeMap<(Transport, Family), u16> {
        self.addresses.punch_ports()
    }

    /// What is still under way, or remembered of what was, but the dials of legs: nothing once all is closed.
    #[cfg(test)]
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let is_leg = |purpose: &&Purpose| matches!(purpose, Purpose::Leg(_));
        let purposes = self.purposes.values().filter(|purpose| !is_leg(purpose));
        let mut leftovers: Vec<String> = purposes.map(|purpose| format!("{purpose:?}")).collect();
        leftovers.extend(self.registrations.keys().map(|id| format!("{id:?}")));
        leftovers.extend(self.lookups.values().map(|lookup| format!("{lookup:?}")));
        leftovers.extend(self.dials.iter().map(|dial| format!("{dial:?}")));
        let machines = [
            (
                format!("{:?}", self.inquiries),
                format!("{:?}", Inquiries::default()),
            ),
            (
                format!("{:?}", self.introductions),
                format!("{:?}", Introductions::default()),
            ),
            (
                format!("{:?}", self.liveness),
                format!("{:?}", Liveness::default()),
            ),
            (
                format!("{:?}", self.joins),
                format!("{:?}", Joins::<(Purpose, String)>::default()),
            ),
        ];
        let changed = machines.into_iter().filter(|(now, new)| now != new);
        leftovers.extend(changed.map(|(now, _)| now));
        leftovers
    }

    /// The peers that are wanted and have no path.
    pub(crate) fn lost(&self) -> impl Iterator<Item = Lost> + '_ {
        let lost = self.reconnector.lost();
        // The path of a peer that is searched may be doubtful only.
        lost.filter(|lost| self.peers.best(&lost.peer).is_none())
    }

    /// The peers that have refused the last dial that they took, and that are neither connected nor wanted.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&PeerId, &Refused)> {
        let is_known =
            |peer: &PeerId| self.peers.best(peer).is_some() || self.reconnector.is_wanted(peer);
        self.refusals
            .iter()
            .filter(move |(peer, _)| !is_known(peer))
    }

    /// How the last search for ports with a peer has ended.
    pub(crate) fn last_search(&self, peer: &PeerId) -> Option<SearchReport> {
        self.last_searches.get(peer).copied()
    }

    /// Why the punch of a peer was given up for now.
    pub(crate) fn gave_up_for(&self, peer: &PeerId) -> Option<Reason> {
        self.next_punches.get(peer).map(|(reason, _)| *reason)
    }

    /// The relays that records of peers name, are not configured, and are connected.
    pub(crate) fn connected_found_relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        let found = self.peers.peers().filter(|peer| self.is_found(peer));
        found.copied()
    }

    /// When a peer whose punch was given up for now is punched again.
    pub(crate) fn next_punch(&self, peer: &PeerId) -> Option<Instant> {
        self.next_punches.get(peer).and_then(|(_, next)| *next)
    }
}
