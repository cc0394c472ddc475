//! What the event loop and the task of mappings exchange: requests for nonces, and what is mapped.

use std::{future::pending, io};

use libp2p::{PeerId, Stream};
use p2pnode_protocol::{
    exchange::{Asking, Reply},
    probe::{self, Answer, Probe, Request},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    core::mappings::{Claim, RouterFacts, Unchecked},
    observe::status::ExposeStatus,
};

/// What a relay answers, or why it does not.
type Answered = Result<Answer, Unchecked>;

/// Asks a relay for a nonce.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Which relay: this one of those that can be asked, counted round and round.
    pub(crate) relay: usize,
    /// The one that is asked only if there is no other.
    pub(crate) contacted: Option<PeerId>,
    pub(crate) request: Request,
    /// Dropped if no relay is connected.
    pub(crate) answer: oneshot::Sender<Answered>,
}

/// What comes from the task of mappings.
#[derive(Debug)]
pub(crate) enum News {
    Ask(Ask),
    Claims(Vec<Claim>),
}

/// The event loop's end.
pub(crate) struct Link {
    asks: mpsc::Receiver<Ask>,
    claims: watch::Receiver<Vec<Claim>>,
    router: watch::Receiver<RouterFacts>,
    exposed: watch::Receiver<Vec<ExposeStatus>>,
    exchanges: Asking<oneshot::Sender<Answered>, Probe>,
}

impl Link {
    pub(super) fn new(
        asks: mpsc::Receiver<Ask>,
        claims: watch::Receiver<Vec<Claim>>,
        router: watch::Receiver<RouterFacts>,
        exposed: watch::Receiver<Vec<ExposeStatus>>,
    ) -> Self {
        Self {
            asks,
            claims,
            router,
            exposed,
            exchanges: Asking::default(),
        }
    }

    /// What the router has shown.
    pub(crate) fn router(&self) -> RouterFacts {
        self.router.borrow().clone()
    }

    /// The ports that lead to targets.
    pub(crate) fn exposed(&self) -> Vec<ExposeStatus> {
        self.exposed.borrow().clone()
    }

    /// Sends a request on a stream that is being opened.
    pub(crate) fn ask(
        &mut self,
        ask: Ask,
        stream: impl Future<Output = io::Result<Stream>> + Send + 'static,
    ) {
        self.exchanges.ask(ask.answer, stream, ask.request);
    }

    async fn news(&mut self) -> News {
        loop {
            tokio::select! {
                Some(ask) = self.asks.recv() => return News::Ask(ask),
                Ok(()) = self.claims.changed() => {
                    return News::Claims(self.claims.borrow_and_update().clone());
                }
                (waiting, reply) = self.exchanges.next() => {
                    let answer = match reply {
                        Reply::Answer(answer) => Ok(answer),
                        Reply::Unsupported => Err(Unchecked::Unsupported),
                        Reply::NoAnswer => Err(Unchecked::NoAnswer),
                    };
                    // An error means that the check was given up.
                    let _ = waiting.send(answer);
                }
                else => pending::<()>().await,
            }
        }
    }
}

/// The next news; none without a task.
pub(crate) async fn news(link: &mut Option<Link>) -> News {
    match link {
        Some(link) => link.news().await,
        None => pending().await,
    }
}

pub(crate) use probe::PROTOCOL;
