//! Gathers the facts of a look at the network, from the node's own punch sockets and other ports of the range.
//!
//! Each transport and family is looked at on its own, all at once. The looks show which relays answer, and as whom they see the
//! punch socket and other ports. They show who gets in to a port that has sent to one endpoint alone, and what length gets
//! through. Nothing is sent but to the relays, and to the partner that a relay names.

mod host;
mod path;
mod tcp;
mod udp;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use futures::future::{join, join_all};
use libp2p::PeerId;
use p2pnode_protocol::addr::{self, Host};
use p2pnode_transports::{Family, FamilyPolicy, Handle, PortRange, Transport};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use self::path::{Path, Target};
pub(super) use self::udp::Extent;
use crate::{
    config::{Config, RelayAddr},
    core::{
        finding::Remedy,
        mappings::Claim,
        netcheck::{self, Answer, Facts, Leg, RelayFacts, Report, assess},
        port_search::Sample,
    },
};

/// How long a look takes at most.
const WHOLE: Duration = Duration::from_millis(2_800);

/// A name has to be resolved within this.
const RESOLVE: Duration = Duration::from_millis(1_000);

/// What to look at, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) sockets: Handle,
    relays: Vec<RelayAddr>,
    transports: Vec<Transport>,
    family: FamilyPolicy,
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
        }
    }

    /// Looks, within 3 s. `claims` are what a router maps.
    pub(crate) async fn look(&self, claims: Vec<Claim>) -> Report {
        assess(&self.gather(claims).await)
    }

    /// How a relay sees the range; `None` if it answers no STUN over QUIC's port.
    pub(crate) async fn sample(&self, relay: PeerId, extent: Extent) -> Option<Sample> {
        let (targets, _) = self.targets().await;
        let mut targets = targets.iter();
        // IPv4 comes first.
        let target =
            targets.find(|target| (target.relay, target.transport) == (relay, Transport::Quic))?;
        udp::sample(&self.sockets, target.addr, extent).await
    }

    async fn gather(&self, claims: Vec<Claim>) -> Facts {
        let deadline = Instant::now() + WHOLE;
        let (targets, mut unresolved) = self.targets().await;
        let of = |(transport, family): (Transport, Family)| {
            let of_path = |target: &&Target| {
                (target.transport, Family::from(target.addr.ip())) == (transport, family)
            };
            targets.iter().filter(of_path).copied().collect::<Vec<_>>()
        };
        let paths: BTreeSet<(Transport, Family)> = targets
            .iter()
            .map(|target| (target.transport, target.addr.ip().into()))
            .collect();
        let looks = paths.into_iter().map(|path| {
            let targets = of(path);
            async move {
                match path.0 {
                    Transport::Quic => udp::look(&self.sockets, path.1, &targets, deadline).await,
                    Transport::Tcp => tcp::look(&self.sockets, path.1, &targets, deadline).await,
                }
            }
        });
        let (mut paths, host) = join(join_all(looks), host::look(self.sockets.range())).await;
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
            claims,
        }
    }

    /// The addresses of the relays, and what cannot be resolved.
    async fn targets(&self) -> (Vec<Target>, Vec<(PeerId, Leg)>) {
        let resolved = self.relays.iter().map(|relay| async move {
            let endpoint = addr::dialable(&relay.addr.to_string()).ok()?;
            let only = Family::of(&relay.addr);
            let ips = match &endpoint.host {
                Host::Ip(ip) => Ok(vec![*ip]),
                Host::Name(name) => {
                    match timeout(RESOLVE, lookup_host((name.as_str(), endpoint.port))).await {
                        Ok(Ok(found)) => Ok(found.map(|found| found.ip()).collect()),
                        Ok(Err(error)) => Err(format!("cannot resolve {name}: {error}")),
                        Err(_) => Err(format!("cannot resolve {name} within 1 s")),
                    }
                }
            };
            Some((relay.peer, endpoint, only, ips))
        });
        let (mut targets, mut failed) = (Vec::new(), Vec::new());
        for (relay, endpoint, only, ips) in join_all(resolved).await.into_iter().flatten() {
            let transport = endpoint.transport;
            if !self.transports.contains(&transport) {
                continue;
            }
            match ips {
                Ok(ips) => {
                    let ips = ips.into_iter().filter(|ip| {
                        let family = Family::from(*ip);
                        self.family.allows(family) && only.is_none_or(|only| only == family)
                    });
                    targets.extend(ips.map(|ip| Target {
                        relay,
                        transport,
                        addr: SocketAddr::new(ip, endpoint.port),
                    }));
                }
                Err(why) => failed.push((
                    relay,
                    Leg {
                        transport,
                        family: only.unwrap_or(Family::Ip4),
                        answer: Answer::Failed(why),
                    },
                )),
            }
        }
        targets.sort_by_key(|target| (target.transport, target.addr.is_ipv6()));
        targets.dedup_by_key(|target| (target.transport, target.addr));
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
pub(crate) async fn unreserved(range: PortRange) -> Option<Remedy> {
    netcheck::unreserved(range, host::look(range).await)
}
