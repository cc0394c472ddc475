//! Judges the streams that a remote opens for a protocol before the protocol sees them.
//!
//! A stream that the [`Guard`] refuses is reset unread. The guard may close the connection of a remote that does not stop. It also
//! judges what the handler of the protocol reports, since some protocols carry many requests on one stream.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        CloseConnection, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};

use crate::{
    behaviour::{EventOf, PollOf},
    bucket::{Bucket, Measure},
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is served.
    Serve,
    /// It is refused.
    Refuse,
    /// It is refused, and its connection is closed.
    Close,
}

/// Who judges.
pub trait Guard: Send + 'static {
    /// What judges the streams of one connection.
    type Streams: FnMut() -> Verdict + Send + 'static;

    /// A connection with `peer` at `remote` is open.
    fn connected(&self, peer: PeerId, remote: &Multiaddr) -> Self::Streams;

    /// Judges a report of the handler. By default each is let through.
    fn report(&self, _peer: PeerId, _connection: ConnectionId) -> Verdict {
        Verdict::Serve
    }
}

/// At most a [`Measure`] of streams on each connection. A connection ends after four times the burst was refused.
#[derive(Clone)]
pub struct PerConnection {
    measure: Measure,
    refused: Arc<dyn Fn(Verdict) + Send + Sync>,
}

impl PerConnection {
    /// `refused` is called with each verdict that is not [`Verdict::Serve`].
    pub fn new(measure: Measure, refused: impl Fn(Verdict) + Send + Sync + 'static) -> Self {
        Self {
            measure,
            refused: Arc::new(refused),
        }
    }
}

impl fmt::Debug for PerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerConnection").field(&self.measure).finish()
    }
}

/// How many times the burst of a measure may be refused before a connection is closed.
const PATIENCE: u32 = 4;

impl Guard for PerConnection {
    type Streams = Box<dyn FnMut() -> Verdict + Send>;

    fn connected(&self, _: PeerId, _: &Multiaddr) -> Self::Streams {
        let (measure, seen) = (self.measure, Arc::clone(&self.refused));
        let patience = Measure {
            burst: measure.burst.saturating_mul(PATIENCE),
            ..measure
        };
        let now = Instant::now();
        let (mut served, mut refused) = (Bucket::full(measure, now), Bucket::full(patience, now));
        Box::new(move || {
            let now = Instant::now();
            if served.admits(measure, now) {
                return Verdict::Serve;
            }
            let verdict = match refused.admits(patience, now) {
                true => Verdict::Refuse,
                false => Verdict::Close,
            };
            seen(verdict);
            verdict
        })
    }
}

/// A behaviour behind a guard.
#[derive(Debug)]
pub struct Guarded<B, G> {
    inner: B,
    guard: G,
    closing: VecDeque<(PeerId, ConnectionId)>,
}

impl<B, G> Guarded<B, G> {
    /// Puts `inner` behind `guard`.
    pub fn new(inner: B, guard: G) -> Self {
        Self {
            inner,
            guard,
            closing: VecDeque::new(),
        }
    }
}

impl<B, G> std::ops::Deref for Guarded<B, G> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B, G> std::ops::DerefMut for Guarded<B, G> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour, G: Guard> NetworkBehaviour for Guarded<B, G> {
    type ConnectionHandler = Handler<THandler<B>, G::Streams>;
    type ToSwarm = B::ToSwarm;

    crate::wraps!(self.inner, |inner, peer, remote| Handler::new(
        inner,
        self.guard.connected(peer, remote)
    ));

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let verdict = match &event {
            Report::Inner(_) => self.guard.report(peer, connection),
            Report::Flooded => Verdict::Close,
        };
        match (verdict, event) {
            (Verdict::Serve, Report::Inner(event)) => {
                self.inner
                    .on_connection_handler_event(peer, connection, event);
            }
            (Verdict::Close, _) => self.closing.push_back((peer, connection)),
            (Verdict::Refuse, _) | (Verdict::Serve, Report::Flooded) => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.closing.pop_front() {
            let connection = CloseConnection::One(connection);
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection,
            });
        }
        self.inner.poll(cx)
    }
}

/// What the handler of one connection reports.
#[derive(Debug)]
pub enum Report<E> {
    /// A report of the protocol.
    Inner(E),
    /// The remote opens streams without end.
    Flooded,
}

/// The handler of one connection.
pub struct Handler<H, S> {
    inner: H,
    streams: S,
    flood: Flood,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    None,
    Seen,
    Reported,
}

impl<H, S> Handler<H, S> {
    fn new(inner: H, streams: S) -> Self {
        Self {
            inner,
            streams,
            flood: Flood::None,
        }
    }
}

impl<H: ConnectionHandler, S: FnMut() -> Verdict + Send + 'static> ConnectionHandler
    for Handler<H, S>
{
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = Report<H::ToBehaviour>;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollOf<Self> {
        if self.flood == Flood::Seen {
            self.flood = Flood::Reported;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Flooded));
        }
        self.inner
            .poll(cx)
            .map(|event| event.map_custom(Report::Inner))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner
            .poll_close(cx)
            .map(|event| event.map(Report::Inner))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        if matches!(event, ConnectionEvent::FullyNegotiatedInbound(_)) {
            match (self.streams)() {
                Verdict::Serve => {}
                // Dropped, which resets the stream.
                Verdict::Refuse => return,
                Verdict::Close => {
                    if self.flood == Flood::None {
                        self.flood = Flood::Seen;
                    }
                    return;
                }
            }
        }
        self.inner.on_connection_event(event);
    }
}
