//! Who may open what, and how often. Closed unless a service says otherwise.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_protocol::bucket::{Bucket, Measure};

use crate::{
    config::{Allow, Service, ServiceName},
    wire::{Carries, Refusal},
};

/// What a peer may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of one peer at one service at once.
    pub sessions: usize,
    /// Flows of one peer at one service at once.
    pub flows: usize,
    /// Raw streams of one peer at one service at once, with its sessions.
    pub raw: usize,
    /// Sessions, flows and raw streams at all services together of a peer that none of them names. Each has a stream, of which the
    /// connection of such a peer has 1,024 at once; those for openings and questions are among them. quinn announces
    /// streams that are free again once these are 128: fewer than 128 others would be used up for good.
    pub unnamed: usize,
    /// How often one peer opens sessions, flows and raw streams of one service, or resumes them.
    pub opens: Measure,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Three quarters of what the memory admits by default: one peer leaves room for others.
            sessions: 12_288,
            flows: 4_096,
            raw: 1_024,
            unnamed: 832,
            // 2,000 a second, and all sessions of a peer at once when a path is back.
            opens: Measure {
                burst: 16_384,
                period: Duration::from_micros(500),
            },
        }
    }
}

/// The rules of all services.
#[derive(Debug, Clone, Default)]
pub struct Access(BTreeMap<ServiceName, Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: Allow,
    takes_datagrams: bool,
}

impl Access {
    /// The rules of `services`.
    #[must_use]
    pub fn new(services: &[Service]) -> Self {
        let rule = |service: &Service| Rule {
            allow: service.allow.clone(),
            takes_datagrams: service.target.is_udp(),
        };
        let rules = services
            .iter()
            .map(|service| (service.name.clone(), rule(service)));
        Self(rules.collect())
    }

    /// Whether some service names `peer`.
    #[must_use]
    pub fn names(&self, peer: &PeerId) -> bool {
        let mut rules = self.0.values();
        rules.any(|rule| matches!(&rule.allow, Allow::Peers(peers) if peers.contains(peer)))
    }

    /// Whether there is such a service, for whomever.
    #[must_use]
    pub fn knows(&self, service: &ServiceName) -> bool {
        self.0.contains_key(service)
    }

    /// Whether there is such a service for `peer`.
    #[must_use]
    pub fn permits(&self, peer: &PeerId, service: &ServiceName) -> bool {
        self.0
            .get(service)
            .is_some_and(|rule| rule.allow.permits(peer))
    }

    /// Whether `peer` may open a session of the service that carries this.
    ///
    /// # Errors
    /// The refusal. A peer that may not use the service learns nothing of it.
    pub fn admits(
        &self,
        peer: &PeerId,
        service: &ServiceName,
        carries: Carries,
    ) -> Result<(), Refusal> {
        let rule = self.0.get(service);
        let rule = rule.filter(|rule| rule.allow.permits(peer));
        match (rule.ok_or(Refusal::Unavailable)?.takes_datagrams, carries) {
            (true, Carries::Bytes) => Err(Refusal::TakesDatagrams),
            (false, Carries::Datagrams(_)) => Err(Refusal::TakesStreams),
            (true, Carries::Datagrams(_)) | (false, Carries::Bytes) => Ok(()),
        }
    }

    /// What the services offer to `peer`: the name, and whether it takes datagrams.
    pub fn offered<'a>(
        &'a self,
        peer: &'a PeerId,
    ) -> impl Iterator<Item = (&'a ServiceName, bool)> {
        let permitted = self.0.iter().filter(|(_, rule)| rule.allow.permits(peer));
        permitted.map(|(name, rule)| (name, rule.takes_datagrams))
    }
}

/// How often a peer has opened a service lately.
#[derive(Debug, Default)]
pub(super) struct Opens(BTreeMap<ServiceName, Bucket>);

impl Opens {
    pub(super) fn admits(&mut self, service: &ServiceName, measure: Measure, now: Instant) -> bool {
        let bucket = self.0.entry(service.clone());
        bucket
            .or_insert_with(|| Bucket::full(measure, now))
            .admits(measure, now)
    }

    /// Whether nothing is remembered that limits anything.
    pub(super) fn is_idle(&mut self, measure: Measure, now: Instant) -> bool {
        self.0
            .values_mut()
            .all(|bucket| bucket.is_full(measure, now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::{
        config::{Identity, Source},
        wire::datagram::FlowNumber,
    };

    fn service(name: &str, target: &str, allow: Allow) -> Service {
        Service {
            name: name.parse().unwrap(),
            target: target.parse().unwrap(),
            allow,
            identity: Identity::None,
            protocol: None,
            source: Source::Any,
            udp_idle: Duration::ZERO,
        }
    }

    #[test]
    fn a_peer_sees_and_opens_only_what_names_it() {
        let (friend, stranger) = (PeerId::random(), PeerId::random());
        let access = Access::new(&[
            service("db", "tcp://127.0.0.1:1", Allow::Peers([friend].into())),
            service("dns", "udp://127.0.0.1:1", Allow::Any),
        ]);
        let (db, dns) = ("db".parse().unwrap(), "dns".parse().unwrap());
        let datagrams = Carries::Datagrams(FlowNumber::FIRST);
        let none = "none".parse().unwrap();
        for (peer, service, carries, admits) in [
            (friend, &db, Carries::Bytes, Ok(())),
            (stranger, &db, Carries::Bytes, Err(Refusal::Unavailable)),
            (stranger, &dns, datagrams, Ok(())),
            (stranger, &dns, Carries::Bytes, Err(Refusal::TakesDatagrams)),
            (friend, &db, datagrams, Err(Refusal::TakesStreams)),
            (stranger, &db, datagrams, Err(Refusal::Unavailable)),
            (friend, &none, Carries::Bytes, Err(Refusal::Unavailable)),
        ] {
            assert_eq!(access.admits(&peer, service, carries), admits, "{service}");
        }
        let offered: Vec<_> = access.offered(&stranger).collect();
        assert_eq!(offered, [(&dns, true)]);
        assert!(
            Access::default().offered(&friend).next().is_none(),
            "closed"
        );
    }
}
