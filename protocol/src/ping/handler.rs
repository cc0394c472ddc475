//! The pings of one connection. A remote can make the handler hold [`MAX_INBOUND`] streams of 32 bytes each, and answer as often as
//! [`ANSWERS`] says.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, future::BoxFuture};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{
    Failure, PROTOCOL, Pace, Patience, Received,
    timers::{Deadline, Wait},
};
use crate::{
    behaviour::{EventOf, PollOf},
    bucket::{Bucket, Measure},
    upgrade::{Confirmed, Unsupported, is_refusal},
};

/// Bytes of a ping.
const SIZE: usize = 32;

/// Missed pings whose answers are still taken.
const OVERDUE: usize = 4;

/// Streams on which pings are answered; the specification allows two per peer. A further one replaces the oldest.
const MAX_INBOUND: usize = 2;

/// Pings that are answered, and streams that are opened for them. Nodes ping once a second. A ping beyond it is read later, and a
/// stream beyond it is reset.
const ANSWERS: Measure = Measure {
    burst: 64,
    period: Duration::from_millis(100),
};

/// Ping now.
#[derive(Debug)]
pub struct Now;

/// The outcome of a ping.
#[derive(Debug)]
pub struct Outcome {
    pub(super) result: Result<Duration, Failure>,
    pub(super) missed: u32,
    pub(super) asked: bool,
}

/// The handler of one connection.
pub struct Handler {
    pace: Pace,
    patience: Patience,
    received: Option<Received>,
    /// Pings of the remote that were read.
    heard: Arc<AtomicU64>,
    inbound: VecDeque<BoxFuture<'static, io::Error>>,
    /// What is left of [`ANSWERS`], for pings and for streams, once the remote has pinged.
    answers: Option<(Arc<Mutex<Bucket>>, Bucket)>,
    outbound: Outbound,
    /// Pings that were missed. A late answer is an answer: the path is slow.
    overdue: Vec<Exchange>,
    /// When the next ping is due.
    due: Pin<Box<Sleep>>,
    /// A ping was requested.
    asked: bool,
    missed: u32,
    /// Whether the remote answers more than once on a stream.
    reuse: bool,
    /// The number of the current ping: a stream for an earlier one opened too late.
    number: u64,
}

enum Outbound {
    /// Between two pings, with the stream of the last one.
    Idle(Option<Stream>),
    Pinging(Ping),
    /// The remote does not support the protocol.
    Unsupported,
}

/// A ping that is under way.
struct Ping {
    deadline: Deadline,
    /// Over the stream of an earlier ping.
    kept: Option<Exchange>,
    /// Over a new stream.
    fresh: Fresh,
    /// The answer on the kept stream, if it arrived after the new stream was requested. Either the path is slow, or only the new
    /// stream woke the remote; the answer on the new stream shows which.
    late: Option<(Stream, Duration)>,
    /// The kept stream has not answered in its time.
    silent: bool,
}

type Exchange = BoxFuture<'static, io::Result<(Stream, Duration)>>;

enum Fresh {
    /// Not before this deadline, which is for the kept stream.
    After(Wait),
    Opening,
    Pinging(Exchange),
    Failed(Failure),
}

impl Handler {
    pub(super) fn new(pace: Pace, received: Option<Received>) -> Self {
        Self {
            pace,
            patience: Patience::default(),
            received,
            heard: Arc::default(),
            inbound: VecDeque::new(),
            answers: None,
            outbound: Outbound::Idle(None),
            overdue: Vec::new(),
            due: Box::pin(sleep(Duration::ZERO)),
            asked: false,
            missed: 0,
            reuse: true,
            number: 0,
        }
    }

    fn begin(&mut self, kept: Option<Stream>) {
        self.number += 1;
        // The kept stream gets less than half of the time, so that a new one has the rest.
        let timeout = self.patience.timeout(self.pace);
        let patience = timeout * 2 / 5;
        let kept = kept
            .filter(|_| self.reuse)
            .map(|stream| exchange(stream).boxed());
        let wait = if kept.is_some() {
            patience
        } else {
            Duration::ZERO
        };
        self.outbound = Outbound::Pinging(Ping {
            deadline: Deadline::new(timeout, self.patience.longest(self.pace), self.signs()),
            kept,
            fresh: Fresh::After(Wait::new(wait)),
            late: None,
            silent: false,
        });
    }

    /// Grows with each sign of life.
    fn signs(&self) -> u64 {
        let received = self.received.as_ref().map_or(0, |received| received());
        received.wrapping_add(self.heard.load(Ordering::Relaxed))
    }

