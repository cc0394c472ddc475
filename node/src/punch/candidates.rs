//! Which addresses a handshake offers, and which of those it receives may be dialed. Pure.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::introduction::cap_per_ip;
use p2pnode_transports::{Family, FamilyPolicy, Transport};

use super::{
    address::{Candidate, Scope, peer_of},
    vouch::Vouch,
};

/// The most addresses that one CONNECT offers and that one round dials. The limit bounds what a punch costs a third party.
pub(crate) const MAX_CANDIDATES: usize = 8;

/// The most observations that are kept. Two relays with four connections each need eight.
const MAX_OBSERVATIONS: usize = 32;

/// The most observations of one transport and family that are offered. A symmetric NAT shows another address on every connection.
/// None of these addresses is worth the place of another source.
const MAX_OBSERVED_PER_KIND: usize = 2;

/// An address of ours as a remote saw it on a connection that was dialed from the punch port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The address, raw: never with a listen port put in.
    pub addr: Multiaddr,
    /// Who saw it.
    pub by: PeerId,
    /// The connection on which it was seen.
    pub connection: ConnectionId,
    /// The transport of that connection.
    pub transport: Transport,
    /// The IP family of that connection.
    pub family: Family,
}

/// Decides by address what may be sent and dialed.
pub(crate) type Permit = Arc<dyn Fn(&Multiaddr) -> bool + Send + Sync>;

/// What holds for both what is offered and what is dialed.
#[derive(Clone)]
pub(crate) struct Policy {
    /// The transports in use, best first.
    pub(crate) transports: Vec<Transport>,
    /// The IP families in use.
    pub(crate) families: FamilyPolicy,
    /// `punch.allow` and `punch.deny`.
    pub(crate) permit: Permit,
    /// Whether `punch.allow` names the private network of an address.
    pub(crate) names: Permit,
    /// `punch.advertise`, at the punch ports of the moment.
    pub(crate) advertise: Arc<dyn Fn() -> Vec<Multiaddr> + Send + Sync>,
}

#[cfg(any(fuzzing, test))]
impl Policy {
    /// Everything is admitted, over both transports.
    pub(crate) fn open() -> Self {
        Self {
            transports: vec![Transport::Quic, Transport::Tcp],
            families: FamilyPolicy::Auto,
            permit: Arc::new(|_| true),
            names: Arc::new(|_| false),
            advertise: Arc::new(Vec::new),
        }
    }
}

impl Policy {
    fn admits(&self, candidate: &Candidate) -> bool {
        self.transports.contains(&candidate.transport)
            && self.families.allows(candidate.family())
            && (self.permit)(&candidate.to_multiaddr())
    }

    /// Whether a private or loopback address may go to a peer of which relays vouch this, or may be dialed.
    fn permits_private(&self, candidate: &Candidate, vouches: &[Vouch], ours: bool) -> bool {
        let ip = candidate.socket.ip();
        let scope = candidate.scope();
        let vouched = |vouch: &Vouch| {
            let seen = if ours { &vouch.ours } else { &vouch.theirs };
            (vouch.same_network && scope == Scope::Private)
                || (seen.contains(&ip) && vouch.sees_both(scope))
        };
        vouches.iter().any(vouched) || (self.names)(&candidate.to_multiaddr())
    }

    fn rank(&self, candidate: &Candidate) -> (usize, u8) {
        let transport = self
            .transports
            .iter()
            .position(|k| *k == candidate.transport);
        (
            transport.unwrap_or(usize::MAX),
            self.families.rank(candidate.family()),
        )
    }
}

/// The addresses of this node, by where they come from.
#[derive(Default)]
pub(crate) struct Local {
    /// Newest last, one a connection.
    observed: Vec<(Candidate, PeerId, ConnectionId)>,
    /// Where a router's mapping of a punch port was proved.
    mapped: Vec<Candidate>,
    /// Sockets of this host's interfaces at the punch ports, the best address first.
    interfaces: Vec<Candidate>,
    /// The networks of this host's interfaces.
    networks: Vec<IpNet>,
}

