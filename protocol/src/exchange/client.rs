//! The requests to the remote on one connection.

use std::{
    collections::VecDeque,
    future::ready,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt as _;
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{NegotiationError, ReadyUpgrade},
    swarm::{StreamUpgradeError, SubstreamProtocol, handler::ProtocolsChange},
};
use tokio::time::{Sleep, sleep};

use super::{Protocol, Reply, TIMEOUT, ask, failed};
use crate::{pending_futures::PendingFutures, upgrade::Listed};

/// Requests that wait for a stream, and those that wait for an answer.
pub(super) struct Client<P: Protocol> {
    max_concurrent: usize,
    listed: Listed,
    /// How long requests wait for the remote to identify itself.
    patience: Option<Pin<Box<Sleep>>>,
    waiting: VecDeque<P::Request>,
    /// Streams that are being opened.
    opening: usize,
    asking: PendingFutures<(P::Request, Reply<P::Answer>)>,
    ended: VecDeque<(P::Request, Reply<P::Answer>)>,
}

/// What [`Client::poll`] has for the handler.
pub(super) enum Step<P: Protocol> {
    /// Open a stream.
    Open(SubstreamProtocol<ReadyUpgrade<StreamProtocol>, P::Request>),
    /// An exchange has ended.
    Ended(P::Request, Reply<P::Answer>),
}

impl<P: Protocol> Client<P> {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self {
            max_concurrent,
            listed: Listed::Unknown,
            patience: None,
            waiting: VecDeque::new(),
            opening: 0,
            asking: PendingFutures::default(),
            ended: VecDeque::new(),
        }
    }

    pub(super) fn eager(&mut self) {
        self.listed = Listed::Yes;
    }

    pub(super) fn handle_change(&mut self, change: &ProtocolsChange<'_>) {
        self.listed.handle_change(change, &P::NAME);
    }

    /// Asks, or ends with [`Reply::NoAnswer`] at once if too many requests are under way.
    pub(super) fn ask(&mut self, request: P::Request) {
        if self.waiting.len() + self.opening + self.asking.len() < self.max_concurrent {
            self.waiting.push_back(request);
        } else {
            self.ended.push_back((request, Reply::NoAnswer));
        }
    }

    pub(super) fn opened(&mut self, stream: Stream, request: P::Request) {
        self.opening = self.opening.saturating_sub(1);
        let exchange = async move {
            let reply = ask::<P>(ready(Ok(stream)), &request).await;
            (request, reply)
        };
        self.asking.push(exchange.boxed());
    }

    pub(super) fn not_opened(
        &mut self,
        error: StreamUpgradeError<std::convert::Infallible>,
        request: P::Request,
    ) {
        self.opening = self.opening.saturating_sub(1);
        let error = match error {
            StreamUpgradeError::NegotiationFailed => NegotiationError::Failed.into(),
            StreamUpgradeError::Timeout => std::io::ErrorKind::TimedOut.into(),
            StreamUpgradeError::Io(error) => error,
            StreamUpgradeError::Apply(never) => match never {},
        };
        self.ended.push_back((request, failed::<P>(error)));
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step<P>> {
        if self.listed == Listed::Yes
            && let Some(request) = self.waiting.pop_front()
        {
            self.opening += 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(P::NAME), request);
            return Poll::Ready(Step::Open(protocol.with_timeout(TIMEOUT)));
        }
        self.refuse(cx);
        if let Some((request, reply)) = self.ended.pop_front() {
            return Poll::Ready(Step::Ended(request, reply));
        }
        self.asking
            .poll(cx)
            .map(|(request, reply)| Step::Ended(request, reply))
    }

    /// Ends the requests to a remote that does not list the protocol, or that has not identified itself in time.
    fn refuse(&mut self, cx: &mut Context<'_>) {
        if self.waiting.is_empty() {
            self.patience = None;
            return;
        }
        let is_silent = match self.listed {
            Listed::Yes => return,
            Listed::No => false,
            Listed::Unknown => {
                let patience = &mut self.patience;
                let sleep = patience.get_or_insert_with(|| Box::pin(sleep(TIMEOUT)));
                if sleep.poll_unpin(cx).is_pending() {
                    return;
                }
                true
            }
        };
        for request in self.waiting.drain(..) {
            let reply = match is_silent {
                true => Reply::NoAnswer,
                false => Reply::Unsupported,
            };
            self.ended.push_back((request, reply));
        }
    }
}