    fn end(&mut self, result: Result<(Stream, Duration), Failure>) -> Outcome {
        let (stream, result, wait) = match result {
            Ok((stream, rtt)) => {
                self.patience.handle_round_trip(rtt);
                (Some(stream), Ok(rtt), self.pace.interval)
            }
            // The timeout was the wait.
            Err(Failure::Timeout) => (None, Err(Failure::Timeout), Duration::ZERO),
            Err(failure) => (None, Err(failure), self.pace.interval),
        };
        if result.is_ok() {
            self.overdue.clear();
        }
        self.missed = match &result {
            Ok(_) | Err(Failure::Unsupported) => 0,
            Err(Failure::Timeout | Failure::Broken(_)) => self.missed.saturating_add(1),
        };
        self.outbound = match &result {
            Err(Failure::Unsupported) => Outbound::Unsupported,
            Ok(_) | Err(_) => Outbound::Idle(stream),
        };
        self.due.as_mut().reset(Instant::now() + wait);
        Outcome {
            result,
            missed: self.missed,
            asked: std::mem::take(&mut self.asked),
        }
    }

    /// Keeps the exchanges of a ping that is missed.
    fn put_off(&mut self) {
        if let Outbound::Pinging(ping) = &mut self.outbound {
            let fresh = match std::mem::replace(&mut ping.fresh, Fresh::Opening) {
                Fresh::Pinging(exchange) => Some(exchange),
                Fresh::After(_) | Fresh::Opening | Fresh::Failed(_) => None,
            };
            self.overdue
                .extend(ping.kept.take().into_iter().chain(fresh));
            let surplus = self.overdue.len().saturating_sub(OVERDUE);
            self.overdue.drain(..surplus);
        }
    }

    /// A late answer.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Option<(Stream, Duration)> {
        let mut late = None;
        self.overdue
            .retain_mut(|exchange| match exchange.poll_unpin(cx) {
                Poll::Ready(Ok(answered)) => {
                    late = Some(answered);
                    false
                }
                Poll::Ready(Err(_)) => false,
                Poll::Pending => true,
            });
        late
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(late) = self.poll_overdue(cx) {
            return Poll::Ready(Step::Report(self.end(Ok(late))));
        }
        loop {
            let (received, heard) = (&self.received, &self.heard);
            let signs = || {
                let received = received.as_ref().map_or(0, |received| received());
                received.wrapping_add(heard.load(Ordering::Relaxed))
            };
            match &mut self.outbound {
                Outbound::Idle(kept) => {
                    if !self.asked {
                        futures::ready!(self.due.poll_unpin(cx));
                    }
                    let kept = kept.take();
                    self.begin(kept);
                }
                Outbound::Pinging(ping) => {
                    let step = futures::ready!(ping.poll(signs, cx));
                    return Poll::Ready(match step {
                        PingStep::Open => Step::Open,
                        PingStep::Done { result, fresh_only } => {
                            self.reuse &= !fresh_only;
                            if matches!(result, Err(Failure::Timeout)) {
                                self.put_off();
                            }
                            Step::Report(self.end(result))
                        }
                    });
                }
                Outbound::Unsupported if self.asked => {
                    return Poll::Ready(Step::Report(self.end(Err(Failure::Unsupported))));
                }
                Outbound::Unsupported => return Poll::Pending,
            }
        }
    }
}

/// What the handler does next.
enum Step {
    Open,
    Report(Outcome),
}

enum PingStep {
    Open,
    Done {
        result: Result<(Stream, Duration), Failure>,
        /// The new stream was answered, and the kept one was not.
        fresh_only: bool,
    },
}

impl Ping {
    fn poll(&mut self, signs: impl Fn() -> u64, cx: &mut Context<'_>) -> Poll<PingStep> {
        let done = |result, fresh_only| Poll::Ready(PingStep::Done { result, fresh_only });
        if let Some(kept) = &mut self.kept
            && let Poll::Ready(answered) = kept.poll_unpin(cx)
        {
            self.kept = None;
            match answered {
                Ok(answered) if self.silent => self.late = Some(answered),
                Ok(answered) => return done(Ok(answered), false),
                // The remote has closed the stream: open another one at once.
                Err(error) => {
                    tracing::trace!(%error, "the stream of earlier pings broke");
                    if let Fresh::After(wait) = &mut self.fresh {
                        *wait = Wait::new(Duration::ZERO);
                    }
                }
            }
        }
        if let Fresh::After(wait) = &mut self.fresh
            && wait.poll(cx).is_ready()
        {
            self.silent = self.kept.is_some();
            self.fresh = Fresh::Opening;
            return Poll::Ready(PingStep::Open);
        }
        if let Fresh::Pinging(exchange) = &mut self.fresh
            && let Poll::Ready(answered) = exchange.poll_unpin(cx)
        {
            match answered {
                Ok((stream, rtt)) => {
                    let slow_path = self.late.as_ref().is_some_and(|(_, late)| *late < rtt * 2);
                    return done(Ok((stream, rtt)), self.silent && !slow_path);
                }
                Err(error) if is_refusal(&error) => {
                    self.fresh = Fresh::Failed(Failure::Unsupported);
                }
                Err(error) => self.fresh = Fresh::Failed(Failure::Broken(error)),
            }
        }
        let failure = match &mut self.fresh {
            // A kept stream may still be answered.
            Fresh::Failed(failure @ (Failure::Unsupported | Failure::Broken(_)))
                if self.kept.is_none() =>
            {
                std::mem::replace(failure, Failure::Timeout)
            }
            Fresh::After(_) | Fresh::Opening | Fresh::Pinging(_) | Fresh::Failed(_) => {
                futures::ready!(self.deadline.poll(signs, cx));
                Failure::Timeout
            }
        };
        done(self.late.take().ok_or(failure), false)
    }
}

