//! The node's state, for those who ask.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use tokio::sync::watch;

use super::status::{
    AddressStatus, ExposeStatus, ForwardStatus, LostStatus, MappingStatus, PathStatus, PeerStatus,
    PunchStatus, RefusedStatus, RelayStatus, Scored, ServiceStatus, SessionStatus, Status,
    TurnedAwayStatus, Why,
};
use crate::{
    config::Names,
    core::{
        peers::{Axis, PathKind, Score},
        state::NodeState,
    },
    punch,
};

/// The state at one moment.
pub(crate) struct Snapshot<'a> {
    /// What the node knows.
    pub(crate) state: &'a NodeState,
    /// The peers that have a name.
    pub(crate) names: watch::Ref<'a, Names>,
    /// What is known of punches.
    pub(crate) punches: &'a punch::Behaviour,
    /// Services, forwards and sessions.
    pub(crate) served: Served,
    /// The ports that lead to targets.
    pub(crate) exposed: Vec<ExposeStatus>,
    /// The moment.
    pub(crate) now: Instant,
}

/// Services, forwards and sessions at one moment.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// What this node offers.
    pub(crate) services: Vec<ServiceStatus>,
    /// What it brings here.
    pub(crate) forwards: Vec<ForwardStatus>,
    /// The sessions, if they were asked for.
    pub(crate) sessions: Option<Vec<SessionStatus>>,
    /// The addresses that stand for peers.
    pub(crate) addresses: Vec<AddressStatus>,
}

