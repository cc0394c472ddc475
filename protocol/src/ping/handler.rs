//! The pings of one connection. What a remote can make it hold is [`MAX_INBOUND`] streams of 32 bytes each.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
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
use tokio::time::{Instant, Sleep, sleep};

use super::{Failure, PROTOCOL, Pace};
use crate::upgrade::{Confirmed, Unsupported, is_refusal};

/// Bytes of a ping.
const SIZE: usize = 32;

/// A timer that rings this late rings in a process that did not run. What came meanwhile lies unread.
const LATE: Duration = Duration::from_millis(250);

/// Streams on which pings are answered; the specification has at most two per peer. The oldest gives way.
const MAX_INBOUND: usize = 2;

/// Ping now.
#[derive(Debug)]
pub struct Now;

/// What came of a ping.
#[derive(Debug)]
pub struct Outcome {
    pub(super) result: Result<Duration, Failure>,
    pub(super) missed: u32,
    pub(super) asked: bool,
}

/// The handler of one connection.
pub struct Handler {
    pace: Pace,
    inbound: VecDeque<BoxFuture<'static, io::Error>>,
    outbound: Outbound,
    /// When the next ping is due.
    due: Pin<Box<Sleep>>,
    /// Somebody waits for a ping.
    asked: bool,
    missed: u32,
    /// Whether the remote answers more than once on a stream.
    reuse: bool,
    /// Numbers the pings, so that a stream that comes late is told from the one that is awaited.
    number: u64,
}

enum Outbound {
    /// Between two pings, with the stream of the last one.
    Idle(Option<Stream>),
    Pinging(Ping),
    /// The remote does not speak the protocol.
    Mute,
}

/// A ping that is under way.
struct Ping {
    deadline: Patience,
    /// Over the stream of an earlier one.
    kept: Option<Exchange>,
    /// Over a stream of its own.
    fresh: Fresh,
    /// The answer on the kept stream, if it came after that had had its chance. It may be late because the path is slow, or
    /// because the remote had to be woken by a fresh stream; the fresh one tells which.
    late: Option<(Stream, Duration)>,
    /// The kept stream has had its chance.
    silent: bool,
}

type Exchange = BoxFuture<'static, io::Result<(Stream, Duration)>>;

/// A time in which something is to happen.
struct Patience {
    length: Duration,
    sleep: Pin<Box<Sleep>>,
}

enum Fresh {
    /// Not before then, to give the kept stream its chance.
    After(Patience),
    Opening,
    Pinging(Exchange),
    Failed(Failure),
}

impl Handler {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            inbound: VecDeque::new(),
            outbound: Outbound::Idle(None),
            due: Box::pin(sleep(Duration::ZERO)),
            asked: false,
            missed: 0,
            reuse: true,
            number: 0,
        }
    }

    fn begin(&mut self, kept: Option<Stream>) {
        self.number += 1;
        // A stream that is silent is given less than half of the time, so that a fresh one has the rest.
        let patience = self.pace.timeout * 2 / 5;
        let kept = kept
            .filter(|_| self.reuse)
            .map(|stream| exchange(stream).boxed());
        let wait = if kept.is_some() {
            patience
        } else {
            Duration::ZERO
        };
        self.outbound = Outbound::Pinging(Ping {
            deadline: Patience::new(self.pace.timeout),
            kept,
            fresh: Fresh::After(Patience::new(wait)),
            late: None,
            silent: false,
        });
    }

    fn end(&mut self, result: Result<(Stream, Duration), Failure>) -> Outcome {
        let (stream, result, wait) = match result {
            Ok((stream, rtt)) => (Some(stream), Ok(rtt), self.pace.interval),
            // The wait has been long enough.
            Err(Failure::Timeout) => (None, Err(Failure::Timeout), Duration::ZERO),
            Err(failure) => (None, Err(failure), self.pace.interval),
        };
        self.missed = match &result {
            Ok(_) | Err(Failure::Unsupported) => 0,
            Err(Failure::Timeout | Failure::Broken(_)) => self.missed.saturating_add(1),
        };
        self.outbound = match &result {
            Err(Failure::Unsupported) => Outbound::Mute,
            Ok(_) | Err(_) => Outbound::Idle(stream),
        };
        self.due.as_mut().reset(Instant::now() + wait);
        Outcome {
            result,
            missed: self.missed,
            asked: std::mem::take(&mut self.asked),
        }
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match &mut self.outbound {
                Outbound::Idle(kept) => {
                    if !self.asked {
                        futures::ready!(self.due.poll_unpin(cx));
                    }
                    let kept = kept.take();
                    self.begin(kept);
                }
                Outbound::Pinging(ping) => {
                    let step = futures::ready!(ping.poll(cx));
                    return Poll::Ready(match step {
                        PingStep::Open => Step::Open,
                        PingStep::Done { result, fresh_only } => {
                            self.reuse &= !fresh_only;
                            Step::Tell(self.end(result))
                        }
                    });
                }
                Outbound::Mute if self.asked => {
                    return Poll::Ready(Step::Tell(self.end(Err(Failure::Unsupported))));
                }
                Outbound::Mute => return Poll::Pending,
            }
        }
    }
}

