//! Dials: their packets, the NATs that these meet, and the connections that come of them.

use std::time::Duration;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Transport};

use super::{
    Program, World,
    connection::{End, Pings, Route},
};
use crate::{
    core::{
        dialer::{CircuitFailure, Fault},
        liveness::Ended,
        state::{AnsweredBy, DialFailure},
    },
    punch::{CandidateOutcome, address::Candidate},
};

/// When a dial sends its first packet, and when again.
const QUIC_PACKETS: [u64; 3] = [0, 1000, 3000];
const TCP_PACKETS: [u64; 4] = [0, 1000, 3000, 7000];

/// A dial: it goes to all of its addresses at once, and to one that answers.
pub(super) struct Attempt {
    pub(super) host: usize,
    peer: PeerId,
    open: Vec<Candidate>,
    /// Where a handshake is under way.
    accepted: Vec<Candidate>,
    failures: Vec<(Candidate, Failure)>,
}

/// Why one address failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Timeout,
    Refused,
    Unreachable,
    /// Another peer is there.
    Other(PeerId),
}

impl Failure {
    pub(super) fn outcome(self) -> CandidateOutcome {
        match self {
            Self::Timeout => CandidateOutcome::Timeout,
            Self::Refused => CandidateOutcome::Refused,
            Self::Unreachable => CandidateOutcome::Unreachable,
            Self::Other(_) => CandidateOutcome::Failed,
        }
    }
}

impl World {
    /// Dials a peer at these addresses at once.
    pub(super) fn begin_dial(
        &mut self,
        host: usize,
        id: ConnectionId,
        peer: PeerId,
        open: Vec<Candidate>,
    ) {
        let addresses = open.clone();
        let attempt = Attempt {
            host,
            peer,
            open,
            accepted: Vec::new(),
            failures: Vec::new(),
        };
        self.attempts.insert(id, attempt);
        for to in addresses {
            if !self.hosts[host].sites.contains_key(&to.family()) {
                self.fail_after(Duration::ZERO, id, to, Failure::Unreachable);
                continue;
            }
            let (packets, patience) = match to.transport {
                Transport::Quic => (&QUIC_PACKETS[..], 5),
                Transport::Tcp => (&TCP_PACKETS[..], 10),
            };
            for at in packets {
                self.after(Duration::from_millis(*at), move |world| {
                    world.packet(id, to)
                });
            }
            self.fail_after(Duration::from_secs(patience), id, to, Failure::Timeout);
        }
    }

    fn fail_after(&mut self, delay: Duration, dial: ConnectionId, at: Candidate, why: Failure) {
        self.after(delay, move |world| world.address_failed(dial, at, why));
    }

    /// A dial sends its first packet to an address, or sends it again.
    fn packet(&mut self, dial: ConnectionId, to: Candidate) {
        let Some(attempt) = self.attempts.get(&dial) else {
            return;
        };
        if !attempt.open.contains(&to) || attempt.accepted.contains(&to) {
            return;
        }
        let host = attempt.host;
        let port = self.hosts[host].dials_from.unwrap_or(self.hosts[host].port);
        let site = self.hosts[host].sites.get_mut(&to.family()).unwrap();
        let from = site.outbound(to.transport, port, to.socket);
        let is_there = |site: &super::Site| site.outside == to.socket.ip();
        let mut hosts = self.hosts.iter();
        let target = hosts.position(|other| other.sites.values().any(is_there));
        let Some(target) = target.filter(|target| *target != host) else {
            return;
        };
        let is_dark = self.network.is_dark(to.family());
        if is_dark || self.network.is_cut(host, target) || self.network.loses() {
            return;
        }
        let base = self.one_way(host, target, to.family());
        let delay = self.network.spread(base);
        self.after(delay, move |world| world.arrive(dial, target, from, to));
    }

    /// How long a packet takes between two hosts.
    pub(super) fn one_way(&self, a: usize, b: usize, family: Family) -> Duration {
        let slow = self.network.slow.get(&family).copied();
        self.hosts[a].delay + self.hosts[b].delay + slow.unwrap_or_default()
    }

    /// A packet arrives at the address of a host.
    fn arrive(&mut self, dial: ConnectionId, target: usize, from: Candidate, to: Candidate) {
        let host = &self.hosts[target];
        let site = &host.sites[&to.family()];
        let is_open = site.is_open();
        let port = site.inbound(to.transport, to.socket.port(), from.socket);
        let listens = !matches!(host.program, Program::Off) && port == Some(host.port);
        if listens {
            self.accept(dial, target, from, to);
        } else if is_open && to.transport == Transport::Tcp {
            let back = self.network.spread(host.delay);
            self.fail_after(back, dial, to, Failure::Refused);
        }
    }

