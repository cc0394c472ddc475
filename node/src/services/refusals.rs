//! Peers that services refuse: which of them the log and the commands name.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use p2pnode_services::{
    config::ServiceName,
    wire::{Open, Refusal},
};
use p2pnode_transports::Transport;

use super::{
    Hub,
    hub::State as HubState,
    lines::{Line, Report, SessionReport, State},
    report::log,
    running::{OTHER, On},
};

/// How often a peer is named at a service.
const NAMED: Duration = Duration::from_secs(60);

/// The most peers and services that are remembered. Beyond that refusals are only counted.
const MOST: usize = 1024;

/// Who was named lately, and at which service. `None`: at those that are not there, whose names are the peer's word.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<(PeerId, Option<ServiceName>), Instant>);

impl Refusals {
    /// Whether the peer is to be named.
    fn handle(&mut self, peer: PeerId, service: Option<ServiceName>, now: Instant) -> bool {
        let key = (peer, service);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < NAMED;
        if self.0.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, at| is_recent(at));
        }
        if self.0.len() >= MOST {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

impl Hub {
    /// A peer was refused a session. The caller learns little of it, so this node says why.
    pub(super) fn refused(&self, peer: PeerId, open: &Open, refusal: Refusal, on: Option<On>) {
        let mut state = self.state();
        let HubState {
            offers, refusals, ..
        } = &mut *state;
        let offered = offers.get(&open.service).cloned();
        // Other names are a peer's word.
        let named = offered.as_ref().map(|offered| offered.service.name.clone());
        let is_named = refusals.handle(peer, named.clone(), Instant::now());
        drop(state);
        let counted = named.as_ref().map_or(OTHER, ServiceName::as_str);
        self.metrics().opening("service", counted, "refused");
        if !is_named {
            return;
        }
        let report = SessionReport {
            state: State::Refused,
            session: open.session.to_string(),
            role: "service".to_owned(),
            service: open.service.to_string(),
            peer,
            client: open.client.map(|(client, _)| client),
            kind: on.map(|on| on.kind),
            transport: on.and_then(|on: On| -> Option<Transport> { on.transport }),
            bytes_in: 0,
            bytes_out: 0,
            reason: Some(why(refusal, named.is_some()).to_owned()),
        };
        log(&report);
        if let Some(sink) = offered.and_then(|offered| offered.sink.clone()) {
            // A reader that is a whole channel behind, or gone, loses it.
            let _ = sink.try_send(Line::from(Report::Session(Box::new(report))));
        }
    }
}

fn why(refusal: Refusal, is_offered: bool) -> &'static str {
    match refusal {
        Refusal::Unavailable if is_offered => "`allow` of the service does not name the peer",
        Refusal::Unavailable => "this node has no such service",
        Refusal::Busy => {
            "there are as many sessions of the peer, or of all, as may be, or too many were opened lately"
        }
        Refusal::TakesDatagrams => "the service takes datagrams, and the peer opened a stream",
        Refusal::TakesStreams => "the service takes streams, and the peer sent datagrams",
        Refusal::UnknownSession => "an earlier process of the peer has opened it",
        Refusal::Stale | Refusal::Malformed | Refusal::Other => "the opening makes no sense",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_peer_is_named_once_a_minute_at_each_service_and_many_peers_are_only_counted() {
        let (mut refusals, peer, now) = (Refusals::default(), PeerId::random(), Instant::now());
        let db = Some("db".parse::<ServiceName>().unwrap());
        assert!(refusals.handle(peer, db.clone(), now));
        assert!(!refusals.handle(peer, db.clone(), now + NAMED / 2));
        assert!(refusals.handle(peer, None, now));
        assert!(refusals.handle(peer, db.clone(), now + NAMED));
        let named = (0..2 * MOST).filter(|_| refusals.handle(PeerId::random(), None, now + NAMED));
        assert!(named.count() < MOST);
        assert!(refusals.handle(PeerId::random(), None, now + 2 * NAMED));
    }
}