/// What is to be done.
enum Step {
    Open,
    Tell(Outcome),
}

enum PingStep {
    Open,
    Done {
        result: Result<(Stream, Duration), Failure>,
        /// A fresh stream was answered where an earlier one was not.
        fresh_only: bool,
    },
}

impl Ping {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<PingStep> {
        let done = |result, fresh_only| Poll::Ready(PingStep::Done { result, fresh_only });
        if let Some(kept) = &mut self.kept
            && let Poll::Ready(answered) = kept.poll_unpin(cx)
        {
            self.kept = None;
            match answered {
                Ok(answered) if self.silent => self.late = Some(answered),
                Ok(answered) => return done(Ok(answered), false),
                // The remote has closed it: another one, at once.
                Err(error) => {
                    tracing::trace!(%error, "the stream of earlier pings broke");
                    if let Fresh::After(wait) = &mut self.fresh {
                        *wait = Patience::new(Duration::ZERO);
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
            // As long as there is a stream that served before, it may still do.
            Fresh::Failed(failure @ (Failure::Unsupported | Failure::Broken(_)))
                if self.kept.is_none() =>
            {
                std::mem::replace(failure, Failure::Timeout)
            }
            Fresh::After(_) | Fresh::Opening | Fresh::Pinging(_) | Fresh::Failed(_) => {
                futures::ready!(self.deadline.poll(cx));
                Failure::Timeout
            }
        };
        done(self.late.take().ok_or(failure), false)
    }
}

impl Patience {
    fn new(length: Duration) -> Self {
        Self {
            length,
            sleep: Box::pin(sleep(length)),
        }
    }

    /// Ready when nothing has happened in that time, of which this process was there to see the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            futures::ready!(self.sleep.poll_unpin(cx));
            let now = Instant::now();
            if now < self.sleep.deadline() + LATE {
                return Poll::Ready(());
            }
            tracing::debug!(
                "this process did not run when a ping's time was up: it has it once more"
            );
            self.sleep.as_mut().reset(now + self.length);
        }
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
async fn answer(mut stream: Stream) -> io::Error {
    let mut ping = [0; SIZE];
    loop {
        let answered = async {
            stream.read_exact(&mut ping).await?;
            stream.write_all(&ping).await?;
            stream.flush().await
        };
        if let Err(error) = answered.await {
            return error;
        }
        // A remote that pings without a pause is not to keep the connection's task to itself.
        tokio::task::yield_now().await;
    }
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

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, u64, Outcome>> {
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
                // The ping goes out with the proposal: the first on a connection takes one round trip, as the others do.
                protocol: SubstreamProtocol::new(Confirmed::unconfirmed(PROTOCOL), self.number)
                    // The ping's own deadline is the one that counts.
                    .with_timeout(self.pace.timeout * 2),
            },
            Step::Tell(outcome) => ConnectionHandlerEvent::NotifyBehaviour(outcome),
        })
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the remote's protocols and addresses are not needed"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), u64>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: mut stream,
                ..
            }) => {
                stream.ignore_for_keep_alive();
                if self.inbound.len() == MAX_INBOUND {
                    self.inbound.pop_front();
                }
                self.inbound.push_back(answer(stream).boxed());
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
