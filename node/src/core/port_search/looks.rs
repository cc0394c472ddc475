//! When a relay looks at the range: once per network, before anybody wants a search.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{
    rests::HOUR,
    searches::{Look, SAMPLED, Searches, Step},
    side::{Sample, side},
};

/// After a look at the range has failed, the next one follows after this, then after twice as long.
const LOOKS: Duration = Duration::from_secs(30);

impl Searches {
    /// Whether a relay is to look at the range, although nobody wants a search yet.
    pub(crate) const fn wants_look(&self) -> bool {
        let look = &self.look;
        let is_idle = self.active.is_none() && look.by.is_none() && look.next.is_none();
        self.enabled && is_idle && self.sample.is_none()
    }

    /// This relay can look at the range.
    pub(crate) fn handle_relay(&mut self, relay: PeerId, now: Instant) {
        self.look.by = Some((relay, now + SAMPLED));
        self.steps.push_back(Step::Sample(relay));
    }

    /// A look that nobody waits for is over.
    pub(super) fn looked(&mut self, sample: Option<Sample>, now: Instant) {
        let Some((relay, _)) = self.look.by.take() else {
            return;
        };
        match sample.filter(|sample| side(sample).is_some()) {
            Some(sample) => {
                self.look = Look::default();
                self.sample = Some((relay, sample));
            }
            None => {
                let rest = LOOKS * 2_u32.saturating_pow(self.look.failures);
                self.look.next = Some(now + rest.min(HOUR));
                self.look.failures = (self.look.failures + 1).min(16);
            }
        }
    }

    /// The addresses of this host have changed: what was seen of the range holds no longer.
    pub(crate) fn handle_network_changed(&mut self) {
        self.sample = None;
        if self.look.by.is_some() && self.active.is_none() {
            self.steps.push_back(Step::Stop);
        }
        self.look = Look::default();
    }

    /// A relay sees the punch socket of QUIC here.
    pub(crate) fn handle_seen(&mut self, by: PeerId, at: SocketAddr) {
        let Some((relay, sample)) = &self.sample else {
            return;
        };
        let known = sample.punch.first().filter(|_| *relay == by);
        let is_other = |known: &SocketAddr| {
            // Each connection of a hard side may have another port.
            let is_hard = sample.punch.iter().any(|other| other != known);
            known.ip() != at.ip() || (!is_hard && *known != at)
        };
        if known.is_some_and(|known| known.is_ipv4() == at.is_ipv4() && is_other(known)) {
            self.handle_network_changed();
        }
    }

    /// Whether the NAT is known to map by destination.
    pub(crate) fn is_hard(&self) -> bool {
        let sample = self.sample.as_ref().filter(|_| self.enabled);
        sample.is_some_and(|(_, sample)| sample.punch.iter().any(|at| *at != sample.punch[0]))
    }

    /// Where the relay that has looked at the range sees the punch socket, if the NAT maps it alike for all destinations.
    pub(crate) fn stable_at(&self) -> Option<(PeerId, SocketAddr)> {
        let (relay, sample) = self.sample.as_ref().filter(|_| self.enabled)?;
        let punch = sample.punch.first()?;
        let is_stable = sample.punch.len() > 1 && sample.punch.iter().all(|at| at == punch);
        is_stable.then_some((*relay, *punch))
    }

    /// Ends the task that runs.
    pub(super) fn stop(&mut self) {
        self.look.by = None;
        self.steps.push_back(Step::Stop);
    }
}
