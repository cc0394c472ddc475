//! One question and its answer.

use std::time::Duration;

use futures::AsyncWriteExt as _;
use p2pnode_protocol::hop::{self, Answer, Request};

use crate::{
    core::inquiries::HopReply,
    swarm::streams::{OpenError, Opening},
};

/// How long the relay may take to answer, the opening of the stream included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks over a stream that is being opened.
pub(super) async fn ask(stream: Opening, request: Request) -> HopReply {
    let exchange = async {
        let mut stream = match stream.await {
            Ok(stream) => stream,
            Err(OpenError::Unsupported) => return HopReply::Unsupported,
            Err(
                error @ (OpenError::Timeout
                | OpenError::Closed
                | OpenError::Busy
                | OpenError::Broken(_)),
            ) => {
                tracing::debug!(%error, "the relay was not asked about the other leg of a circuit");
                return HopReply::NoAnswer;
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
            Ok(Answer::Leg(leg)) => HopReply::Leg(leg),
            Ok(Answer::Refused(refusal)) => HopReply::Refused(refusal),
            Err(error) => {
                tracing::debug!(%error, "no answer about the other leg of a circuit");
                HopReply::NoAnswer
            }
        }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or(HopReply::NoAnswer)
}
