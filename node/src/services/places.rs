//! Places of local sockets: who waits for one, and who is refused.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use p2pnode_services::core::{
    access::Access,
    sockets::{Holder, Place},
};

use super::{
    Hub,
    offers::{Goal, Offered},
};

/// How often a listener looks for a place. Its clients wait in the queue of the kernel.
const LOOK: Duration = Duration::from_millis(100);

/// How long a listener waits at first that cannot accept, as when no file can be opened, and how long at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(5);

impl Hub {
    /// A place for a socket of `holder`; `None`: it has its share.
    pub(super) fn place(&self, holder: Holder, who: &str) -> Option<Place> {
        match self.sockets().admits(&holder, Instant::now()) {
            Ok(()) => Some(self.sockets().take(holder)),
            Err(full) => {
                if full.is_logged {
                    let (held, all, most) = (full.held, full.all, full.most);
                    tracing::warn!(
                        own = tracing::field::Empty,
                        who,
                        held,
                        all,
                        most,
                        "local sockets of services hold as many files as they may: clients of forwards wait, and sessions of peers are refused. Close what `p2pnode status --sessions` shows and nobody uses, or raise the limit of open files (`ulimit -n`, LimitNOFILE of the service)"
                    );
                }
                None
            }
        }
    }

    /// A place for the target of a session that `peer` opens. A program needs none.
    pub(super) fn place_of(
        &self,
        peer: PeerId,
        offered: &Offered,
        access: &Access,
    ) -> Option<Place> {
        let holder = match (&offered.goal, access.names(&peer)) {
            (Goal::Program(_), _) => return Some(Place::default()),
            (Goal::Target, true) => Holder::Peer(peer),
            (Goal::Target, false) => Holder::Stranger(peer),
        };
        self.place(holder, &peer.to_string())
    }

    /// Waits until `holder` may have another socket. The place is taken once a client has come.
    pub(super) async fn has_place(&self, holder: Holder, who: &str) {
        while self.place(holder, who).is_none() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The pauses of a listener that cannot accept.
#[derive(Debug, Default)]
pub(super) struct Pauses(u32);

impl Pauses {
    /// It has accepted.
    pub(super) fn works(&mut self) {
        self.0 = 0;
    }

    /// It has failed: how long it waits.
    pub(super) fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(8));
        self.0 += 1;
        pause.min(MOST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_without_files_tries_less_and_less_often_until_it_works() {
        let mut pauses = Pauses::default();
        let tries: Duration = (0..10).map(|_| pauses.next()).sum();
        assert!(tries > Duration::from_secs(20), "{tries:?}");
        pauses.works();
        assert_eq!(pauses.next(), FIRST_PAUSE);
    }
}