impl Snapshot<'_> {
    /// The whole node.
    pub(crate) fn status(self) -> Status {
        let (state, relays) = (self.state, self.state.relays());
        let mut peers: Vec<PeerStatus> = state
            .peers()
            .peers()
            .filter(|peer| !state.is_relay(peer))
            .filter_map(|peer| self.peer_status(peer))
            .collect();
        peers.sort_by_cached_key(|peer| peer.peer.to_string());
        let mappings = self.mappings();
        Status {
            peer_id: state.local(),
            key_also_at: state.key_elsewhere(),
            turned_away: self.turned_away(),
            listen: state.listeners().cloned().collect(),
            port_range: state.port_range(),
            punch_ports: state.punch_ports().clone(),
            mappings,
            exposed: self.exposed.clone(),
            relays: relays
                .relays()
                .chain(state.connected_found_relays())
                .map(|relay| self.relay_status(&relay))
                .collect(),
            peers,
            lost: self.lost(),
            refused: self.refused(),
            names: self
                .names
                .iter()
                .map(|(name, peer)| (name.clone(), peer.to_string()))
                .collect(),
            services: self.served.services,
            forwards: self.served.forwards,
            sessions: self.served.sessions,
            addresses: self.served.addresses,
        }
    }

    fn turned_away(&self) -> Vec<TurnedAwayStatus> {
        let runs = self.state.turned_away().runs(self.now);
        runs.map(|(refused, run)| TurnedAwayStatus {
            reason: refused.as_str().to_owned(),
            count: run.count,
            last: self.now.saturating_duration_since(run.last),
        })
        .collect()
    }

    fn mappings(&self) -> Vec<MappingStatus> {
        self.state
            .claims()
            .iter()
            .map(|claim| MappingStatus::new(claim, &self.exposed))
            .collect()
    }

    fn lost(&self) -> Vec<LostStatus> {
        let lost = self.state.lost();
        lost.map(|lost| LostStatus {
            peer: lost.peer,
            name: self.name(&lost.peer),
            refuses: lost.refuses,
            since: self.now.saturating_duration_since(lost.since),
            paused: lost.pause,
            next_dial: lost.next.map(|at| at.saturating_duration_since(self.now)),
        })
        .collect()
    }

    fn refused(&self) -> Vec<RefusedStatus> {
        let refused = self.state.refusals();
        refused
            .map(|(peer, refused)| RefusedStatus {
                peer: *peer,
                name: self.name(peer),
                since: self.now.saturating_duration_since(refused.at),
                reason: refused.reason.clone(),
            })
            .collect()
    }

    /// Why the path of `peer` is what it is; `None` if it is not connected.
    pub(crate) fn why(self, peer: &PeerId) -> Option<Why> {
        let peers = self.state.peers();
        let ranked = peers.ranked(peer);
        if ranked.is_empty() {
            return None;
        }
        let candidates = ranked
            .iter()
            .filter_map(|(score, id)| {
                Some(Scored {
                    path: self.path_status(*id)?,
                    score: self.axes(score),
                })
            })
            .collect();
        let best = peers.best(peer).and_then(|id| peers.path(id));
        let mappings = self.mappings();
        let reason = self.not_direct(peer);
        Some(Why {
            peer: *peer,
            name: self.name(peer),
            candidates,
            decided_by: peers.decided_by(peer),
            last_punch: self.last_punch(peer),
            last_search: self.state.last_search(peer),
            reason,
            sessions: self.served.sessions.unwrap_or_default(),
            finding: best.and_then(|path| self.state.finding(&path, reason)),
            mappings,
        })
    }

    /// Why a peer that is relayed was given up for now.
    fn not_direct(&self, peer: &PeerId) -> Option<punch::Reason> {
        let best = self.state.peers().best(peer)?;
        let is_relayed = self.state.peers().kind(best) == Some(PathKind::Relayed);
        self.state.gave_up_for(peer).filter(|_| is_relayed)
    }

    fn name(&self, peer: &PeerId) -> Option<String> {
        self.names.of(peer).map(str::to_owned)
    }

    fn peer_status(&self, peer: &PeerId) -> Option<PeerStatus> {
        let paths = self.paths(peer);
        let next_punch = self.state.next_punch(peer);
        Some(PeerStatus {
            peer: *peer,
            name: self.name(peer),
            path: paths.first()?.clone(),
            paths,
            last_punch: self.last_punch(peer),
            next_punch: next_punch.map(|at| at.saturating_duration_since(self.now)),
            reason: self.not_direct(peer),
        })
    }

    fn relay_status(&self, relay: &PeerId) -> RelayStatus {
        let (relays, paths) = (self.state.relays(), self.paths(relay));
        RelayStatus {
            relay: *relay,
            name: self.name(relay),
            found: !relays.is_configured(relay),
            connected: !paths.is_empty(),
            reserved: relays.holds(relay),
            reserved_families: relays.families(relay).collect(),
            refused: relays.refusal(relay).map(str::to_owned),
            reason: relays.down_for(relay).map(|(_, reason)| reason),
            unreserved: relays.reservation_failure(relay).map(str::to_owned),
            // libp2p's relay client knows the end of a reservation and does not report it.
            expires: None,
            hidden_at: self.state.hidden_at(relay),
            paths,
        }
    }

    fn paths(&self, peer: &PeerId) -> Vec<PathStatus> {
        let ranked = self.state.peers().ranked(peer);
        ranked
            .iter()
            .filter_map(|(_, id)| self.path_status(*id))
            .collect()
    }

    fn path_status(&self, id: ConnectionId) -> Option<PathStatus> {
        let peers = self.state.peers();
        let connection = peers.connection(id)?;
        let age = self.now.saturating_duration_since(connection.since);
        Some(PathStatus {
            path: peers.path(id)?,
            rtt: connection.rtt,
            since: age,
        })
    }

    fn last_punch(&self, peer: &PeerId) -> Option<PunchStatus> {
        self.punches.last_record(peer).map(PunchStatus::from)
    }

    /// The axes of a score by name.
    fn axes(&self, score: &Score) -> Vec<(Axis, String)> {
        let rtt = match u32::try_from(score.rtt_steps) {
            Ok(steps) => format!("{} ms", (Score::RTT_STEP * steps).as_millis()),
            Err(_) => "unknown".to_owned(),
        };
        let family = match score.family {
            u8::MAX => "unknown".to_owned(),
            rank => format!("rank {rank}"),
        };
        let bridges = if score.bridges_families { "yes" } else { "no" };
        let age = self.now.saturating_duration_since(score.since);
        [
            (Axis::Kind, score.kind.to_string()),
            (Axis::BridgesFamilies, bridges.to_owned()),
            (Axis::Family, family),
            (Axis::Rtt, rtt),
            (Axis::Age, seconds(age)),
        ]
        .to_vec()
    }
}

fn seconds(since: Duration) -> String {
    format!("{} s", since.as_secs())
}
