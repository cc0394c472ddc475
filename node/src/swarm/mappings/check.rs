//! Checks of claims: a relay sends a nonce, and the punch sockets wait for it.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use libp2p::PeerId;
use p2pnode_protocol::probe::{Answer, Nonce, Refusal, Request};
use p2pnode_transports::StunClient;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::link::Ask;
use crate::core::mappings::{Checked, Inside, Unchecked};

/// How long a nonce may take after the relay has said that it sends it: a lost SYN is not repeated.
const ARRIVAL: Duration = Duration::from_millis(1500);

/// What a check is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    pub(super) inside: Inside,
    pub(super) external: std::net::SocketAddr,
    pub(super) relay: usize,
    /// The relay that the port has sent to, which is asked only if there is no other.
    pub(super) contacted: Option<PeerId>,
}

/// Has a nonce sent, and waits for it.
pub(super) async fn check(stun: Arc<StunClient>, asks: mpsc::Sender<Ask>, check: Check) -> Checked {
    let Some(port) = NonZeroU16::new(check.external.port()) else {
        return Checked::Unknown(Unchecked::Refused);
    };
    let nonce = Nonce(std::array::from_fn(|_| fastrand::u8(..)));
    let mut expected = stun.expect(nonce.transaction());
    let (answer, answered) = oneshot::channel();
    let ask = Ask {
        relay: check.relay,
        contacted: check.contacted,
        request: Request {
            protocol: check.inside.protocol,
            port,
            nonce,
        },
        answer,
    };
    if asks.send(ask).await.is_err() {
        return Checked::Unknown(Unchecked::NotConnected);
    }
    // The nonce may be faster than the answer. Only the relay that was asked knows it.
    let to = match answered.await {
        Ok(Ok(Answer::Sent { to })) => to,
        Ok(Ok(Answer::Refused(refusal))) => {
            tracing::debug!(reason = refusal.as_str(), "a relay checks no mapping");
            return Checked::Unknown(match refusal {
                Refusal::Hidden => Unchecked::Hidden,
                Refusal::Port | Refusal::Other => Unchecked::Refused,
            });
        }
        Ok(Err(why)) => return Checked::Unknown(why),
        // Nobody was asked.
        Err(_) => return Checked::Unknown(Unchecked::NotConnected),
    };
    match timeout(ARRIVAL, expected.answer()).await {
        Ok(Some(_)) => Checked::Arrived((to, port.get()).into()),
        Ok(None) | Err(_) => Checked::Silent,
    }
}
