//! One search: what is sent, until a probe names the pair of sockets.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pnode_protocol::port_search::{Key, Kind, PROBE, Part, Ports, Probe};

use super::{
    budget::Budget,
    pairs::{Hop, Pairs},
    plan::{Does, Plan, nth_after},
};

/// When the openings are repeated: once soon, since the first may not have passed this side's second NAT, then as often as
/// keeps a mapping.
const SOON: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(10);

/// A small space is searched again after this.
const REST: Duration = Duration::from_millis(500);

/// How much later the probes begin than the search, for an opening to be there: of the side that answers, whose word is under way.
const LATER: Duration = Duration::from_millis(300);
const SOONER: Duration = Duration::from_millis(50);
const PER_SOCKET: Duration = Duration::from_millis(2);

/// How often the choice is sent: at once, as it must not be lost.
const CHOSEN: u32 = 3;

/// Answers to probes: one for each that arrives, and no more than so many.
const ANSWERS: u32 = 64;

/// How far a side guesses that a sequential NAT has moved on.
const AHEAD: u32 = 16;

/// A socket of this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Socket {
    /// The punch socket of QUIC.
    Punch,
    /// One that was opened for the search.
    Opened(u16),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this.
    Send {
        from: Socket,
        to: SocketAddr,
        hop: Hop,
        probe: [u8; PROBE],
    },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Packets go both ways between these.
    Found { socket: Socket, remote: SocketAddr },
    /// The series is over.
    NotFound,
}

/// What was sent and what has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u32,
    pub(crate) received: u32,
    /// Forged, reflected and replayed probes, and those from other addresses.
    pub(crate) ignored: u32,
}

/// A search.
#[derive(Debug)]
pub(crate) struct Search {
    plan: Plan,
    key: Key,
    part: Part,
    rng: fastrand::Rng,
    ends: Instant,
    budget: Budget,
    openings: Openings,
    probes: Probes,
    pairs: Pairs,
    seq: u32,
    seen: HashSet<u32>,
    answers: u32,
    /// The pairs of which a probe came, for the side that does not choose.
    answered: HashSet<(Socket, SocketAddr)>,
    counts: Counts,
    ended: Option<Ended>,
    actions: VecDeque<Action>,
    event: Option<Ended>,
}

/// The openings of a hard side: one from each socket, again and again.
#[derive(Debug)]
struct Openings {
    next: u16,
    round: u32,
    due: Instant,
}

/// The probes of the remote's ports.
#[derive(Debug)]
struct Probes {
    ports: Vec<u16>,
    /// How many of `ports` this pass has done; of two hard sides how many were sent.
    done: usize,
    due: Instant,
}

impl Search {
    /// Begins.
    pub(crate) fn new(plan: Plan, key: Key, part: Part, seed: u64, now: Instant) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ports = plan.ports();
        rng.shuffle(&mut ports);
        let lead = match (plan.does, part) {
            (Does::Opens | Does::Both | Does::Pairs, _) => Duration::ZERO,
            (Does::Probes, Part::Answerer) => LATER + PER_SOCKET * plan.opened,
            (Does::Probes, Part::Asker) => SOONER + PER_SOCKET * plan.opened,
        };
        Self {
            ends: now + plan.lasts + lead,
            budget: Budget::new(plan.packets, plan.most_outstanding),
            openings: Openings {
                next: 0,
                round: 0,
                due: now,
            },
            probes: Probes {
                ports,
                done: 0,
                due: now + lead,
            },
            pairs: Pairs::new(plan.pairs.len(), part, now),
            plan,
            key,
            part,
            rng,
            seq: 0,
            seen: HashSet::new(),
            answers: 0,
            answered: HashSet::new(),
            counts: Counts::default(),
            ended: None,
            actions: VecDeque::new(),
            event: None,
        }
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Ended> {
        self.event.take()
    }

