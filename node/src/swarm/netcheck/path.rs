//! What the looks at each transport and family share.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use libp2p::PeerId;
use p2pnode_protocol::{
    Reach, Scope,
    stun::{Class, Message, RelayInfo, Transaction},
};
use p2pnode_transports::{ClaimedUdp, Family, Handle, Transport};
use rustix::io::Errno;
use tokio::time::Instant;

use crate::core::netcheck::{Answer, Fault, PathFacts, Seen, spread};

/// How long the relays have to answer, and how long one has to see other ports.
pub(super) const LEGS: Duration = Duration::from_millis(1_000);
pub(in crate::swarm) const MAPPINGS: Duration = Duration::from_millis(800);

/// How long strangers have to get in, at most: that they do not is known only after it.
pub(super) const STRANGERS: Duration = Duration::from_millis(1_500);

/// Other ports of the range that are looked at. Most of the free ones stay free.
const SAMPLE: usize = 8;

/// Relays that other ports of the range ask, if none answers to the punch port.
pub(super) const TRIED: usize = 2;

/// A request is repeated after this, and then after twice as long each time.
pub(in crate::swarm) const AGAIN: Duration = Duration::from_millis(150);

/// Bytes of padding in a request, so that its answer may hold all that a relay has to say.
pub(super) const PADDING: usize = 120;

/// One address of a relay.
#[derive(Debug, Clone, Copy)]
pub(in crate::swarm) struct Target {
    pub(in crate::swarm) relay: PeerId,
    pub(in crate::swarm) transport: Transport,
    pub(in crate::swarm) addr: SocketAddr,
    /// Which of the configured relays it is.
    pub(super) configured: usize,
    /// Whether the node has a connection to the relay there.
    pub(super) is_connected: bool,
}

/// What a transport and family is looked at with.
pub(super) struct Look<'a> {
    pub(super) sockets: &'a Handle,
    pub(super) transport: Transport,
    pub(super) family: Family,
    pub(super) targets: Vec<Target>,
    /// Ports that stand for the range, in the order in which they ask.
    pub(super) sample: &'a [ClaimedUdp],
    pub(super) deadline: Instant,
    pub(super) faults: Faults,
}

/// What has kept this host from sending.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<BTreeSet<Fault>>);

impl Faults {
    /// Notes an error, if it is one of this host.
    pub(super) fn note(&self, error: &io::Error) -> Option<Fault> {
        let fault = fault(error)?;
        // That another program has a port is no news: another port is tried.
        if fault != Fault::InUse {
            self.noted().insert(fault);
        }
        Some(fault)
    }

    /// What was noted.
    pub(super) fn all(&self) -> BTreeSet<Fault> {
        self.noted().clone()
    }

    fn noted(&self) -> MutexGuard<'_, BTreeSet<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error says about this host; `None` if it says something about the network.
fn fault(error: &io::Error) -> Option<Fault> {
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(Fault::Files),
        Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => Some(Fault::InUse),
        Errno::PERM | Errno::ACCESS => Some(Fault::Forbidden),
        Errno::NOBUFS | Errno::NOMEM => Some(Fault::Memory),
        _ => None,
    }
}

/// What came from addresses of relays.
#[derive(Default)]
pub(super) struct Answers {
    /// After which time the first answer came.
    pub(super) after: BTreeMap<SocketAddr, Duration>,
    /// Who has proved to be there, and after which time.
    pub(super) proved: BTreeMap<SocketAddr, (PeerId, Duration)>,
    pub(super) failed: BTreeMap<SocketAddr, Answer>,
}

