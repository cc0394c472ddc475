//! Looks on: a line in the log, a count, a line on stdout, for what has happened.

use std::io::{self, Write};

use libp2p::{Multiaddr, PeerId, TransportError, swarm::ListenError};
use p2pnode_daemon::{admin::Readiness, clock};
use p2pnode_protocol::{directory, introduction::Refusal};
use p2pnode_transports::{displaced, innermost, timed_out, was_stun};
use tracing::{debug, error, field::Empty, info, warn};

use crate::{
    config::reload::Reload,
    core::{
        Delivery, DenialReason, Denied, Event, Hop, RecordOutcome, SharedKey, Totals, is_link_local,
    },
    observe::{
        metrics::{HandshakeFailure, Introduction, Metrics, Reloaded},
        output::Output,
        readiness,
    },
};

/// Whoever looks on.
pub(crate) struct Observer<W> {
    metrics: Metrics,
    readiness: Readiness,
    output: Output<W>,
}

impl<W: Write> Observer<W> {
    /// Counts in `metrics`, says in `readiness` what is missing, and writes results to `output`.
    pub(crate) fn new(metrics: Metrics, readiness: Readiness, output: Output<W>) -> Self {
        Self {
            metrics,
            readiness,
            output,
        }
    }

    /// What was counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How much there is of what.
    pub(crate) fn totals(&self, totals: Totals) {
        self.metrics.observe(totals);
    }

    /// What has happened, after which there is so much.
    pub(crate) fn event(&mut self, event: Event, totals: Totals) {
        let Totals {
            reservations,
            circuits,
            ..
        } = totals;
        match event {
            Event::Joined {
                peer,
                outcome: Ok(()),
            } => debug!(%peer, "admitted"),
            // Anybody can cause these: counted, and not logged by default.
            Event::Joined {
                peer,
                outcome: Err(refused),
            } => {
                self.metrics.denied(refused.reason());
                debug!(%peer, ?refused, "not admitted");
            }
            Event::AdmissionEnded { peer, refused } => {
                self.metrics.denied(refused.reason());
                info!(%peer, reason = refused.reason().as_str(), "a peer is no longer admitted; closing its connections");
            }
            Event::AdmissionOverdue { peer, connection } => {
                debug!(%peer, %connection, "closing a connection whose peer was not admitted in time");
            }
            Event::AccessChanged {
                difference: changed,
                tokens,
                opens,
                disconnected,
            } => {
                info!(
                    own = Empty,
                    allowed = changed.allowed,
                    disallowed = changed.disallowed,
                    revoked = changed.revoked,
                    restored = changed.restored,
                    tokens,
                    disconnected,
                    "the rules of access are in force"
                );
                if opens {
                    warn!(
                        own = Empty,
                        "access.allow is empty and access.tokens is off now: any peer may use this relay"
                    );
                }
            }
            Event::Displaced(connection) => {
                self.metrics.denied(DenialReason::Displaced);
                debug!(%connection, "closing a connection that nobody uses for a newcomer");
            }
            Event::Unresponsive { peer, connection } => {
                debug!(%peer, %connection, "closing a connection that answers no ping");
            }
            Event::ReservationGranted {
                peer,
                connection,
                renewed: true,
            } => debug!(%peer, %connection, "reservation renewed"),
            Event::ReservationGranted {
                peer,
                connection,
                renewed: false,
            } => info!(%peer, %connection, reservations, "reservation granted"),
            Event::ReservationDenied { peer, reason } => {
                self.metrics.denied(reason);
                debug!(%peer, reason = reason.as_str(), "reservation denied");
                if reason == DenialReason::ReservationLimit {
                    warn!(
                        reservations,
                        "the relay is full: as many reservations are held as limits.reservations admits; newcomers are refused"
                    );
                }
            }
            Event::ReservationEnded {
                peer,
                connection,
                how,
            } => info!(%peer, %connection, how = how.as_str(), reservations, "reservation ended"),
            Event::CircuitOpened {
                source,
                destination,
            } => info!(%source, %destination, circuits, "circuit opened"),
            Event::CircuitClosed {
                source,
                destination,
                open,
                traffic,
                cut,
            } => {
                self.metrics.circuit_closed(open, cut.as_ref());
                let reason = cut.map_or_else(|| "done".to_owned(), |cut| cut.to_string());
                let (to_destination, to_source) = (traffic.to_destination(), traffic.to_source());
                info!(%source, %destination, ?open, to_destination, to_source, reason, "circuit closed");
            }
            Event::CircuitDenied {
                source,
                destination,
                reason,
                why,
            } => {
                self.metrics.denied(reason);
                debug!(%source, %destination, reason = reason.as_str(), why, "circuit denied");
            }
            Event::PeerGone { peer, carried } => {
                let (sent, received) = (carried.sent, carried.received);
                debug!(%peer, sent, received, "a peer is gone over whose circuits bytes went");
            }
            Event::Introduced { outcome } => self.introduced(outcome),
            Event::IntroductionSent { peer, delivery } => {
                let taken = delivery == Delivery::Delivered;
                debug!(%peer, taken, "sent an introduction");
                if !taken {
                    self.metrics.introduction(Introduction::NotTaken);
                }
            }
            Event::Record {
                source,
                peer,
                outcome,
            } => self.record(&source, &peer, outcome),
            Event::RecordTakenBack(peer) => {
                debug!(%peer, "the record of a peer that has left or is no longer admitted was taken back");
            }
            Event::RecordCopied { relay, delivery } => {
                let arrived = delivery == Delivery::Delivered;
                debug!(to = %relay, arrived, "a record was copied");
            }
            Event::PeerRelayConnected { relay, records } => {
                info!(%relay, records, "connected to another relay; copying the records to it");
            }
            Event::PeerRelayLost(relay) => {
                warn!(%relay, "lost the connection to another relay; dialing it again");
            }
            Event::PeerRelayUnreachable {
                relay,
                error,
                failures: 1,
            } => warn!(%relay, error, "cannot reach another relay; trying again until it answers"),
            Event::PeerRelayUnreachable {
                relay,
                error,
                failures,
            } => debug!(%relay, error, failures, "cannot reach another relay"),
            Event::Serving(Hop::Offered) => info!("taking reservations"),
            Event::Serving(Hop::Withheld) => {
                info!("taking no reservations: no external address");
            }
            Event::ExternalAddress {
                address,
                configured,
            } => {
                debug!(%address, "external address");
                if configured {
                    written(self.output.external(&address));
                }
            }
            Event::ExternalAddressGone(address) => {
                debug!(%address, "no longer an external address");
            }
            Event::Translated(Some(source)) => {
                readiness::translated(&self.readiness, Some(source));
                warn!(own = Empty, %source, "every peer has the same source address: a NAT in front of the relay hides where they are. Nobody is introduced, and punches find no mapping; let the source addresses through (externalTrafficPolicy: Local, hostNetwork, no masquerade towards the relay)");
            }
            Event::Translated(None) => {
                readiness::translated(&self.readiness, None);
                info!(own = Empty, "peers have source addresses of their own");
            }
            Event::SharedKey(SharedKey {
                peer,
                at: [one, other],
            }) => {
                warn!(%peer, %one, %other, "two hosts use the key of one peer: both hold a reservation and answer. Callers reach either; give each host a key of its own");
            }
            Event::KeyAlone(peer) => {
                info!(%peer, "one host uses the key of the peer again");
            }
            Event::Draining { timeout } => {
                readiness::draining(&self.readiness);
                self.metrics.draining();
                info!(own = Empty, ?timeout, circuits, reservations, "draining");
            }
            Event::DrainProgress { left } => {
                info!(
                    own = Empty,
                    circuits,
                    reservations,
                    ?left,
                    "waiting for circuits to end"
                );
            }
        }
    }