/// How a NAT assigns the external port ([RFC 4787, 4.1](https://www.rfc-editor.org/rfc/rfc4787#section-4.1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// There are too few observers.
    Unknown,
    /// The same towards everyone who was asked.
    Independent,
    /// Another one for another remote.
    Dependent,
}

/// Received addresses after the filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// What may be dialed, best first, at most [`MAX_CANDIDATES`].
    pub(crate) candidates: Vec<Candidate>,
    /// Those of them at which no relay has seen the peer.
    pub(crate) unvouched: HashSet<Candidate>,
    /// Those that the filters of this node or their place forbid.
    pub(crate) refused: Vec<Multiaddr>,
}

impl Local {
    /// Takes an observation. `true` if it changes what is offered.
    pub(crate) fn observe(&mut self, observation: &Observation) -> bool {
        let Some(candidate) = Candidate::parse(&observation.addr) else {
            return false;
        };
        let fits = candidate.transport == observation.transport
            && candidate.family() == observation.family;
        if !fits || candidate.scope() == Scope::Never {
            return false;
        }
        let known = self.observed.iter().any(|(c, _, _)| *c == candidate);
        self.observed
            .retain(|(_, _, connection)| *connection != observation.connection);
        if self.observed.len() == MAX_OBSERVATIONS {
            self.observed.remove(0);
        }
        self.observed
            .push((candidate, observation.by, observation.connection));
        !known
    }

    /// Forgets what was observed on a connection that is gone. `true` if it changes what is offered.
    pub(crate) fn forget(&mut self, connection: ConnectionId) -> bool {
        let before = self.observed.len();
        self.observed.retain(|(_, _, of)| *of != connection);
        self.observed.len() != before
    }

    /// Sets this host's own sockets, the best address first. `true` if there are others than before.
    pub(crate) fn set_interfaces(&mut self, addresses: &[Multiaddr]) -> bool {
        let new: Vec<Candidate> = addresses.iter().filter_map(Candidate::parse).collect();
        let set = |of: &[Candidate]| of.iter().copied().collect::<HashSet<_>>();
        let changed = set(&self.interfaces) != set(&new);
        self.interfaces = new;
        changed
    }

    /// Sets where a router's mapping of a punch port was proved. `true` if it changes what is offered.
    pub(crate) fn set_mapped(&mut self, addresses: &[Multiaddr]) -> bool {
        let new: Vec<Candidate> = addresses.iter().filter_map(Candidate::parse).collect();
        std::mem::replace(&mut self.mapped, new) != self.mapped
    }

    /// Sets the networks of this host's interfaces: their network and broadcast addresses are nobody's.
    pub(crate) fn set_networks(&mut self, networks: Vec<IpNet>) {
        self.networks = networks;
    }