impl Look<'_> {
    /// The punch port.
    pub(super) fn port(&self) -> Option<u16> {
        let ports = self.sockets.punch_ports();
        ports.get(&(self.transport, self.family)).copied()
    }

    /// Where the relays are, each address once.
    pub(super) fn addrs(&self) -> Vec<SocketAddr> {
        let mut addrs: Vec<SocketAddr> = Vec::new();
        for target in &self.targets {
            if self.unroutable(target.addr).is_none() && !addrs.contains(&target.addr) {
                addrs.push(target.addr);
            }
        }
        addrs
    }

    pub(super) fn legs(&self, answers: &Answers) -> Vec<(PeerId, Answer)> {
        let leg = |target: &Target| {
            let addr = target.addr;
            let (after, proved) = (answers.after.get(&addr), answers.proved.get(&addr));
            if let Some(answer) = self.unroutable(addr) {
                return answer;
            }
            let is_connected = target.is_connected;
            let answer = Answer::of(target.relay, after.copied(), proved.copied(), is_connected);
            match (answer, answers.failed.get(&addr)) {
                (Answer::Silent, Some(failed)) => failed.clone(),
                (answer, _) => answer,
            }
        };
        let legs = self
            .targets
            .iter()
            .map(|target| (target.relay, leg(target)));
        legs.collect()
    }

    /// Why nothing can be sent there.
    fn unroutable(&self, addr: SocketAddr) -> Option<Answer> {
        match self.sockets.has_route(addr.ip()) {
            Ok(true) => None,
            Ok(false) => Some(Answer::NoRoute),
            Err(error) => self.faults.note(&error).map(Answer::Fault),
        }
    }

    /// The same without a punch socket.
    pub(super) fn no_socket(&self) -> Vec<(PeerId, Answer)> {
        let family = self.family;
        let why = match self.sockets.unbound_for(self.transport, family) {
            Some(_) => "no port of the range can be had".to_owned(),
            None => format!("no socket for {family}"),
        };
        let leg = |target: &Target| {
            let answer = self.unroutable(target.addr);
            let answer = answer.unwrap_or_else(|| Answer::NoSocket(why.clone()));
            (target.relay, answer)
        };
        self.targets.iter().map(leg).collect()
    }

    /// Notes if no file can be opened any longer.
    pub(super) fn note_files(&self) {
        if let Err(error) = self.sockets.has_route(Ipv4Addr::LOCALHOST.into()) {
            self.faults.note(&error);
        }
    }

    /// How a relay saw a port.
    pub(super) fn seen(&self, port: u16, by: SocketAddr, got: Option<&Message>) -> Seen {
        let local = self.sockets.source_ip(by.ip());
        self.note_files();
        Seen {
            by,
            local: local.map(|ip| SocketAddr::new(ip, port)),
            mapped: got.and_then(|got| got.mapped),
            is_hidden: got.is_some_and(Message::hides),
        }
    }
}

/// By how much this clock is ahead of that in an answer, which came at this time and took so long.
pub(super) fn clock_ahead(message: &Message, at: SystemTime, rtt: Duration) -> Option<i64> {
    let theirs = message.info?.unix_ms;
    let ours = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let ours = i64::try_from(ours.as_millis()).ok()?;
    let half = i64::try_from(rtt.as_millis() / 2).ok()?;
    Some(ours - half - i64::try_from(theirs).ok()?)
}

/// What the look at one transport and family yields.
pub(super) struct Path {
    pub(super) facts: PathFacts,
    pub(super) legs: Vec<(PeerId, Answer)>,
    pub(super) clock_ahead: Option<i64>,
    /// Whether the partner of the relay answers on its behalf; `None` if there is none.
    pub(super) partner_answers: Option<bool>,
}

impl Path {
    pub(super) const fn new(transport: Transport, family: Family) -> Self {
        Self {
            facts: PathFacts::new(transport, family),
            legs: Vec::new(),
            clock_ahead: None,
            partner_answers: None,
        }
    }
}

/// A request with room for the whole answer.
pub(in crate::swarm) fn request() -> Message {
    Message {
        padding: PADDING,
        info: Some(RelayInfo::default()),
        ..Message::new(
            Class::Request,
            Transaction::new(std::array::from_fn(|_| fastrand::u8(..))),
        )
    }
}

/// The request, whose answer is to be as long if `pads`.
pub(super) fn padding(message: Message, pads: bool) -> Message {
    let info = message.info.map(|info| RelayInfo { pads, ..info });
    Message { info, ..message }
}

/// Whether a relay's word leads to this partner: a private address only if the relay is at one, too.
pub(super) fn may_ask(partner: SocketAddr, relay: SocketAddr) -> bool {
    let is_private = Scope::of(relay.ip()) == Scope::Private;
    let is_host = Scope::of(relay.ip()) == Scope::Host;
    let reach = Reach {
        private: is_private,
        host: is_host,
    };
    partner.port() != 0 && partner.ip() != relay.ip() && reach.admits(partner.ip())
}

/// Ports that stand for the range, or others near them. A quarter of the free ones at most, but one.
pub(super) fn sample(sockets: &Handle, family: Family) -> Vec<ClaimedUdp> {
    let count = (sockets.pool_counts().free / 4).clamp(1, SAMPLE);
    let ports = spread(sockets.range(), count).into_iter();
    ports
        .filter_map(|port| sockets.claim_udp_near(family, port))
        .collect()
}
