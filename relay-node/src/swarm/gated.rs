//! Keeps protocols from peers that ask too often, and some from peers that are not admitted. A stream of such a peer is dropped
//! unread, and counted. Both are judged for each stream, since a peer's admission begins and ends while it is connected.

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::{
    Source,
    guarded::{Guard, Guarded, Verdict},
};

use crate::{core::Request, swarm::shared_state::SharedState};

/// A protocol behind [`RelayState`](crate::core::RelayState).
pub(crate) type Gated<B> = Guarded<B, Gate>;

/// Judges as the state does.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    state: SharedState,
    request: Request,
    who: Who,
    /// Whether a stream carries many requests, each of which is judged.
    reports: bool,
}

/// Who may speak a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    Admitted,
}

impl Gate {
    /// Lets anybody ask for this as often as is measured.
    pub(crate) fn open(state: &SharedState, request: Request) -> Self {
        Self {
            state: state.clone(),
            request,
            who: Who::Anybody,
            reports: false,
        }
    }

    /// The same for peers that are admitted.
    pub(crate) fn admitted(state: &SharedState, request: Request) -> Self {
        Self {
            who: Who::Admitted,
            ..Self::open(state, request)
        }
    }

    /// Judges each report of a handler as well.
    pub(crate) fn with_reports(self) -> Self {
        Self {
            reports: true,
            ..self
        }
    }

    fn judge(&self, peer: &PeerId, source: Option<Source>) -> Verdict {
        match self.state.judge(self.request, peer, source) {
            Verdict::Serve => {}
            refused @ (Verdict::Refuse | Verdict::Close) => return refused,
        }
        if self.who == Who::Admitted
            && let Err(refused) = self.state.admits(peer)
        {
            tracing::debug!(%peer, ?refused, "a stream of a peer that is not admitted was dropped");
            return Verdict::Refuse;
        }
        Verdict::Serve
    }
}

impl Guard for Gate {
    type Streams = Box<dyn FnMut() -> Verdict + Send>;

    fn connected(&self, peer: PeerId, remote: &Multiaddr) -> Self::Streams {
        let (gate, asker) = (self.clone(), self.state.asker(peer, Source::of(remote)));
        Box::new(move || gate.judge(&asker.peer, asker.source))
    }

    fn report(&self, peer: PeerId, connection: ConnectionId) -> Verdict {
        match self.reports {
            true => self.state.judge_on(self.request, &peer, connection),
            false => Verdict::Serve,
        }
    }
}
