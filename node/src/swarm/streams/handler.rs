//! The streams that are being opened on one connection.

use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::channel::oneshot;
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::DeniedUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, ProtocolsChange},
    },
};

use p2pnode_protocol::{
    behaviour::{EventOf, PollOf},
    upgrade::Confirmed,
};

use super::open_error::{OpenError, opened};

/// How long a peer may take to agree to a protocol.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Streams that may be waiting to be opened on one connection; those that are open are not counted.
pub(super) const MAX_OPENING: usize = 64;

/// A stream that a caller waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(super) protocol: Confirmed,
    pub(super) result: Reply,
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

/// The handler of one connection.
pub(crate) struct Handler {
    /// Whether the remote may be asked for anything before it has identified itself.
    is_kin: bool,
    wanted: VecDeque<Wanted>,
    /// Streams that are being negotiated.
    negotiating: usize,
    /// The protocols that the remote lists; `None` until it has identified itself.
    listed: Option<Vec<StreamProtocol>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = Confirmed;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.wanted
            .iter()
            .any(|wanted| !wanted.result.is_canceled())
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        if self.wanted.len() + self.negotiating < MAX_OPENING {
            self.wanted.push_back(wanted);
        } else {
            // An error means that the caller no longer waits.
            let _ = wanted.result.send(Err(OpenError::Busy));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> PollOf<Self> {
        if self.listed.is_none() && !self.is_kin {
            return Poll::Pending;
        }
        while let Some(Wanted { protocol, result }) = self.wanted.pop_front() {
            if result.is_canceled() {
                continue;
            }
            let listed = self.listed.as_ref();
            if listed.is_some_and(|listed| !listed.contains(protocol.name())) {
                // An error means that the caller no longer waits.
                let _ = result.send(Err(OpenError::Unsupported));
                continue;
            }
            self.negotiating += 1;
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(protocol, result).with_timeout(TIMEOUT),
            });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: EventOf<'_, Self>) {
        if let ConnectionEvent::RemoteProtocolsChange(change) = event {
            return self.on_listed(change);
        }
        if let Some((reply, result)) = opened(event) {
            self.negotiating -= 1;
            // An error means that the caller no longer waits: the stream is dropped.
            let _ = reply.send(result);
        }
    }
}

impl Handler {
    pub(super) const fn new(is_kin: bool) -> Self {
        Self {
            is_kin,
            wanted: VecDeque::new(),
            negotiating: 0,
            listed: None,
        }
    }

    /// The remote's identify lists these protocols, or no longer.
    fn on_listed(&mut self, change: ProtocolsChange<'_>) {
        let listed = self.listed.get_or_insert_default();
        match change {
            ProtocolsChange::Added(added) => listed.extend(added.cloned()),
            ProtocolsChange::Removed(removed) => {
                for removed in removed {
                    listed.retain(|listed| listed != removed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    const ASKED: StreamProtocol = StreamProtocol::new("/asked/1");

    /// Whether a stream is proposed to a remote that lists these protocols, and what the caller is answered without it.
    fn asks(
        is_kin: bool,
        listed: Option<&[StreamProtocol]>,
        protocol: Confirmed,
    ) -> (bool, Option<OpenError>) {
        let mut handler = Handler::new(is_kin);
        handler.listed = listed.map(<[_]>::to_vec);
        let (result, mut reply) = oneshot::channel();
        handler.on_behaviour_event(Wanted { protocol, result });
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let is_proposed = handler.poll(&mut cx).is_ready();
        let reply = reply.try_recv().ok().flatten();
        (is_proposed, reply.map(Result::unwrap_err))
    }

    #[test]
    fn nothing_is_proposed_that_the_remote_does_not_list_lazily_or_not() {
        let other = [StreamProtocol::new("/other/1")];
        let both = [other[0].clone(), ASKED];
        for protocol in [Confirmed::new(ASKED), Confirmed::unconfirmed(ASKED)] {
            let asks = |is_kin, listed| asks(is_kin, listed, protocol.clone());
            let refused = (false, Some(OpenError::Unsupported));
            assert_eq!(asks(false, None), (false, None));
            assert_eq!(asks(true, None), (true, None));
            for is_kin in [false, true] {
                assert_eq!(asks(is_kin, Some(&other)), refused);
                assert_eq!(asks(is_kin, Some(&both)), (true, None));
            }
        }
    }
}
