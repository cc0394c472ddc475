//! A model NAT that lets in whom the inside has sent to, address and port.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2pnode_protocol::port_search::Side;

use crate::core::port_search::{
    search::Socket,
    side::{Sample, side},
};

pub(super) const RELAY: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 4001),
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 3478),
];

/// How a NAT gives ports.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// One mapping for all destinations, with the port kept or moved by so much.
    Stable(u16),
    Random,
    /// So many ports from here on.
    Block(u16, u16),
    /// From here on, by this.
    Sequential(u16, u16),
}

/// A NAT that lets in whom the inside has sent to, address and port.
pub(super) struct Nat {
    pub(super) ip: IpAddr,
    kind: Kind,
    rng: fastrand::Rng,
    /// By inside port and destination, when the mapping was last used, and the outside port.
    pub(super) mappings: HashMap<(u16, SocketAddr), (Duration, u16)>,
    /// By outside port and destination.
    inside: HashMap<(u16, SocketAddr), u16>,
    pub(super) given: u16,
    pub(super) most: usize,
    /// The age at which it drops the mapping of an inside port, used or not, and when it has made each, and how often.
    pub(super) ages: Option<Duration>,
    made: HashMap<u16, (Duration, u16)>,
    /// Whether its own stack takes what it lets in to nobody, and what it has taken: by outside port and sender.
    pub(super) accepts: bool,
    taken: HashSet<(u16, SocketAddr)>,
}

const LIFETIME: Duration = Duration::from_secs(30);

impl Nat {
    pub(super) fn new(last: u8, kind: Kind, seed: u64) -> Self {
        Self {
            ip: IpAddr::from([203, 0, 113, last]),
            kind,
            rng: fastrand::Rng::with_seed(seed),
            mappings: HashMap::new(),
            inside: HashMap::new(),
            given: 0,
            most: 0,
            ages: None,
            made: HashMap::new(),
            accepts: false,
            taken: HashSet::new(),
        }
    }

    /// How often it has mapped an inside port by now, if it drops mappings by age.
    fn times(&self, port: u16, now: Duration) -> Option<u16> {
        let (ages, (at, times)) = (self.ages?, self.made.get(&port)?);
        (now < *at + ages).then_some(*times)
    }

    /// The packet of an inside port keeps or makes its mapping.
    fn age(&mut self, port: u16, now: Duration) {
        if self.ages.is_some() && self.times(port, now).is_none() {
            let times = self.made.get(&port).map_or(0, |(_, times)| times + 1);
            self.made.insert(port, (now, times));
            self.mappings.retain(|(of, _), _| *of != port);
            self.inside.retain(|_, of| *of != port);
        }
    }

    pub(super) fn out(&mut self, port: u16, to: SocketAddr, now: Duration) -> SocketAddr {
        self.age(port, now);
        let known = self.mappings.get(&(port, to)).copied();
        let outside = match known.filter(|(at, _)| now < *at + LIFETIME) {
            Some((_, outside)) => outside,
            None => self.new_port(port, to),
        };
        self.mappings.insert((port, to), (now, outside));
        self.inside.insert((outside, to), port);
        if self.mappings.len().is_multiple_of(64) {
            let alive = self.mappings.values();
            let alive = alive.filter(|(at, _)| now < *at + LIFETIME);
            self.most = self.most.max(alive.count());
        }
        SocketAddr::new(self.ip, outside)
    }

    fn new_port(&mut self, port: u16, to: SocketAddr) -> u16 {
        loop {
            self.given += 1;
            let outside = match self.kind {
                Kind::Stable(moved) if self.taken.contains(&(port + moved, to)) => {
                    self.rng.u16(1024..)
                }
                Kind::Stable(moved) => {
                    let times = self.made.get(&port).map_or(0, |(_, times)| *times);
                    return port + moved + times * 51;
                }
                Kind::Random => self.rng.u16(1024..),
                Kind::Block(from, size) => from + self.rng.u16(..size),
                Kind::Sequential(from, step) => from.wrapping_add(self.given.wrapping_mul(step)),
            };
            if !self.inside.contains_key(&(outside, to)) {
                return outside;
            }
        }
    }

    pub(super) fn lets_in(&self, outside: u16, from: SocketAddr, now: Duration) -> Option<u16> {
        let port = *self.inside.get(&(outside, from))?;
        if self.ages.is_some() {
            self.times(port, now)?;
        }
        let (at, mapped) = self.mappings.get(&(port, from))?;
        (now < *at + LIFETIME && *mapped == outside).then_some(port)
    }

    /// What comes from there is let in to nobody.
    pub(super) fn refuses(&mut self, outside: u16, from: SocketAddr) {
        if self.accepts {
            self.taken.insert((outside, from));
        }
    }

    /// What a relay sees of the range.
    pub(super) fn side(&mut self, range: u16) -> Side {
        let at = Duration::ZERO;
        let punch = RELAY.map(|relay| self.out(PUNCH, relay, at)).to_vec();
        let is_hard = punch[0] != punch[1];
        let ports = (1..range).filter(|_| is_hard).map(|nth| PUNCH + nth);
        let ports = ports.map(|port| (port, self.out(port, RELAY[0], at).port()));
        side(&Sample {
            punch,
            ports: ports.collect(),
            free: usize::from(range) - 3,
        })
        .unwrap()
    }
}

pub(super) const PUNCH: u16 = 40000;

pub(super) fn port_of(socket: Socket) -> u16 {
    match socket {
        Socket::Punch => PUNCH,
        Socket::Opened(nth) => PUNCH + 1 + nth,
    }
}

pub(super) fn socket_of(port: u16) -> Socket {
    match port {
        PUNCH => Socket::Punch,
        _ => Socket::Opened(port - PUNCH - 1),
    }
}
