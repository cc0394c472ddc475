//! `/p2pnode/join/1`, the node's side: presents this node's join token to a relay before anything is asked of it.

use std::{io, time::Duration};

use futures::{
    AsyncWriteExt as _, FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::{
    join::{self, Answer, Request},
    upgrade::is_refusal,
};

use crate::{core::joins::JoinReply, swarm::streams::Opening};

pub(crate) use join::PROTOCOL;

/// How long the relay may take to answer, the opening of the stream included. One that does not is asked for what is wanted all
/// the same.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whom it was with.
    pub(crate) relay: PeerId,
    /// On which connection.
    pub(crate) connection: ConnectionId,
    /// What came of it.
    pub(crate) told: JoinReply,
    /// Whether the relay had been asked on this connection before.
    pub(crate) again: bool,
}

/// The exchanges that are under way.
#[derive(Default)]
pub(crate) struct Exchanges(FuturesUnordered<BoxFuture<'static, Outcome>>);

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
        let outcome = move |told| Outcome {
            relay,
            connection,
            told,
            again,
        };
        let exchange = tokio::time::timeout(TIMEOUT, ask(stream, Request { token }));
        let exchange = exchange.map(|told| told.unwrap_or(JoinReply::NoAnswer));
        self.0.push(exchange.map(outcome).boxed());
    }

    /// The next exchange that ends.
    pub(crate) async fn next(&mut self) -> Outcome {
        match self.0.next().await {
            Some(outcome) => outcome,
            // None is under way. The event loop asks again after it began one.
            None => std::future::pending().await,
        }
    }
}

async fn ask(stream: Opening, request: Request) -> JoinReply {
    let mut stream = match stream.await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "the relay was not asked to admit this node");
            return JoinReply::NoAnswer;
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
        Ok(Answer::Admitted(_)) => JoinReply::Admitted,
        Ok(Answer::Refused(refusal)) => JoinReply::Refused(refusal),
        Err(error) if is_refusal(&error) => JoinReply::Unsupported,
        Err(error) => {
            tracing::debug!(%error, "the relay does not say whether it admits this node");
            JoinReply::NoAnswer
        }
    }
}
