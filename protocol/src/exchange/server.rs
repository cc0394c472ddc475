//! The requests of the remote on one connection.

use std::{
    io,
    task::{Context, Poll},
};

use futures::{AsyncWriteExt as _, FutureExt as _, channel::oneshot};
use libp2p::Stream;
use tracing::debug;

use super::{Protocol, in_time};
use crate::pending_futures::PendingFutures;

/// Requests that are being read, and answers that are awaited or being written.
pub(super) struct Server<P: Protocol> {
    max_concurrent: usize,
    reading: PendingFutures<io::Result<(Stream, P::Request)>>,
    answering: PendingFutures<io::Result<()>>,
}

impl<P: Protocol> Server<P> {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self {
            max_concurrent,
            reading: PendingFutures::default(),
            answering: PendingFutures::default(),
        }
    }

    /// The remote has opened a stream.
    pub(super) fn accept(&mut self, mut stream: Stream) {
        if self.reading.len() + self.answering.len() >= self.max_concurrent {
            debug!(protocol = %P::NAME, open = self.max_concurrent, "dropped a request: too many on this connection");
            return;
        }
        stream.ignore_for_keep_alive();
        let reading = in_time(async move {
            let request = P::read_request(&mut stream).await?;
            Ok((stream, request))
        });
        self.reading.push(reading.boxed());
    }

    /// The next request, and where its answer goes. A sender that is dropped closes the stream without an answer.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(P::Request, oneshot::Sender<P::Answer>)> {
        while let Poll::Ready(read) = self.reading.poll(cx) {
            match read {
                Ok((stream, request)) => {
                    let (reply, answer) = oneshot::channel();
                    self.answering
                        .push(in_time(give::<P>(stream, answer)).boxed());
                    return Poll::Ready((request, reply));
                }
                Err(error) => debug!(protocol = %P::NAME, %error, "no request on a stream"),
            }
        }
        while let Poll::Ready(answered) = self.answering.poll(cx) {
            if let Err(error) = answered {
                debug!(protocol = %P::NAME, %error, "an answer was not delivered");
            }
        }
        Poll::Pending
    }
}

async fn give<P: Protocol>(
    mut stream: Stream,
    answer: oneshot::Receiver<P::Answer>,
) -> io::Result<()> {
    // An error means that the sender was dropped.
    if let Ok(answer) = answer.await {
        P::write_answer(&mut stream, answer).await?;
    }
    stream.close().await
}