    /// A program takes the first packet of a dial.
    fn accept(&mut self, dial: ConnectionId, target: usize, from: Candidate, to: Candidate) {
        let here = self.hosts[target].peer;
        let Some(host) = self.attempts.get(&dial).map(|attempt| attempt.host) else {
            return;
        };
        let base = self.one_way(host, target, to.family());
        let (back, there) = (self.network.stream(base), self.network.stream(base * 2));
        let attempt = self.attempts.get_mut(&dial).unwrap();
        if attempt.accepted.contains(&to) {
            return;
        }
        if attempt.peer != here {
            return self.fail_after(back, dial, to, Failure::Other(here));
        }
        attempt.accepted.push(to);
        let peer = self.hosts[host].peer;
        let id = self.connection_id();
        let site = &self.hosts[target].sites[&to.family()];
        let local = Candidate {
            transport: to.transport,
            socket: (site.inside, self.hosts[target].port).into(),
        };
        if self.relay_refuses(target, peer, id, from) {
            return self.fail_after(back, dial, to, Failure::Refused);
        }
        let accepted = End {
            host: target,
            peer,
            far_host: host,
            far: dial,
            route: Route::Direct {
                local,
                remote: from,
            },
            dialed: false,
            pings: Pings::default(),
        };
        self.opening.insert(id, (target, false));
        self.after(there, move |world| world.open(id, accepted));
        self.after(back, move |world| world.connected(dial, to, id, target));
    }

    /// The handshake with an address of a dial is over at the side of the dialer.
    fn connected(&mut self, dial: ConnectionId, to: Candidate, far: ConnectionId, target: usize) {
        let is_first = self
            .attempts
            .get(&dial)
            .is_some_and(|at| at.open.contains(&to));
        if !is_first {
            // Another address has won, or the dialer is gone: this connection ends as soon as it is there.
            let later = Duration::from_millis(200);
            return self.after(later, move |world| {
                if world.ends.get(&dial).is_none_or(|end| end.far != far) {
                    world.lose(far, Ended::Theirs);
                }
            });
        }
        let attempt = self.attempts.remove(&dial).unwrap();
        let host = &self.hosts[attempt.host];
        let local = Candidate {
            transport: to.transport,
            socket: (
                host.sites[&to.family()].inside,
                host.dials_from.unwrap_or(host.port),
            )
                .into(),
        };
        let end = End {
            host: attempt.host,
            peer: attempt.peer,
            far_host: target,
            far,
            route: Route::Direct { local, remote: to },
            dialed: true,
            pings: Pings::default(),
        };
        self.opening.insert(dial, (attempt.host, false));
        self.open(dial, end);
    }

    fn address_failed(&mut self, dial: ConnectionId, at: Candidate, why: Failure) {
        let Some(attempt) = self.attempts.get_mut(&dial) else {
            return;
        };
        if !attempt.open.contains(&at) {
            return;
        }
        attempt.open.retain(|open| *open != at);
        attempt.failures.push((at, why));
        if attempt.open.is_empty() {
            let Attempt {
                host,
                peer,
                failures,
                ..
            } = self.attempts.remove(&dial).unwrap();
            self.dial_failed(host, peer, dial, &failures);
        }
    }

    fn dial_failed(
        &mut self,
        host: usize,
        peer: PeerId,
        dial: ConnectionId,
        failures: &[(Candidate, Failure)],
    ) {
        let reasons: Vec<String> = failures
            .iter()
            .map(|(at, why)| format!("{at}: {why:?}"))
            .collect();
        let reason = reasons.join("; ");
        self.note(host, &format!("dial {dial} has failed: {reason}"));
        let now = self.network.now;
        let answered_by = failures.iter().find_map(|(_, why)| match why {
            Failure::Other(other) => Some(AnsweredBy::Other(*other)),
            Failure::Timeout | Failure::Refused | Failure::Unreachable => None,
        });
        if matches!(self.hosts[host].program, Program::Relay(_)) {
            return self.relay_dial_failed(host, peer, reason);
        }
        self.punch_dial_failed(host, dial, failures);
        if let Some(node) = self.hosts[host].node() {
            let failure = DialFailure {
                reason,
                answered_by,
                circuit: CircuitFailure::Broken,
                fault: match answered_by {
                    Some(_) => Fault::Address,
                    None => Fault::Remote,
                },
            };
            node.state.handle_dial_failed(dial, failure, now);
        }
    }
}
