//! One question and its answer.

use std::time::Duration;

use futures::AsyncWriteExt as _;
use p2pnode_protocol::hop::{self, Answer, Leg, Refusal, Request};

use crate::swarm::streams::{OpenError, Opening};

/// How long the relay may take to answer, the opening of the stream included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Told {
    /// The other leg.
    Leg(Leg),
    /// The relay tells nothing, and why.
    Refused(Refusal),
    /// The relay does not speak the protocol: another implementation.
    Unsupported,
    /// No answer.
    Nothing,
}

/// Asks over a stream that is being opened.
pub(super) async fn ask(stream: Opening, request: Request) -> Told {
    let exchange = async {
        let mut stream = match stream.await {
            Ok(stream) => stream,
            Err(OpenError::Unsupported) => return Told::Unsupported,
            Err(
                error @ (OpenError::Timeout
                | OpenError::Closed
                | OpenError::Busy
                | OpenError::Broken(_)),
            ) => {
                tracing::debug!(%error, "the relay was not asked about the other leg of a circuit");
                return Told::Nothing;
            }
        };
        // The relay's leg lives for its own reasons.
        stream.ignore_for_keep_alive();
        let answered = async {
            hop::write(&mut stream, &request).await?;
            stream.close().await?;
            hop::read(&mut stream).await
        };
        match answered.await {
            Ok(Answer::Leg(leg)) => Told::Leg(leg),
            Ok(Answer::Refused(refusal)) => Told::Refused(refusal),
            Err(error) => {
                tracing::debug!(%error, "no answer about the other leg of a circuit");
                Told::Nothing
            }
        }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or(Told::Nothing)
}
