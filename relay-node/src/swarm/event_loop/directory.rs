//! The directory: which records the relay keeps, and the other relays that keep copies.

use std::time::{Duration, Instant, SystemTime};

use libp2p::{
    PeerId,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use p2pnode_protocol::directory::{Event, Kept, NotKept, Offer};
use tracing::{debug, info, warn};

use super::EventLoop;
use crate::observe::metrics::Reason;

/// How often expired records are dropped. They are given to nobody meanwhile.
pub(super) const SWEEP: Duration = Duration::from_secs(60);

/// How many records may wait for the reservation of their peer. It is known within moments, or never.
const EARLY: usize = 1024;

impl EventLoop {
    pub(super) fn on_directory(&mut self, event: Event) {
        match event {
            Event::Offered(offer) => self.on_offer(offer),
            Event::Refused { source, reason } => {
                self.metrics.denied(Reason::Record);
                debug!(?source, %reason, "a record was refused");
            }
            Event::Told { query, arrived } => {
                let to = self.copies.over(&query);
                debug!(?to, arrived, "a record was copied");
            }
            // The relay asks nobody.
            Event::Found { .. } | Event::LookedUp { .. } => {}
        }
    }

    pub(super) fn on_offer(&mut self, offer: Offer) {
        let (source, peer) = (offer.source, offer.registration.peer);
        let withdraws = offer.registration.is_withdrawal();
        // The stream over which it came may be older than the end of the peer's admission.
        if self.admission.admitted(&source, SystemTime::now()).is_err() {
            self.metrics.denied(Reason::Record);
            debug!(%source, %peer, "a record was refused: who tells it is not admitted");
            return;
        }
        let holds = self.judge().holds(&peer);
        let directory = &mut self.swarm.behaviour_mut().directory;
        // A peer speaks for itself, and only where it can be called: so there are no more records than reservations. What another
        // relay tells was judged there; its signature was judged here as well.
        let is_its_own = source == peer && (holds || directory.kept(&peer).is_some());
        if source == peer && !is_its_own && self.early.len() < EARLY {
            self.early.insert(peer, offer);
            return;
        }
        if !is_its_own && !self.partners.contains(&source) {
            self.metrics.denied(Reason::Record);
            debug!(%source, %peer, "a record was refused: its peer holds no reservation here");
            return;
        }
        match directory.keep(offer) {
            Ok(Kept::TakenBack) => {
                debug!(%source, %peer, "a relay takes back a record that leads through it alone");
            }
            Ok(Kept::New) => {
                debug!(%source, %peer, withdraws, "a record is kept");
                for relay in self.partners.connected().filter(|relay| *relay != source) {
                    self.copies.add(relay, [peer]);
                }
                let records = directory.len();
                self.metrics.records(records);
            }
            // How a copy ends that has come round.
            Err(NotKept::Old) => debug!(%source, %peer, "a record is not kept: it is not new"),
            Err(error @ NotKept::Full) => {
                self.metrics.denied(Reason::RecordLimit);
                warn!(%source, %peer, %error, "a record is not kept; raise limits.records");
            }
        }
    }

    /// The peer is not admitted any more, and still holds what it was granted. Nobody can call it here from now on, so nobody is to
    /// find it by what it has told here; the other relays keep what leads elsewhere as well, which is theirs to judge.
    pub(super) fn take_back(&mut self, peer: PeerId) {
        self.early.remove(&peer);
        if !self.judge().holds(&peer) {
            return;
        }
        let directory = &mut self.swarm.behaviour_mut().directory;
        if directory.take_back(&peer) {
            for relay in self.partners.connected() {
                self.copies.add(relay, [peer]);
            }
            let records = directory.len();
            self.metrics.records(records);
            debug!(%peer, "the record of a peer that is no longer admitted was taken back");
        }
    }

    /// Dials the relays whose turn it is, and copies what is to be copied.
    pub(super) fn act(&mut self) {
        let now = Instant::now();
        while let Some((relay, addrs)) = self.partners.poll(now) {
            let opts = DialOpts::peer_id(relay)
                .addresses(addrs)
                .condition(PeerCondition::Always)
                .build();
            self.partners.dialing(&relay, opts.connection_id());
            let connection = opts.connection_id();
            if let Err(error) = self.swarm.dial(opts) {
                self.on_dial_failed(connection, &error);
            }
        }
        while let Some((peer, relay)) = self.copies.poll() {
            let directory = &mut self.swarm.behaviour_mut().directory;
            if let Some(copy) = directory.copy(&peer, relay) {
                self.copies.under_way(copy, relay);
            }
        }
    }

    pub(super) fn on_partner_established(&mut self, peer: PeerId, connection: ConnectionId) {
        if self
            .partners
            .handle_established(&peer, connection, Instant::now())
        {
            let behaviour = self.swarm.behaviour_mut();
            behaviour.keep_alive.hold(peer);
            let records = behaviour.directory.peers();
            info!(relay = %peer, records = records.len(), "connected to another relay; copying the records to it");
            self.copies.add(peer, records);
        }
    }

    pub(super) fn on_partner_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let (now, jitter) = (Instant::now(), fastrand::f64());
        if self.partners.handle_closed(&peer, connection, now, jitter) {
            self.swarm.behaviour_mut().keep_alive.release(peer);
            self.copies.forget(&peer);
            warn!(relay = %peer, "lost the connection to another relay; dialing it again");
        }
    }

    pub(super) fn on_dial_failed(
        &mut self,
        connection: ConnectionId,
        error: &libp2p::swarm::DialError,
    ) {
        let (now, jitter) = (Instant::now(), fastrand::f64());
        if let Some((relay, failures)) = self.partners.handle_dial_failed(connection, now, jitter) {
            if failures == 1 {
                warn!(%relay, %error, "cannot reach another relay; trying again until it answers");
            } else {
                debug!(%relay, %error, failures, "cannot reach another relay");
            }
        }
    }

    /// Drops the records that have expired.
    pub(super) fn sweep(&mut self) {
        let directory = &mut self.swarm.behaviour_mut().directory;
        directory.expire(Instant::now());
        let records = directory.len();
        self.metrics.records(records);
    }
}