    #[cfg(test)]
    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.ended.is_some() {
            return None;
        }
        let mine = match self.plan.does {
            Does::Opens => self.openings.due,
            Does::Probes | Does::Both => self.probes.due,
            Does::Pairs => self.pairs.poll_timeout().unwrap_or(self.ends),
        };
        let next = self.budget.after(mine).unwrap_or(self.ends);
        Some(next.min(self.ends))
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        if now >= self.ends {
            return self.end(Ended::NotFound);
        }
        let most = self.budget.now(now);
        let sent = match self.plan.does {
            Does::Opens => self.open(most, now),
            Does::Probes => self.probe(most, now),
            Does::Both => self.pair(most, now),
            Does::Pairs if most > 0 => self.known_pairs(now),
            Does::Pairs => 0,
        };
        self.budget.spend(sent, now);
    }

    /// A datagram has come to one of the search's sockets.
    pub(crate) fn handle_datagram(&mut self, socket: Socket, from: SocketAddr, bytes: &[u8]) {
        if self.ended.is_some() {
            return;
        }
        let is_theirs = if self.plan.does == Does::Opens {
            from == self.plan.remote
        } else {
            from.ip() == self.plan.remote.ip()
        };
        let probe = self
            .key
            .read(self.part.other(), bytes)
            .filter(|_| is_theirs);
        let Some(probe) = probe.filter(|probe| self.seen.insert(probe.seq)) else {
            // The packets of a connection that the remote has begun here: its choice was lost.
            if is_theirs && self.answered.contains(&(socket, from)) && socket != Socket::Punch {
                return self.end(Ended::Found {
                    socket,
                    remote: from,
                });
            }
            self.counts.ignored += 1;
            return;
        };
        self.counts.received += 1;
        match (probe.kind, self.part) {
            (Kind::Probe | Kind::Answer, Part::Asker) => {
                for _ in 0..CHOSEN {
                    self.send(Kind::Chosen, socket, from, Hop::All);
                }
                self.end(Ended::Found {
                    socket,
                    remote: from,
                });
            }
            (Kind::Probe, Part::Answerer) => {
                self.answered.insert((socket, from));
                if self.answers < ANSWERS {
                    self.answers += 1;
                    self.send(Kind::Answer, socket, from, Hop::All);
                }
            }
            (Kind::Chosen, Part::Answerer) => self.end(Ended::Found {
                socket,
                remote: from,
            }),
            (Kind::Answer, Part::Answerer) | (Kind::Chosen, Part::Asker) => {}
        }
    }

    /// One packet to the remote's port from each socket.
    fn open(&mut self, most: u32, now: Instant) -> u32 {
        let mut sent = 0;
        while sent < most && now >= self.openings.due {
            let hop = if self.openings.round == 0 {
                Hop::Near
            } else {
                Hop::All
            };
            let socket = Socket::Opened(self.openings.next);
            self.send(Kind::Probe, socket, self.plan.remote, hop);
            sent += 1;
            self.openings.next += 1;
            if self.openings.next >= self.plan.sockets {
                self.openings.next = 0;
                self.openings.due = now
                    + if self.openings.round == 0 {
                        SOON
                    } else {
                        AGAIN
                    };
                self.openings.round += 1;
            }
        }
        sent
    }

    /// The next ports of the remote, from the punch socket.
    fn probe(&mut self, most: u32, now: Instant) -> u32 {
        let mut sent = 0;
        while sent < most && now >= self.probes.due {
            let Some(port) = self.probes.ports.get(self.probes.done).copied() else {
                self.probes.done = 0;
                self.probes.due = now + REST;
                break;
            };
            self.probes.done += 1;
            let to = SocketAddr::new(self.plan.remote.ip(), port);
            self.send(Kind::Probe, Socket::Punch, to, Hop::All);
            sent += 1;
        }
        sent
    }

    /// From the next socket to a port that it has not sent to.
    fn pair(&mut self, most: u32, now: Instant) -> u32 {
        let mut sent = 0;
        while sent < most && now >= self.probes.due {
            let (nth, ports) = (self.probes.done, self.probes.ports.len().max(1));
            self.probes.done += 1;
            let port = match self.plan.space {
                Some(Ports::Sequential { last, step }) => {
                    let nth = u32::try_from(nth).unwrap_or(u32::MAX / 2);
                    nth_after(last, step, nth + 1 + self.rng.u32(..AHEAD))
                }
                Some(Ports::Random | Ports::Block { .. }) | None => {
                    self.probes.ports.get(nth % ports).copied()
                }
            };
            let Some(port) = port else { break };
            // Each pass has another socket for a port.
            let socket = (nth % ports + nth / ports) % usize::from(self.plan.sockets.max(1));
            let socket = u16::try_from(socket).unwrap_or_default();
            let to = SocketAddr::new(self.plan.remote.ip(), port);
            self.send(Kind::Probe, Socket::Opened(socket), to, Hop::All);
            sent += 1;
        }
        sent
    }

    /// From each socket to its known port.
    fn known_pairs(&mut self, now: Instant) -> u32 {
        let mut sent = 0;
        for (socket, hop) in self.pairs.handle_timeout(now) {
            let Some(port) = self.plan.pairs.get(usize::from(socket)) else {
                continue;
            };
            let to = SocketAddr::new(self.plan.remote.ip(), *port);
            self.send(Kind::Probe, Socket::Opened(socket), to, hop);
            sent += 1;
        }
        sent
    }

    fn send(&mut self, kind: Kind, from: Socket, to: SocketAddr, hop: Hop) {
        self.seq += 1;
        let seq = self.seq;
        self.counts.sent += 1;
        self.actions.push_back(Action::Send {
            from,
            to,
            hop,
            probe: self.key.write(self.part, Probe { kind, seq }),
        });
    }

    fn end(&mut self, ended: Ended) {
        self.ended = Some(ended);
        self.event = Some(ended);
    }
}
