//! Gathers the facts of a look at the network, from the node's own punch sockets and other ports of the range.
//!
//! Each transport and family is looked at on its own, all at once. The looks show which relays answer, and as whom they see the
//! punch socket and other ports. They show who gets in to a port that has sent to one endpoint alone, and what length gets
//! through. Nothing is sent but to the relays, and to the partner that a relay names.

mod host;
mod lifetime;
mod names;
mod nat64;
mod path;
mod reached;
mod tcp;
mod udp;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::{join_all, join3};
use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::addr::{self, Host};
use p2pnode_transports::{ClaimedUdp, Family, FamilyPolicy, Handle, PortRange, Transport};
use tokio::{net::lookup_host, task::spawn_blocking, time::Instant};

pub(crate) use self::lifetime::LONGEST;
use self::{
    names::Names,
    path::{Faults, Look, Path},
};
pub(in crate::swarm) use self::{
    path::{AGAIN, MAPPINGS, Target, request},
    tcp::ask as ask_on,
    udp::{ask, second_port},
};
use crate::{
    config::{Config, RelayAddr, Rotate},
    core::{
        finding::Remedy,
        mappings::{Claim, RouterFacts},
        netcheck::{self, Answer, Facts, Leg, Lifetime, RelayFacts, Report, assess},
        port_search::Sample,
    },
    swarm::autonat::{Nonces, Witness},
};

/// How long a look takes at most.
const WHOLE: Duration = Duration::from_millis(2_800);

/// What a running node knows.
#[derive(Default)]
pub(crate) struct Known {
    /// What a router maps to the punch ports.
    pub(crate) claims: Vec<Claim>,
    /// Relays that are connected, and where.
    pub(crate) relays: Vec<(PeerId, IpAddr)>,
    pub(crate) router: RouterFacts,
    /// How long the NAT keeps a mapping of the punch socket that is used, and the mapping's address.
    pub(crate) lifetime: Option<(IpAddr, Duration)>,
    /// Relays that may dial the punch ports, and the nonces by which they prove it.
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) nonces: Nonces,
    /// Addresses of relays to which it has connections.
    pub(crate) connected: Vec<(PeerId, Multiaddr)>,
}

/// What to look at, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) sockets: Handle,
    relays: Vec<RelayAddr>,
    transports: Vec<Transport>,
    family: FamilyPolicy,
    searches: bool,
    rotate: Rotate,
    names: Names,
}

impl Plan {
    /// What a node with this configuration looks at, from these sockets.
    pub(crate) fn new(config: &Config, sockets: Handle) -> Self {
        let (quic, tcp) = (config.dial.quic, config.dial.tcp);
        let transports = [(quic, Transport::Quic), (tcp, Transport::Tcp)];
        Self {
            sockets,
            relays: config.relays.clone(),
            transports: transports
                .into_iter()
                .filter_map(|(is_on, transport)| is_on.then_some(transport))
                .collect(),
            family: config.dial.family,
            searches: quic && config.punch.search,
            rotate: config.punch.rotate,
            names: Names::default(),
        }
    }

    /// Looks, within 3 s without the `lifetime` of mappings.
    pub(crate) async fn look(&self, known: Known, lifetime: bool) -> Report {
        let mut facts = self.gather(known).await;
        if lifetime {
            self.lifetimes(&mut facts).await;
        }
        assess(&facts)
    }

    async fn lifetimes(&self, facts: &mut Facts) {
        let looks = facts.paths.iter_mut().map(|path| async {
            // One that has answered.
            let answered = path.seen.iter().find(|seen| seen.mapped.is_some());
            if let Some(by) = answered.map(|seen| seen.by)
                && path.transport == Transport::Quic
            {
                let looked = lifetime::look(&self.sockets, path.family, by).await;
                let looked = looked.unwrap_or_default();
                let measured = path.lifetime.and_then(|lifetime| lifetime.age);
                let age = looked.age.into_iter().chain(measured).min();
                path.lifetime = Some(Lifetime { age, ..looked });
            }
        });
        join_all(looks).await;
    }

