//! `/p2pnode/join/1`, the node's side: presents this node's join token to a relay before anything is asked of it.
//!
//! - [`tokens`]: the file of tokens.
//! - [`words`]: what to say of a relay that refuses; pure.

mod words;

use std::{collections::HashSet, io, time::Duration};

use futures::{
    AsyncWriteExt as _, FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::{
    join::{self, Answer, Refusal, Request},
    upgrade::is_refusal,
};

use crate::swarm::streams::Opening;

pub(crate) use crate::core::tokens::{TokenFileError, Tokens, check as check_file};
pub(crate) use join::PROTOCOL;
pub(crate) use words::refused;

/// How long the relay may take to answer, the opening of the stream included. One that does not is asked for what is wanted all
/// the same.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a relay has made of what was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// This node may use it.
    Admitted,
    /// It may not, and why.
    Refused(Refusal),
    /// The relay does not speak the protocol, and so asks for no token.
    Unsupported,
    /// No answer.
    Nothing,
}

/// The end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whom it was with.
    pub(crate) relay: PeerId,
    /// On which connection.
    pub(crate) connection: ConnectionId,
    /// What came of it.
    pub(crate) told: Told,
    /// Whether the relay had been asked on this connection before.
    pub(crate) again: bool,
}

/// The exchanges that are under way.
#[derive(Default)]
pub(crate) struct Exchanges {
    futures: FuturesUnordered<BoxFuture<'static, Outcome>>,
    open: HashSet<(PeerId, ConnectionId)>,
}

impl Exchanges {
    /// Presents `token`, or only this node itself, over a stream that is being opened.
    pub(crate) fn present(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        token: Option<String>,
        again: bool,
        stream: Opening,
    ) {
        self.open.insert((relay, connection));
        let outcome = move |told| Outcome {
            relay,
            connection,
            told,
            again,
        };
        let exchange = tokio::time::timeout(TIMEOUT, ask(stream, Request { token }));
        let exchange = exchange.map(|told| told.unwrap_or(Told::Nothing));
        self.futures.push(exchange.map(outcome).boxed());
    }

    /// Whether a relay has not answered yet.
    pub(crate) fn is_awaited(&self, relay: &PeerId) -> bool {
        self.open.iter().any(|(of, _)| of == relay)
    }

    /// The next exchange that ends.
    pub(crate) async fn next(&mut self) -> Outcome {
        match self.futures.next().await {
            Some(outcome) => {
                self.open.remove(&(outcome.relay, outcome.connection));
                outcome
            }
            // None is under way. The event loop asks again after it began one.
            None => std::future::pending().await,
        }
    }
}

async fn ask(stream: Opening, request: Request) -> Told {
    let mut stream = match stream.await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "the relay was not asked to admit this node");
            return Told::Nothing;
        }
    };
    // The relay's leg lives for its own reasons.
    stream.ignore_for_keep_alive();
    let answered: io::Result<Answer> = async {
        join::write(&mut stream, &request).await?;
        stream.close().await?;
        join::read(&mut stream).await
    }
    .await;
    match answered {
        Ok(Answer::Admitted(_)) => Told::Admitted,
        Ok(Answer::Refused(refusal)) => Told::Refused(refusal),
        Err(error) if is_refusal(&error) => Told::Unsupported,
        Err(error) => {
            tracing::debug!(%error, "the relay does not say whether it admits this node");
            Told::Nothing
        }
    }
}
