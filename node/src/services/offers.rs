//! What this node offers, and to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use libp2p::PeerId;
use p2pnode_services::{
    config::{Allow, Service, ServiceName, Target},
    core::access::Access,
    wire::{Kind, Offer},
};
use tokio::sync::mpsc;

use super::{lines::Sink, running::Running};
use crate::services::local::Socket;

/// Where the sessions of a service go.
#[derive(Debug, Clone)]
pub(crate) enum Goal {
    /// To its target.
    Target,
    /// To this program.
    Program(mpsc::Sender<(PeerId, Socket)>),
}

/// A service of this node.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) service: Service,
    pub(super) goal: Goal,
    pub(super) sink: Option<Sink>,
    /// Whether the configuration has it. Commands offer the others.
    pub(super) is_configured: bool,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The name is taken by another service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node offers a service of that name already; choose another name, or stop the other one"
)]
pub(crate) struct TakenName;

/// The services of this node.
#[derive(Debug, Default)]
pub(super) struct Offers {
    services: BTreeMap<ServiceName, Arc<Offered>>,
    /// Those of the configuration whose names commands have. They are offered when the commands end.
    waiting: BTreeMap<ServiceName, Service>,
}

/// What a new configuration changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Services whose sessions end: they are gone, or lead elsewhere.
    pub(super) ended: Vec<ServiceName>,
}

impl Offered {
    pub(super) fn new(
        service: Service,
        goal: Goal,
        sink: Option<Sink>,
        is_configured: bool,
    ) -> Self {
        Self {
            service,
            goal,
            sink,
            is_configured,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// A session of it is over.
    pub(super) fn ended(&self, running: &Running) {
        let (bytes_in, bytes_out) = running.bytes();
        self.bytes_in.fetch_add(bytes_in, Relaxed);
        self.bytes_out.fetch_add(bytes_out, Relaxed);
    }

    /// What all sessions that are over have carried.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }
}

impl Offers {
    pub(super) fn get(&self, name: &ServiceName) -> Option<&Arc<Offered>> {
        self.services.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Offered>> {
        self.services.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    pub(super) fn add(&mut self, offered: Offered) -> Result<Arc<Offered>, TakenName> {
        let name = offered.service.name.clone();
        if self.services.contains_key(&name) {
            return Err(TakenName);
        }
        let offered = Arc::new(offered);
        self.services.insert(name, Arc::clone(&offered));
        Ok(offered)
    }

    /// All of them, which are offered no longer.
    pub(super) fn take(&mut self) -> BTreeMap<ServiceName, Arc<Offered>> {
        self.waiting.clear();
        std::mem::take(&mut self.services)
    }

    /// A command offers this no longer. The configuration may have a service of that name.
    pub(super) fn remove(&mut self, name: &ServiceName) {
        self.services.remove(name);
        if let Some(service) = self.waiting.remove(name) {
            tracing::info!(own = tracing::field::Empty, service = %name, "the command has ended: the service of the configuration is offered");
            let offered = Offered::new(service, Goal::Target, None, true);
            self.services.insert(name.clone(), Arc::new(offered));
        }
    }

    /// The services of the configuration are these from now on. Those of commands stay, and have priority.
    pub(super) fn configure(&mut self, services: &BTreeMap<ServiceName, Service>) -> Changes {
        let mut changes = Changes::default();
        self.waiting.clear();
        self.services.retain(|name, offered| {
            let stays = !offered.is_configured || services.contains_key(name);
            if !stays {
                changes.ended.push(name.clone());
            }
            stays
        });
        for (name, service) in services {
            match self.services.get(name) {
                Some(known) if !known.is_configured => {
                    tracing::warn!(own = tracing::field::Empty, service = %name, "a command offers a service of this name: the configured one is offered when the command ends");
                    self.waiting.insert(name.clone(), service.clone());
                    continue;
                }
                Some(known) if known.service == *service => continue,
                Some(known) if !leads_there(&known.service, service) => {
                    changes.ended.push(name.clone());
                }
                Some(_) | None => {}
            }
            let offered = Offered::new(service.clone(), Goal::Target, None, true);
            if let Some(before) = self.services.insert(name.clone(), Arc::new(offered)) {
                let (bytes_in, bytes_out) = before.bytes();
                self.services[name].bytes_in.store(bytes_in, Relaxed);
                self.services[name].bytes_out.store(bytes_out, Relaxed);
            }
        }
        changes
    }

    pub(super) fn access(&self) -> Access {
        let services: Vec<_> = self
            .services
            .values()
            .map(|offered| offered.service.clone())
            .collect();
        Access::new(&services)
    }

    /// What is offered to `peer`.
    pub(super) fn list_for(&self, peer: &PeerId) -> impl Iterator<Item = Offer> {
        let services = self.services.values().map(|offered| &offered.service);
        let permitted = services.filter(|service| service.allow.permits(peer));
        permitted.map(|service| Offer {
            name: service.name.clone(),
            kind: match service.target {
                Target::Tcp(..) => Kind::Tcp,
                Target::Udp(..) => Kind::Udp,
                Target::Unix(_) => Kind::Unix,
            },
            protocol: service.protocol.clone(),
        })
    }

    /// The peers that some service names.
    pub(super) fn named(&self) -> BTreeSet<PeerId> {
        let allowed = self
            .services
            .values()
            .filter_map(|offered| match &offered.service.allow {
                Allow::Any => None,
                Allow::Peers(peers) => Some(peers),
            });
        allowed.flatten().copied().collect()
    }
}

/// Whether sessions of `before` are sessions of `now`: only who may use it differs.
fn leads_there(before: &Service, now: &Service) -> bool {
    let Service {
        name: _,
        target,
        allow: _,
        identity,
        protocol: _,
        source,
        udp_idle: _,
    } = before;
    (target, identity, source) == (&now.target, &now.identity, &now.source)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use p2pnode_services::config::{Identity, Source};

    use super::*;

    fn service(target: &str) -> Service {
        Service {
            name: "tmp".parse().unwrap(),
            target: target.parse().unwrap(),
            allow: Allow::Any,
            identity: Identity::None,
            protocol: None,
            source: Source::Any,
            udp_idle: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn a_configured_service_waits_for_the_end_of_a_command_that_has_its_name() {
        let [of_command, configured] = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"].map(service);
        let name = configured.name.clone();
        let configuration = BTreeMap::from([(name.clone(), configured.clone())]);
        let mut offers = Offers::default();
        let command = Offered::new(of_command, Goal::Target, None, false);
        offers.add(command).unwrap();
        assert_eq!(offers.configure(&configuration).ended, []);
        offers.remove(&name);
        let offered = offers.get(&name).unwrap();
        assert_eq!(
            (&offered.service, offered.is_configured),
            (&configured, true)
        );
        // It is gone from the configuration before the command ends.
        for services in [configuration, BTreeMap::new()] {
            let mut offers = Offers::default();
            let command = Offered::new(service("tcp://127.0.0.1:1"), Goal::Target, None, false);
            offers.add(command).unwrap();
            offers.configure(&services);
            offers.configure(&BTreeMap::new());
            offers.remove(&name);
            assert!(offers.is_empty());
        }
    }
}
