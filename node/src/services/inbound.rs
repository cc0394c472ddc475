//! Streams that peers open, up to their first frame; and the questions that are answered on such streams.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{PeerId, Stream, swarm::ConnectionId};
use p2pnode_services::{
    core::sessions::{Key, Verdict},
    wire::{Carries, Frame, Hello, Offer, Open, Refusal, Refuse},
};
use tokio::time::timeout;

use super::{
    Hub,
    carrier::Carrier,
    driver::Driver,
    lines::{ListError, Listed, Sink},
    opening::OpenError,
    running::{OTHER, Running},
};

/// How long a peer may take for the first frame, or for the answer to a question.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// The most services that a peer lists: a name each, and a node of many more would fill a connection.
const MOST_LISTED: usize = 4096;

impl Hub {
    /// A peer has opened a stream.
    pub(crate) fn handle_stream(&self, peer: PeerId, connection: ConnectionId, stream: Stream) {
        let hub = self.clone();
        tokio::spawn(async move {
            let mut carrier = Carrier::new(hub.stream_id(), connection, stream);
            match timeout(FIRST_FRAME, carrier.frame()).await {
                Ok(Ok(Some(first))) => hub.handle_first_frame(peer, carrier, first).await,
                Ok(Ok(None)) => {}
                Err(_) => hub.metrics().violation("silent"),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a stream without a first frame");
                    if error.kind() == std::io::ErrorKind::InvalidData {
                        hub.metrics().violation("frame");
                    }
                }
            }
        });
    }

    async fn handle_first_frame(&self, peer: PeerId, carrier: Carrier, first: Frame) {
        let Some((mut carrier, answers)) = self.judge(peer, carrier, first) else {
            return;
        };
        if let Ok(Err(error)) = timeout(FIRST_FRAME, carrier.finish(answers)).await {
            tracing::debug!(%peer, %error, "an answer did not go out");
        }
    }

    /// What becomes of a stream that begins with `first`: it has a session, or these answers.
    fn judge(&self, peer: PeerId, carrier: Carrier, first: Frame) -> Option<(Carrier, Vec<Frame>)> {
        if matches!(first, Frame::Open(_)) && self.state().table.is_crowded(&peer) {
            self.crowded(peer);
        }
        let mut state = self.state();
        let verdict = state.table.handle_first_frame(peer, &first, Instant::now());
        state.act();
        match (verdict, first) {
            (Verdict::New(key, share), Frame::Open(open)) => {
                let offered = state.offers.get(&open.service).cloned();
                let taken = offered.ok_or(Refusal::Unavailable).and_then(|offered| {
                    let place = self.place_of(peer, &offered, state.table.access());
                    let place = place.ok_or(Refusal::Busy)?;
                    Ok((offered, place))
                });
                let (offered, place) = match taken {
                    Ok(taken) => taken,
                    Err(refusal) => {
                        state.table.handle_over(key);
                        drop(state);
                        let (instance, on) = (self.instance(), self.on(carrier.connection));
                        self.refused(peer, &open, refusal, on);
                        return Some((carrier, vec![Frame::Refuse(Refuse { instance, refusal })]));
                    }
                };
                if let Carries::Datagrams(number) = open.carries {
                    drop(state);
                    self.accept_flow((key, number), offered, (share, place), &open, carrier);
                    return None;
                }
                let running = Arc::new(self.accepted(key, &open, offered.sink.clone()));
                state.running.insert(key, Arc::clone(&running));
                drop(state);
                self.served(peer);
                let taken = (share, place);
                let driver = Driver::accept(self.clone(), running, &offered, taken, &open, carrier);
                tokio::spawn(async move { drop(driver.run().await) });
                None
            }
            (Verdict::New(key, _), _) => {
                state.table.handle_over(key);
                None
            }
            (Verdict::Attach(key), first) => {
                if let Some(running) = state.running.get(&key) {
                    running.attach(carrier, first);
                }
                None
            }
            (Verdict::Later(key), _) => {
                let counted = state
                    .running
                    .get(&key)
                    .map_or(OTHER, |running| running.counted());
                self.metrics().opening("service", counted, "refused");
                Some((carrier, Vec::new()))
            }
            (Verdict::Answer(answer), Frame::Hello(hello)) if hello.lists => {
                let offers = state.offers.list_for(&peer).map(Frame::Offer);
                Some((carrier, std::iter::once(answer).chain(offers).collect()))
            }
            (Verdict::Answer(answer), first) => {
                drop(state);
                match (&answer, &first) {
                    (Frame::Refuse(refuse), Frame::Open(open)) => {
                        let on = self.on(carrier.connection);
                        self.refused(peer, open, refuse.refusal, on);
                    }
                    (Frame::Refuse(_), first) => {
                        let kind = match matches!(first, Frame::Resume(_)) {
                            true => "resume",
                            false => "order",
                        };
                        self.metrics().violation(kind);
                        self.metrics().opening("service", OTHER, "refused");
                    }
                    _ => {}
                }
                Some((carrier, vec![answer]))
            }
        }
    }

    fn accepted(&self, key: Key, open: &Open, sink: Option<Sink>) -> Running {
        let client = open.client.map(|(client, _)| client);
        Running::new(
            key,
            open.service.clone(),
            client,
            None,
            sink,
            None,
            self.metrics(),
        )
    }

    /// Asks which process the peer is: one that was restarted does not resume the sessions of the earlier one.
    pub(super) fn ask_who(&self, peer: PeerId) {
        let hub = self.clone();
        tokio::spawn(async move {
            if let Err(error) = timeout(FIRST_FRAME, hub.hello(peer, false)).await {
                tracing::debug!(%peer, %error, "the peer does not tell which process it is");
            }
        });
    }

    /// What `peer` offers to this node.
    ///
    /// # Errors
    /// [`ListError`].
    pub(crate) async fn list(&self, peer: PeerId) -> Result<Vec<Listed>, ListError> {
        let wish = self.wish(peer);
        let listed = timeout(self.settings().open_timeout, self.list_on_path(peer)).await;
        drop(wish);
        listed.unwrap_or_else(|_| Err(ListError::Unreachable("no path in time".to_owned())))
    }

    async fn list_on_path(&self, peer: PeerId) -> Result<Vec<Listed>, ListError> {
        loop {
            let changed = self.paths_changed();
            match self.hello(peer, true).await {
                Ok(offers) => return Ok(offers.into_iter().map(Listed::from).collect()),
                Err(OpenError::Unsupported) => return Ok(Vec::new()),
                Err(OpenError::Failed(reason)) => return Err(ListError::NoAnswer(reason)),
                Err(OpenError::NoPath) => {}
            }
            if let Some(reason) = self.state().paths.why_unreachable(&peer) {
                return Err(ListError::Unreachable(reason.to_owned()));
            }
            changed.await;
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "only two frames answer a question"
    )]
    async fn hello(&self, peer: PeerId, lists: bool) -> Result<Vec<Offer>, OpenError> {
        let (connection, stream) = self.open_stream(&peer).await?;
        let mut carrier = Carrier::new(self.stream_id(), connection, stream);
        let hello = Frame::Hello(Hello {
            instance: self.instance(),
            lists,
        });
        let failed = |error: std::io::Error| match p2pnode_protocol::upgrade::is_refusal(&error) {
            true => OpenError::Unsupported,
            false => OpenError::Failed(error.to_string()),
        };
        carrier.send([hello]).await.map_err(failed)?;
        let mut offers = Vec::new();
        while let Some(frame) = carrier.frame().await.map_err(failed)? {
            match frame {
                Frame::Hello(hello) => {
                    let mut state = self.state();
                    state.table.handle_hello(peer, hello);
                    state.act();
                    if !lists {
                        break;
                    }
                }
                Frame::Offer(offer) if offers.len() < MOST_LISTED => offers.push(offer),
                _ => break,
            }
        }
        Ok(offers)
    }
}