/// Sends a ping and waits for its answer.
async fn exchange(mut stream: Stream) -> io::Result<(Stream, Duration)> {
    let mut ping = [0; SIZE];
    fastrand::fill(&mut ping);
    let sent = Instant::now();
    stream.write_all(&ping).await?;
    stream.flush().await?;
    let mut answer = [0; SIZE];
    stream.read_exact(&mut answer).await?;
    if answer != ping {
        let text = "the answer to a ping is not the ping";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok((stream, sent.elapsed()))
}

/// Answers pings until the stream ends.
async fn answer(
    mut stream: Stream,
    answers: Arc<Mutex<Bucket>>,
    heard: Arc<AtomicU64>,
) -> io::Error {
    let mut ping = [0; SIZE];
    loop {
        // One answer is used up by a ping that is awaited.
        while let Some(ready) = wait(&answers) {
            sleep_until(ready).await;
        }
        let answered = async {
            stream.read_exact(&mut ping).await?;
            heard.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&ping).await?;
            stream.flush().await
        };
        if let Err(error) = answered.await {
            return error;
        }
        // A remote that pings without a pause must not occupy the task of the connection.
        tokio::task::yield_now().await;
    }
}

/// Takes one answer, or returns when there is one.
fn wait(answers: &Mutex<Bucket>) -> Option<Instant> {
    let now = Instant::now().into_std();
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = answers.ready_at(ANSWERS, now);
    (!answers.admits(ANSWERS, now)).then(|| ready.into())
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Now;
    type ToBehaviour = Outcome;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = Confirmed;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, _: Now) {
        self.asked = true;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollOf<Self> {
        self.inbound
            .retain_mut(|answering| match answering.poll_unpin(cx) {
                Poll::Ready(error) => {
                    tracing::trace!(%error, "the remote's ping stream ended");
                    false
                }
                Poll::Pending => true,
            });
        self.poll_outbound(cx).map(|step| match step {
            Step::Open => ConnectionHandlerEvent::OutboundSubstreamRequest {
                // The ping goes out with the proposal, so the first one takes one round trip as well.
                protocol: SubstreamProtocol::new(Confirmed::unconfirmed(PROTOCOL), self.number)
                    // The deadline of the ping comes first.
                    .with_timeout(self.patience.longest(self.pace) * 2),
            },
            Step::Report(outcome) => ConnectionHandlerEvent::NotifyBehaviour(outcome),
        })
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the remote's protocols and addresses do not matter"
    )]
    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: mut stream,
                ..
            }) => {
                stream.ignore_for_keep_alive();
                let now = Instant::now().into_std();
                let (answers, streams) = self.answers.get_or_insert_with(|| {
                    let full = Bucket::full(ANSWERS, now);
                    (Arc::new(Mutex::new(full)), full)
                });
                if !streams.admits(ANSWERS, now) {
                    return;
                }
                if self.inbound.len() == MAX_INBOUND {
                    self.inbound.pop_front();
                }
                let answering = answer(stream, Arc::clone(answers), Arc::clone(&self.heard));
                self.inbound.push_back(answering.boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: mut stream,
                info,
            }) if info == self.number => {
                stream.ignore_for_keep_alive();
                if let Outbound::Pinging(ping) = &mut self.outbound {
                    ping.fresh = Fresh::Pinging(exchange(stream).boxed());
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error })
                if info == self.number =>
            {
                if let Outbound::Pinging(ping) = &mut self.outbound {
                    ping.fresh = Fresh::Failed(match error {
                        StreamUpgradeError::NegotiationFailed
                        | StreamUpgradeError::Apply(Unsupported) => Failure::Unsupported,
                        StreamUpgradeError::Timeout => Failure::Timeout,
                        StreamUpgradeError::Io(error) => Failure::Broken(error),
                    });
                }
            }
            _ => {}
        }
    }
}