    fn introduced(&self, outcome: Result<(), Refusal>) {
        let Err(refusal) = outcome else {
            self.metrics.introduction(Introduction::Made);
            return;
        };
        self.metrics.introduction(Introduction::Refused(refusal));
        match refusal {
            Refusal::TooOften => self.metrics.denied(DenialReason::IntroductionLimit),
            Refusal::Draining => self.metrics.denied(DenialReason::Draining),
            // The circuit that is asked for along with it is denied, and counted, for the same reason.
            Refusal::NoReservation
            // Not the relay's to deny.
            | Refusal::Unsupported
            | Refusal::NothingInCommon => {}
        }
    }

    fn record(&self, source: &PeerId, peer: &PeerId, outcome: RecordOutcome) {
        match outcome {
            RecordOutcome::Kept { withdraws } => {
                debug!(%source, %peer, withdraws, "a record is kept");
            }
            RecordOutcome::TakenBack => {
                debug!(%source, %peer, "a relay takes back a record that leads through it alone");
            }
            RecordOutcome::Waiting => {
                debug!(%source, %peer, "a record waits for the reservation of its peer");
            }
            // How a copy ends that has come round.
            RecordOutcome::Old => debug!(%source, %peer, "a record is not kept: it is not new"),
            RecordOutcome::Full => {
                self.metrics.denied(DenialReason::RecordLimit);
                let error = "the directory is full";
                warn!(%source, %peer, error, "a record is not kept; raise limits.records, or limits.reservations_per_ip4 for many peers behind one address");
            }
            RecordOutcome::NotAdmitted => {
                self.metrics.denied(DenialReason::Record);
                debug!(%source, %peer, "a record was refused: its sender is not admitted");
            }
            RecordOutcome::NoReservation => {
                self.metrics.denied(DenialReason::Record);
                debug!(%source, %peer, "a record was refused: its peer holds no reservation here");
            }
        }
    }

