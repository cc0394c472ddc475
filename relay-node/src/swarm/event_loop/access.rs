//! Who may use the relay: what is presented, what ends, and what a configuration that was read again changes.

use std::time::{Duration, Instant, SystemTime};

use libp2p::PeerId;
use tracing::{debug, error, info, warn};

use super::EventLoop;
use crate::{
    config::reload::Reload,
    core::admission::{Joined, Refused},
    observe::metrics::Reloaded,
};

/// How often it is looked whose token has ended and who has had time enough to present one. What is asked for meanwhile is judged
/// by itself.
pub(super) const ENFORCE: Duration = Duration::from_secs(1);

impl EventLoop {
    pub(super) fn on_joined(&mut self, Joined { peer, outcome }: Joined) {
        match outcome {
            Ok(()) => debug!(%peer, "admitted"),
            // Anybody can cause these: counted, and not logged by default.
            Err(refused) => {
                self.metrics.denied(refused.reason());
                debug!(%peer, ?refused, "not admitted");
            }
        }
    }

    /// Lets go of peers whose admission has ended, and of connections that were not admitted in time.
    pub(super) fn enforce(&mut self) {
        let now = SystemTime::now();
        let expired = self.admission.machine().expire(now);
        for peer in expired {
            self.end_admission(peer, Refused::Expired);
        }
        let overdue = self.admission.machine().overdue(now, Instant::now());
        for (peer, connection) in overdue {
            // False if it is being closed already.
            if self.swarm.close_connection(connection) {
                debug!(%peer, %connection, "closing a connection whose peer was not admitted in time");
            }
        }
    }

    fn end_admission(&mut self, peer: PeerId, refused: Refused) {
        self.metrics.denied(refused.reason());
        info!(%peer, reason = refused.reason().as_str(), "a peer is no longer admitted; closing its connections");
        self.take_back(peer);
        // An error means that it has gone in the meantime.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    pub(super) fn on_reload(&mut self, reload: Reload) {
        match reload {
            Reload::Refused(faults) => {
                self.metrics.reloaded(Reloaded::Refused);
                for fault in faults.to_string().lines() {
                    error!("{fault}");
                }
                warn!(
                    faults = faults.as_slice().len(),
                    "the configuration is wrong and changes nothing; the old rules hold"
                );
            }
            Reload::Read { access, restart } => {
                self.metrics.reloaded(Reloaded::Applied);
                let mut machine = self.admission.machine();
                let rules = machine.rules().renewed(&access);
                let changed = machine.rules().difference(&rules);
                let (tokens, opens) = (
                    rules.take_tokens(),
                    rules.are_open() && !machine.rules().are_open(),
                );
                let ended = machine.set(rules, SystemTime::now());
                drop(machine);
                let disconnected = ended.len();
                for (peer, refused) in ended {
                    self.end_admission(peer, refused);
                }
                info!(
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
                        "access.allow is empty and access.tokens is off now: any peer may use this relay"
                    );
                }
                if !restart.is_empty() {
                    let keys = restart.into_iter().collect::<Vec<_>>().join(", ");
                    warn!(keys, "keys have changed that need a restart");
                }
            }
        }
    }
}