    /// How a relay sees the range; `None` if it answers no STUN over QUIC's port.
    pub(crate) async fn sample(&self, relay: PeerId) -> Option<Sample> {
        let seen = udp::sample(&self.sockets, self.over_quic(relay).await?).await;
        self.heard(seen)
    }

    /// How a relay sees the next ports of the range, and these ports. Of `used` it takes the first, if no other is free.
    pub(crate) async fn sample_next(
        &self,
        relay: PeerId,
        used: &[u16],
        count: usize,
    ) -> Option<(Sample, Vec<ClaimedUdp>)> {
        let at = self.over_quic(relay).await?;
        self.heard(udp::sample_next(&self.sockets, at, used, count).await)
    }

    /// How a relay sees the punch socket.
    pub(crate) async fn punch_socket(&self, relay: PeerId) -> Option<SocketAddr> {
        let seen = udp::punch_socket(&self.sockets, self.over_quic(relay).await?).await;
        self.heard(seen)
    }

    /// What a relay has answered. If it has not, its name may lead elsewhere by now.
    pub(in crate::swarm) fn heard<T>(&self, answer: Option<T>) -> Option<T> {
        if answer.is_none() {
            self.names.doubt();
        }
        answer
    }

    /// Where a relay answers over QUIC's port; IPv4 comes first.
    async fn over_quic(&self, relay: PeerId) -> Option<SocketAddr> {
        let (targets, _) = self.targets(&[]).await;
        let mut targets = targets.iter();
        let target =
            targets.find(|target| (target.relay, target.transport) == (relay, Transport::Quic))?;
        Some(target.addr)
    }

    async fn gather(&self, known: Known) -> Facts {
        let deadline = Instant::now() + WHOLE;
        // Before this look takes ports. The kernel takes milliseconds for its tables: nobody else waits for them.
        let (sockets, transports) = (self.sockets.clone(), self.transports.clone());
        let host = spawn_blocking(move || host::look(&sockets, &transports));
        let host = host.await.unwrap_or_default();
        self.names.forget();
        let (mut targets, mut unresolved) = self.targets(&known.relays).await;
        for (relay, addr) in &known.connected {
            let is_at = |target: &&mut Target| {
                let at = self.relays.get(target.configured);
                target.relay == *relay && at.is_some_and(|at| at.addr == *addr)
            };
            let connected = targets.iter_mut().filter(is_at);
            connected.for_each(|target| target.is_connected = true);
        }
        let families: BTreeSet<Family> = targets.iter().map(|of| of.addr.ip().into()).collect();
        let samples: BTreeMap<Family, Vec<ClaimedUdp>> = families
            .into_iter()
            .map(|family| (family, path::sample(&self.sockets, family)))
            .collect();
        let paths: BTreeSet<(Transport, Family)> = targets
            .iter()
            .map(|target| (target.transport, target.addr.ip().into()))
            .collect();
        let looks = paths.into_iter().map(|(transport, family)| {
            let is_of = |target: &&Target| {
                (target.transport, Family::from(target.addr.ip())) == (transport, family)
            };
            let look = Look {
                sockets: &self.sockets,
                transport,
                family,
                targets: targets.iter().filter(is_of).copied().collect(),
                sample: samples.get(&family).map_or(&[], Vec::as_slice),
                deadline,
                faults: Faults::default(),
            };
            async move {
                let mut path = match transport {
                    Transport::Quic => udp::look(&look).await,
                    Transport::Tcp => tcp::look(&look).await,
                };
                path.facts.faults = look.faults.all();
                path
            }
        });
        let (mut paths, nat64, reached) = join3(
            join_all(looks),
            nat64::look(&self.sockets),
            reached::look(
                &self.sockets,
                &targets,
                known.witnesses,
                &known.nonces,
                deadline,
            ),
        )
        .await;
        for (of, is_reached) in reached {
            let mut paths = paths.iter_mut().map(|path| &mut path.facts);
            if let Some(path) = paths.find(|path| (path.transport, path.family) == of) {
                path.reached = Some(is_reached);
            }
        }
        if let Some((at, lifetime)) = known.lifetime
            && let Some(path) = paths.iter_mut().find(|path| {
                let of = (path.facts.transport, path.facts.family);
                of == (Transport::Quic, Family::from(at))
            })
        {
            let age = u32::try_from(lifetime.as_secs()).ok();
            path.facts.lifetime = Some(Lifetime {
                age,
                ..Lifetime::default()
            });
        }
        believe_partners(&mut paths);
        let mut legs: BTreeMap<PeerId, Vec<Leg>> = BTreeMap::new();
        for path in &mut paths {
            for (relay, answer) in path.legs.drain(..) {
                legs.entry(relay).or_default().push(Leg {
                    transport: path.facts.transport,
                    family: path.facts.family,
                    answer,
                });
            }
        }
        for (relay, leg) in unresolved.drain(..) {
            legs.entry(relay).or_default().push(leg);
        }
        Facts {
            range: self.sockets.range(),
            relays: legs
                .into_iter()
                .map(|(relay, legs)| RelayFacts { relay, legs })
                .collect(),
            clock_ahead: paths.iter().find_map(|path| path.clock_ahead),
            paths: paths.into_iter().map(|path| path.facts).collect(),
            host,
            nat64,
            rotate: self.rotate,
            claims: known.claims,
            searches: self.searches,
            router: known.router,
        }
    }