    /// A record was offered that is invalid.
    pub(crate) fn invalid_record(&self, source: &PeerId, reason: &directory::Refused) {
        self.metrics.denied(DenialReason::Record);
        debug!(%source, %reason, "a record was refused");
    }

    /// A peer offers records too often.
    pub(crate) fn record_rate(&self, source: &PeerId) {
        self.metrics.denied(DenialReason::RequestRate);
        debug!(%source, "a record was refused unread: too many from this peer or its source");
    }

    /// A peer has sent a request that is malformed.
    ///
    /// Anybody on the internet can cause these, so they are counted and not logged by default.
    pub(crate) fn malformed(&self, peer: &PeerId, fault: &impl std::fmt::Display) {
        self.metrics.denied(DenialReason::Malformed);
        debug!(%peer, %fault, "a request was refused");
    }

    /// A peer has sent too many requests at once.
    pub(crate) fn too_many(&self, peer: &PeerId) {
        self.metrics.denied(DenialReason::HandshakeLimit);
        debug!(%peer, "a request was refused: too many at once");
    }

    /// An inbound connection did not come about.
    ///
    /// Anybody on the internet can cause these, so they are counted and not logged by default.
    pub(crate) fn incoming_failed(&self, from: &Multiaddr, error: ListenError) {
        match error {
            ListenError::Denied { cause } => {
                let denied: Option<&Denied> = cause.downcast_ref();
                let reason = denied.map(|denied| denied.reason());
                if let Some(reason) = reason {
                    self.metrics.denied(reason);
                }
                let cause = std::error::Error::source(&cause);
                debug!(%from, reason = reason.map(DenialReason::as_str), cause, "connection denied");
                if let Some(full @ (Denied::Memory { .. } | Denied::Connections)) = denied {
                    warn!("the relay is full: {full}; newcomers are refused");
                }
            }
            // Scanners, broken clients, lost packets.
            ListenError::Transport(error) if displaced(&error) => {
                self.metrics.denied(DenialReason::Displaced);
                debug!(%from, "a handshake ended for another one");
            }
            ListenError::Transport(error) if was_stun(&error) => {}
            ListenError::Transport(error) => {
                let reason = if timed_out(&error) {
                    HandshakeFailure::Timeout
                } else {
                    HandshakeFailure::Broken
                };
                self.metrics.handshake_failed(reason);
                clock::warn_if_unset();
                // The error of a transport shows nothing of what is in it.
                let error = match error {
                    TransportError::Other(error) => innermost(&error),
                    unsupported @ TransportError::MultiaddrNotSupported(_) => {
                        unsupported.to_string()
                    }
                };
                debug!(%from, ?reason, error, "inbound connection failed");
            }
            // Our own doing: a relay that ends, and one that dials itself.
            ListenError::Aborted => debug!(%from, "inbound connection aborted"),
            ListenError::WrongPeerId { obtained, .. } => {
                debug!(%from, %obtained, "unexpected peer id");
            }
            ListenError::LocalPeerId { .. } => debug!(%from, "connection to ourselves"),
        }
    }

    /// The configuration was read again.
    pub(crate) fn reload(&self, reload: Reload) {
        match reload {
            Reload::Refused(faults) => {
                self.metrics.reloaded(Reloaded::Refused);
                for fault in faults.to_string().lines() {
                    error!(own = Empty, "{fault}");
                }
                warn!(
                    own = Empty,
                    faults = faults.as_slice().len(),
                    "the configuration is wrong and changes nothing; the old rules hold"
                );
            }
            Reload::Read { restart, .. } => {
                self.metrics.reloaded(Reloaded::Applied);
                if !restart.is_empty() {
                    let keys = restart.into_iter().collect::<Vec<_>>().join(", ");
                    warn!(own = Empty, keys, "keys have changed that need a restart");
                }
            }
        }
    }

    /// The relay listens on an address.
    pub(crate) fn listening(&mut self, address: &Multiaddr) {
        debug!(%address, "listening");
        // The lines on stdout are to be copied to peers.
        if !is_link_local(address) {
            written(self.output.listening(address));
        }
    }

    /// The relay does not listen on it any more.
    pub(crate) fn no_longer_listening(&self, address: &Multiaddr) {
        info!(own = Empty, %address, "no longer listening");
    }

    /// Which configured addresses have no listener, and whether peers are served.
    pub(crate) fn readiness<'a>(&self, missing: impl Iterator<Item = &'a Multiaddr>, hop: Hop) {
        readiness::update(&self.readiness, missing, hop);
    }

    /// The relay closes the connections of so many peers.
    pub(crate) fn closing(&self, peers: usize, totals: Totals) {
        info!(own = Empty, peers, circuits = totals.circuits, "closing");
    }
}

/// A reader of stdout that went away must not take the relay with it.
fn written(result: io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "cannot write to stdout");
    }
}
