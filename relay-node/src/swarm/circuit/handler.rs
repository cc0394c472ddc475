//! The handshakes on one connection. A remote can make it hold [`MAX_HANDSHAKES`] streams, each with one message of bounded
//! length and for a bounded time. As many may be in their refusal.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
};

use either::Either;
use futures::{FutureExt as _, channel::oneshot};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::{DeniedUpgrade, ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};

use p2pnode_protocol::{
    behaviour::{EventOf, PollOf},
    circuit::{Fault, HOP, Request, STOP, Status, refused},
    pending_futures::PendingFutures,
};

use super::exchange::{self, Ask, Heard, Joined, NotTaken, Onward};
use crate::core::CircuitId;

/// Requests at once on one connection. One that calls every peer of a large fleet stays below; what goes beyond is refused.
const MAX_HANDSHAKES: usize = 128;

/// Questions at once to the peer of one connection; the others wait. libp2p's relay client takes ten at a time and drops what
/// goes beyond.
const MAX_QUESTIONS: usize = 10;

/// What the behaviour commands.
#[derive(Debug)]
pub(crate) enum Command {
    /// Whether to offer HOP.
    Serve(bool),
    /// Ask the peer to take a circuit.
    Ask(Ask),
}

/// What a handler reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The peer asks for a reservation.
    Reserve(oneshot::Sender<Response>),
    /// The peer asks for a circuit.
    Connect {
        destination: PeerId,
        reply: oneshot::Sender<Response>,
    },
    /// The reservation that the peer got could not be delivered.
    Undelivered(io::Error),
    /// Both sides of a circuit are there, and know it.
    Joined {
        id: CircuitId,
        source: Stream,
        destination: Stream,
    },
    /// A circuit was not made: the destination did not take it.
    NotTaken { id: CircuitId, why: NotTaken },
    /// A circuit was not made: the answer could not be delivered to the source.
    CircuitUndelivered { id: CircuitId, why: io::Error },
    /// The peer has not asked as it should.
    Fault(Fault),
    /// The peer asks too much at once.
    TooMany,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Response {
    /// It is answered.
    Answer {
        message: Vec<u8>,
        /// Whether it is a new reservation, which ends if the answer cannot be delivered.
        grants: bool,
    },
    /// The destination was asked.
    Wait(Onward),
}

/// What a step of a handshake came to.
enum Step {
    Heard(Heard),
    Answered {
        grants: bool,
        delivered: io::Result<()>,
    },
    Joined(CircuitId, Joined),
    /// Nobody judges any more.
    Over,
}

/// The handler of one connection.
pub(crate) struct Handler {
    serves: bool,
    handshakes: PendingFutures<Step>,
    /// What is to be asked and waits for its turn.
    waiting: VecDeque<Ask>,
    /// What waits for its stream.
    opening: VecDeque<Ask>,
    asking: PendingFutures<()>,
    reports: VecDeque<Report>,
}

impl Handler {
    /// A handler that offers HOP if it `serves`.
    pub(super) fn new(serves: bool) -> Self {
        Self {
            serves,
            handshakes: PendingFutures::default(),
            waiting: VecDeque::new(),
            opening: VecDeque::new(),
            asking: PendingFutures::default(),
            reports: VecDeque::new(),
        }
    }

    fn hop(&mut self, stream: Stream) {
        let handshakes = self.handshakes.len();
        if handshakes < MAX_HANDSHAKES {
            let heard = exchange::hear(stream).map(Step::Heard);
            self.handshakes.push(heard.boxed());
            return;
        }
        self.reports.push_back(Report::TooMany);
        // Nobody who waits for answers comes here.
        if handshakes < 2 * MAX_HANDSHAKES {
            self.refuse(stream, Status::ResourceLimitExceeded);
        }
    }

    fn refuse(&mut self, stream: Stream, status: Status) {
        self.answer(stream, refused(status), false);
    }

