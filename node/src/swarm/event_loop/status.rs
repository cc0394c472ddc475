//! The node's state, for those who ask.

use std::time::{Duration, Instant};

use libp2p::{PeerId, multiaddr::Protocol, swarm::ConnectionId};

use super::EventLoop;
use crate::{
    core::peers::Score,
    observe::status::{PathStatus, PeerStatus, PunchStatus, RelayStatus, Scored, Status, Why},
};

impl EventLoop {
    pub(super) fn status(&self) -> Status {
        let now = Instant::now();
        let listen = self
            .swarm
            .listeners()
            .filter(|address| !address.iter().any(|part| part == Protocol::P2pCircuit));
        let mut peers: Vec<PeerStatus> = self
            .peers
            .peers()
            .filter(|peer| !self.is_relay(peer))
            .filter_map(|peer| self.peer_status(peer, now))
            .collect();
        peers.sort_by(|a, b| a.peer.cmp(&b.peer));
        Status {
            peer_id: self.swarm.local_peer_id().to_string(),
            listen: listen.map(ToString::to_string).collect(),
            port_range: self.sockets.range().to_string(),
            punch_ports: self
                .sockets
                .punch_ports()
                .iter()
                .map(|((transport, family), port)| (format!("{transport}/{family}"), *port))
                .collect(),
            relays: self
                .relays
                .relays()
                .map(|relay| self.relay_status(&relay, now))
                .collect(),
            peers,
        }
    }

    pub(super) fn why(&self, peer: &PeerId) -> Option<Why> {
        let now = Instant::now();
        let ranked = self.peers.ranked(peer);
        if ranked.is_empty() {
            return None;
        }
        let decided_by = match &ranked[..] {
            // The path in use stays although another has a better score now, as long as that is not much better.
            [(first, _), (second, _), ..] if first > second => Some("kept".to_owned()),
            [(first, _), (second, _), ..] => first.decided_by(second).map(|axis| axis.to_string()),
            _ => None,
        };
        let candidates = ranked
            .iter()
            .filter_map(|(score, id)| {
                Some(Scored {
                    path: self.path_status(*id, now)?,
                    score: axes(score),
                })
            })
            .collect();
        Some(Why {
            peer: peer.to_string(),
            candidates,
            decided_by,
            last_punch: self.last_punch(peer),
        })
    }

    fn peer_status(&self, peer: &PeerId, now: Instant) -> Option<PeerStatus> {
        let paths = self.paths(peer, now);
        let next_punch = self.next_punches.get(peer).copied().flatten();
        Some(PeerStatus {
            peer: peer.to_string(),
            path: paths.first()?.clone(),
            paths,
            last_punch: self.last_punch(peer),
            next_punch_s: next_punch.map(|at| at.saturating_duration_since(now).as_secs()),
        })
    }

    fn relay_status(&self, relay: &PeerId, now: Instant) -> RelayStatus {
        let paths = self.paths(relay, now);
        RelayStatus {
            relay: relay.to_string(),
            connected: !paths.is_empty(),
            reserved: self.relays.holds(relay),
            reserved_families: self
                .relays
                .families(relay)
                .map(|family| family.to_string())
                .collect(),
            refused: self.relays.refusal(relay).map(str::to_owned),
            // libp2p's relay client knows the end of a reservation and does not tell it.
            expires_s: None,
            paths,
        }
    }

    fn paths(&self, peer: &PeerId, now: Instant) -> Vec<PathStatus> {
        self.peers
            .ranked(peer)
            .iter()
            .filter_map(|(_, id)| self.path_status(*id, now))
            .collect()
    }

    fn path_status(&self, id: ConnectionId, now: Instant) -> Option<PathStatus> {
        let connection = self.peers.connection(id)?;
        Some(PathStatus::new(
            &self.peers.path(id)?,
            connection.rtt,
            now.saturating_duration_since(connection.since),
        ))
    }

    fn last_punch(&self, peer: &PeerId) -> Option<PunchStatus> {
        self.swarm
            .behaviour()
            .punch
            .last_record(peer)
            .map(PunchStatus::from)
    }
}

/// The axes of a score by name.
fn axes(score: &Score) -> Vec<(String, String)> {
    let rtt = match u32::try_from(score.rtt_steps) {
        Ok(steps) => format!("{} ms", (Score::RTT_STEP * steps).as_millis()),
        Err(_) => "unknown".to_owned(),
    };
    let family = match score.family {
        u8::MAX => "unknown".to_owned(),
        rank => format!("rank {rank}"),
    };
    [
        ("kind", score.kind.to_string()),
        (
            "crossed",
            if score.crossed { "yes" } else { "no" }.to_owned(),
        ),
        ("family", family),
        ("rtt", rtt),
        ("age", age(score.since.elapsed())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn age(since: Duration) -> String {
    format!("{} s", since.as_secs())
}