    /// The addresses of the relays, and what cannot be resolved. For a name that cannot, the addresses at which its relay is
    /// `connected` stand in.
    pub(in crate::swarm) async fn targets(
        &self,
        connected: &[(PeerId, IpAddr)],
    ) -> (Vec<Target>, Vec<(PeerId, Leg)>) {
        let resolved = self.relays.iter().enumerate();
        let resolved = resolved.map(|(configured, relay)| async move {
            let endpoint = addr::dialable(&relay.addr.to_string()).ok()?;
            let only = Family::of(&relay.addr);
            let ips = match &endpoint.host {
                Host::Ip(ip) => Ok(vec![*ip]),
                Host::Name(name) => {
                    let lookup = async {
                        let found = lookup_host((name.as_str(), endpoint.port)).await?;
                        Ok(found.collect())
                    };
                    self.names.resolve(name, lookup).await
                }
            };
            Some((configured, relay.peer, endpoint, only, ips))
        });
        let (mut targets, mut failed) = (Vec::new(), Vec::new());
        for (configured, relay, endpoint, only, ips) in
            join_all(resolved).await.into_iter().flatten()
        {
            let transport = endpoint.transport;
            if !self.transports.contains(&transport) {
                continue;
            }
            let ips = ips.unwrap_or_else(|why| {
                let leg = Leg {
                    transport,
                    family: only.unwrap_or(Family::Ip4),
                    answer: Answer::Unresolved(why),
                };
                failed.push((relay, leg));
                let connected = connected.iter().filter(|(of, _)| *of == relay);
                connected.map(|(_, ip)| *ip).collect()
            });
            let ips = ips.into_iter().filter(|ip| {
                let family = Family::from(*ip);
                self.family.allows(family) && only.is_none_or(|only| only == family)
            });
            targets.extend(ips.map(|ip| Target {
                relay,
                transport,
                addr: SocketAddr::new(ip, endpoint.port),
                configured,
                is_connected: false,
            }));
        }
        targets.sort_by_key(|target| (target.transport, target.addr.is_ipv6()));
        let mut known = BTreeSet::new();
        targets.retain(|target| known.insert((target.relay, target.transport, target.addr)));
        (targets, failed)
    }
}

/// That nobody gets in over TCP from a partner is believed only if the partner answers at all, which UDP shows.
fn believe_partners(paths: &mut [Path]) {
    let answers: Vec<(Family, bool)> = paths
        .iter()
        .filter_map(|path| Some((path.facts.family, path.partner_answers?)))
        .collect();
    for path in paths {
        let facts = &mut path.facts;
        if facts.transport == Transport::Tcp
            && facts.from_other_address == Some(false)
            && !answers.contains(&(facts.family, true))
        {
            facts.from_other_address = None;
        }
    }
}

/// What reserves the range, if this host may give its ports to other programs.
pub(crate) fn unreserved(range: PortRange) -> Option<Remedy> {
    netcheck::unreserved(range, host::settings(range))
}