    /// Whether every host of a network of this one gets what is sent there, or its router.
    fn is_of_all(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|net| {
            net.max_prefix_len() - net.prefix_len() >= 2
                && (ip == net.network() || (ip.is_ipv4() && ip == net.broadcast()))
        })
    }

    /// What is offered to a peer, best first.
    ///
    /// Private and loopback addresses are among it only if a relay vouches that the peer is in their network.
    pub(crate) fn offer(&self, policy: &Policy, vouches: &[Vouch]) -> Vec<Candidate> {
        let vouches = &self.without_translators(vouches)[..];
        let (global, private): (Vec<_>, Vec<_>) = self
            .interfaces
            .iter()
            .copied()
            .partition(|c| c.scope() == Scope::Global);
        let may_be_offered = |c: &Candidate| match c.scope() {
            Scope::Global => true,
            Scope::Private | Scope::Host => policy.permits_private(c, vouches, true),
            Scope::Never => false,
        };
        let private: Vec<_> = private.into_iter().filter(may_be_offered).collect();
        let mut chosen = Chosen::new(policy);
        if vouches.iter().any(|vouch| vouch.same_network) {
            // The short way: it has its places, however much else there is.
            chosen.take(3, best_of_each_kind(&private));
        }
        chosen.take(0, self.advertised(policy));
        chosen.take(0, self.mapped.iter().copied().filter(may_be_offered));
        chosen.take(1, self.observed_best(may_be_offered));
        chosen.take(2, global);
        chosen.take(3, private);
        chosen.sorted()
    }

    /// What a relay cannot see of this node: what is advertised, and the global addresses of this host, best first. They may go to
    /// any peer, so private addresses are not among them.
    pub(crate) fn unseen(&self, policy: &Policy) -> Vec<Candidate> {
        let global = self.interfaces.iter().copied();
        let global = global.filter(|c| c.scope() == Scope::Global);
        let mut chosen = Chosen::new(policy);
        chosen.take(0, self.advertised(policy));
        let mapped = self.mapped.iter().copied();
        chosen.take(0, mapped.filter(|c| c.scope() == Scope::Global));
        chosen.take(1, global);
        chosen.sorted()
    }

    /// What of a peer's addresses may be dialed.
    ///
    /// A private or loopback address only if a relay vouches for it. `seen_as` is how a relay sees this node, which may not have
    /// observed that yet.
    pub(crate) fn admit(
        &self,
        policy: &Policy,
        relays: &HashSet<SocketAddr>,
        remote: PeerId,
        vouches: &[Vouch],
        seen_as: &[Candidate],
        received: &[Multiaddr],
    ) -> Admitted {
        let vouches = &self.without_translators(vouches)[..];
        let observed = self.observed.iter().map(|(candidate, _, _)| candidate);
        let own: HashSet<Candidate> = observed
            .chain(seen_as)
            .chain(&self.interfaces)
            .chain(&self.mapped)
            .copied()
            .chain(self.advertised(policy))
            .collect();
        let is_vouched = |candidate: &Candidate| {
            let ip = candidate.socket.ip();
            candidate.scope() != Scope::Global
                || vouches.iter().any(|vouch| vouch.theirs.contains(&ip))
        };
        let mut admitted = Admitted::default();
        for address in received {
            let candidate = Candidate::parse(address)
                .filter(|_| peer_of(address).is_none_or(|peer| peer == remote))
                .filter(|candidate| match candidate.scope() {
                    Scope::Global => true,
                    Scope::Private | Scope::Host => {
                        policy.permits_private(candidate, vouches, false)
                    }
                    Scope::Never => false,
                })
                .filter(|candidate| !self.is_of_all(candidate.socket.ip()))
                .filter(|candidate| !own.contains(candidate) && !relays.contains(&candidate.socket))
                .filter(|candidate| policy.admits(candidate));
            match candidate {
                Some(candidate) if admitted.candidates.contains(&candidate) => {}
                Some(candidate) => admitted.candidates.push(candidate),
                None => admitted.refused.push(address.clone()),
            }
        }
        let is_near = vouches.iter().any(|vouch| vouch.same_network);
        admitted.candidates.sort_by_key(|candidate| {
            // Behind one NAT the way past it is the short one; elsewhere a private address is the last hope.
            let is_private = candidate.scope() == Scope::Private;
            let rank = policy.rank(candidate);
            (is_private != is_near, !is_vouched(candidate), rank)
        });
        let all = admitted.candidates.clone();
        cap_per_ip(&mut admitted.candidates, |c| (c.socket.ip(), c.transport));
        admitted.candidates.truncate(MAX_CANDIDATES);
        let left_out = all.iter().filter(|c| !admitted.candidates.contains(c));
        admitted.refused.extend(left_out.map(|c| c.to_multiaddr()));
        let candidates = admitted.candidates.iter().copied();
        admitted.unvouched = candidates.filter(|c| !is_vouched(c)).collect();
        admitted
    }

    /// What the observers of one transport and family show about the NAT's mapping.
    pub(crate) fn mapping(&self, transport: Transport, family: Family) -> Mapping {
        let of_transport = || {
            self.observed
                .iter()
                .filter(|(c, _, _)| c.transport == transport && c.family() == family)
        };
        let observers: HashSet<PeerId> = of_transport().map(|(_, by, _)| *by).collect();
        if has_many_ports(of_transport().map(|(candidate, _, _)| candidate)) {
            Mapping::Dependent
        } else if observers.len() > 1 {
            Mapping::Independent
        } else {
            Mapping::Unknown
        }
    }

    /// The vouches without private addresses at which a relay sees both sides and that this host does not have: there is a NAT, of
    /// both sides or in front of the relay, and behind it the address is another host for each.
    fn without_translators(&self, vouches: &[Vouch]) -> Vec<Vouch> {
        let is_own = |ip: &IpAddr| self.interfaces.iter().any(|own| own.socket.ip() == *ip);
        let mut vouches = vouches.to_vec();
        for vouch in &mut vouches {
            let is_translators = |ip: &IpAddr| {
                Scope::of(*ip) == Scope::Private && vouch.ours.contains(ip) && !is_own(ip)
            };
            let both = vouch.theirs.iter().copied().filter(is_translators);
            let both: HashSet<IpAddr> = both.collect();
            vouch.theirs.retain(|ip| !both.contains(ip));
            vouch.ours.retain(|ip| !both.contains(ip));
        }
        vouches
    }

    fn advertised(&self, policy: &Policy) -> Vec<Candidate> {
        (policy.advertise)()
            .iter()
            .filter_map(Candidate::parse)
            .collect()
    }

    /// Observed addresses, those with the most observers first, and of equals the newest; a few of each transport and
    /// family.
    fn observed_best(&self, may_be_offered: impl Fn(&Candidate) -> bool) -> Vec<Candidate> {
        let mut best: Vec<(usize, Candidate)> = Vec::new();
        let observed = self.observed.iter().rev();
        for (candidate, _, _) in observed.filter(|(candidate, _, _)| may_be_offered(candidate)) {
            match best.iter_mut().find(|(_, known)| known == candidate) {
                Some((count, _)) => *count += 1,
                None => best.push((1, *candidate)),
            }
        }
        best.sort_by_key(|(count, _)| usize::MAX - count);
        let mut taken: Vec<Candidate> = Vec::new();
        for (_, candidate) in best {
            let alike = |c: &&Candidate| {
                c.transport == candidate.transport && c.family() == candidate.family()
            };
            if taken.iter().filter(alike).count() < MAX_OBSERVED_PER_KIND {
                taken.push(candidate);
            }
        }
        taken
    }
}