    fn answer(&mut self, stream: Stream, message: Vec<u8>, grants: bool) {
        let answered = exchange::answer(stream, message);
        let answered = answered.map(move |delivered| Step::Answered { grants, delivered });
        self.handshakes.push(answered.boxed());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Heard(Heard::Request(stream, request)) => {
                let (reply, verdict) = oneshot::channel();
                self.reports.push_back(match request {
                    Request::Reserve => Report::Reserve(reply),
                    Request::Connect { destination } => Report::Connect { destination, reply },
                });
                self.handshakes.push(judged(stream, verdict).boxed());
            }
            Step::Heard(Heard::Fault(stream, fault)) => {
                self.reports.push_back(Report::Fault(fault));
                self.refuse(stream, fault.status());
            }
            Step::Joined(id, Joined::Both(source, destination)) => {
                self.reports.push_back(Report::Joined {
                    id,
                    source,
                    destination,
                });
            }
            Step::Joined(id, Joined::NotTaken(stream, why)) => {
                self.reports.push_back(Report::NotTaken { id, why });
                self.refuse(stream, Status::ConnectionFailed);
            }
            Step::Joined(id, Joined::Lost(why)) => {
                self.reports
                    .push_back(Report::CircuitUndelivered { id, why });
            }
            Step::Answered {
                grants: true,
                delivered: Err(error),
            } => self.reports.push_back(Report::Undelivered(error)),
            Step::Heard(Heard::Lost(error)) => {
                tracing::debug!(%error, "a stream was lost before it said anything");
            }
            // Nothing depends on whether it was delivered.
            Step::Answered { .. } | Step::Over => {}
        }
    }
}

/// Waits for the verdict and does what it says.
async fn judged(stream: Stream, verdict: oneshot::Receiver<Response>) -> Step {
    match verdict.await {
        Ok(Response::Answer { message, grants }) => {
            let delivered = exchange::answer(stream, message).await;
            Step::Answered { grants, delivered }
        }
        Ok(Response::Wait(onward)) => Step::Joined(onward.id, exchange::join(stream, onward).await),
        Err(oneshot::Canceled) => Step::Over,
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Report;
    type InboundProtocol = Either<ReadyUpgrade<StreamProtocol>, DeniedUpgrade>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let upgrade = if self.serves {
            Either::Left(ReadyUpgrade::new(HOP))
        } else {
            Either::Right(DeniedUpgrade)
        };
        SubstreamProtocol::new(upgrade, ())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollOf<Self> {
        loop {
            if let Some(report) = self.reports.pop_front() {
                if self.reports.is_empty() {
                    // Room for four is more than a kilobyte, for a connection that says something once in an hour.
                    self.reports = VecDeque::new();
                }
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
            }
            if self.opening.len() + self.asking.len() < MAX_QUESTIONS
                && let Some(ask) = self.waiting.pop_front()
            {
                if ask.reply.is_canceled() {
                    continue;
                }
                self.opening.push_back(ask);
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(STOP), ());
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            if let Poll::Ready(step) = self.handshakes.poll(cx) {
                self.step(step);
            } else if let Poll::Ready(()) = self.asking.poll(cx) {
                // The next one has its turn.
            } else {
                return Poll::Pending;
            }
        }
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Serve(serves) => self.serves = serves,
            Command::Ask(ask) => self.waiting.push_back(ask),
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the other events are not about streams of the protocol"
    )]
    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: futures::future::Either::Left(stream),
                ..
            }) => self.hop(stream),
            // Any stream serves any question.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                ..
            }) => {
                if let Some(ask) = self.opening.pop_front() {
                    self.asking.push(exchange::ask(stream, ask).boxed());
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                if let Some(ask) = self.opening.pop_front() {
                    let error = match error {
                        StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                        StreamUpgradeError::NegotiationFailed => {
                            io::Error::other("it does not speak the protocol")
                        }
                        StreamUpgradeError::Io(error) => error,
                        StreamUpgradeError::Apply(never) => match never {},
                    };
                    // An error means that the source is gone.
                    let _ = ask.reply.send(Err(error.into()));
                }
            }
            _ => {}
        }
    }
}
