//! Protocols of one request and one answer: what `/p2pnode/hop/1`, `/p2pnode/join/1` and `/p2pnode/meet/1` have in common.
//!
//! A [`Protocol`] names its messages. The side that asks opens a stream, writes the request, closes its half and reads the
//! answer. The side that serves reads the request, writes the answer and closes the stream. Streams are negotiated lazily, so
//! that a remote does not support the protocol may show only when the answer is read ([`upgrade`](crate::upgrade)). A [`Handler`]
//! asks a remote only if the remote's identify lists the protocol.
//!
//! - [`Asking`] asks over streams that somebody else opens.
//! - [`Handler`] asks and serves over the streams of one connection, and [`Behaviour`] has one for each.
//!
//! A remote can make either side hold a bounded number of streams, each with one message of bounded length, for [`TIMEOUT`].
//! No exchange keeps a connection open.

mod asking;
mod behaviour;
mod client;
mod handler;
mod server;

use std::{fmt, io, time::Duration};

use futures::{AsyncWriteExt as _, future::BoxFuture};
use libp2p::{Stream, StreamProtocol};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use asking::Asking;
pub use behaviour::{Behaviour, Event, Question};
pub use handler::{Handler, Report};

use crate::{frame, upgrade::is_refusal};

/// How long an answer may take, the opening of the stream included. The serving side allows as long for the request, and again
/// for its answer.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A protocol of one request and one answer.
pub trait Protocol: fmt::Debug + Send + 'static {
    /// The protocol's name.
    const NAME: StreamProtocol;
    /// The most bytes of a message.
    const MAX_MESSAGE: usize = frame::MAX_MESSAGE;
    /// The request.
    type Request: Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static;
    /// The answer.
    type Answer: Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static;

    /// Reads the request from a stream.
    fn read_request(stream: &mut Stream) -> BoxFuture<'_, io::Result<Self::Request>> {
        Box::pin(frame::read_up_to(Self::MAX_MESSAGE, stream))
    }

    /// Writes the request to a stream.
    fn write_request<'a>(
        stream: &'a mut Stream,
        request: &'a Self::Request,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(frame::write_up_to(Self::MAX_MESSAGE, stream, request))
    }

    /// Reads the answer from a stream.
    fn read_answer(stream: &mut Stream) -> BoxFuture<'_, io::Result<Self::Answer>> {
        Box::pin(frame::read_up_to(Self::MAX_MESSAGE, stream))
    }

    /// Asks on a stream: the request, the end of this half, the answer.
    fn converse<'a>(
        stream: &'a mut Stream,
        request: &'a Self::Request,
    ) -> BoxFuture<'a, io::Result<Self::Answer>> {
        Box::pin(async move {
            Self::write_request(stream, request).await?;
            stream.close().await?;
            Self::read_answer(stream).await
        })
    }

    /// Writes the answer to a stream.
    fn write_answer(stream: &mut Stream, answer: Self::Answer) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { frame::write_up_to(Self::MAX_MESSAGE, stream, &answer).await })
    }
}

/// How an exchange ended for the side that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<A> {
    /// The remote answered.
    Answer(A),
    /// The remote does not support the protocol: another implementation.
    Unsupported,
    /// No answer came within [`TIMEOUT`], or the stream broke.
    NoAnswer,
}

/// The protocol of the direction in which nobody asks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Never {}

impl Protocol for Never {
    /// Never offered.
    const NAME: StreamProtocol = StreamProtocol::new("/p2pnode/never");
    type Request = Self;
    type Answer = Self;
}

/// One exchange over a stream that is being opened.
pub async fn ask<P: Protocol>(
    stream: impl Future<Output = io::Result<Stream>>,
    request: &P::Request,
) -> Reply<P::Answer> {
    let answer = in_time(async {
        let mut stream = stream.await?;
        stream.ignore_for_keep_alive();
        P::converse(&mut stream, request).await
    });
    match answer.await {
        Ok(answer) => Reply::Answer(answer),
        Err(error) => failed::<P>(error),
    }
}

/// The reply to a request that was not answered.
fn failed<P: Protocol>(error: io::Error) -> Reply<P::Answer> {
    if is_refusal(&error) {
        return Reply::Unsupported;
    }
    tracing::debug!(protocol = %P::NAME, %error, "no answer to a request");
    Reply::NoAnswer
}

async fn in_time<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
}