/// What is offered: at most [`MAX_CANDIDATES`], each once, and which source it is from.
struct Chosen<'a> {
    policy: &'a Policy,
    candidates: Vec<(u8, Candidate)>,
}

impl<'a> Chosen<'a> {
    const fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            candidates: Vec::new(),
        }
    }

    /// Takes as many as there is room for: the first ones.
    fn take(&mut self, source: u8, candidates: impl IntoIterator<Item = Candidate>) {
        for candidate in candidates {
            let is_new = self.candidates.iter().all(|(_, known)| *known != candidate);
            if is_new && self.candidates.len() < MAX_CANDIDATES && self.policy.admits(&candidate) {
                self.candidates.push((source, candidate));
            }
        }
    }

    /// Best first: by source, then as the policy ranks them.
    fn sorted(mut self) -> Vec<Candidate> {
        let policy = self.policy;
        let key = |(source, candidate): &(u8, Candidate)| (*source, policy.rank(candidate));
        self.candidates.sort_by_key(key);
        self.candidates.into_iter().map(|(_, c)| c).collect()
    }
}

/// The first candidate of each transport and family.
fn best_of_each_kind(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut kinds = HashSet::new();
    let mut is_first = |c: &&Candidate| kinds.insert((c.transport, c.family()));
    candidates.iter().filter(|c| is_first(c)).copied().collect()
}

/// Whether one IP address shows several ports for one transport: the mark of a mapping that depends on the remote.
pub(crate) fn has_many_ports<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> bool {
    let mut port_of = HashMap::new();
    candidates.into_iter().any(|c| {
        *port_of
            .entry((c.transport, c.socket.ip()))
            .or_insert(c.socket.port())
            != c.socket.port()
    })
}

#[cfg(test)]
mod tests;
