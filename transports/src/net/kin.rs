//! Which peers run these programs, by what their last TLS handshake has shown.
//!
//! Both sides name [`PROTOCOL`] behind libp2p's own in ALPN. Listeners of ours choose it, those of others choose libp2p's. So
//! both sides know with the handshake that the other one negotiates streams as libp2p specifies. A proposal may come with its
//! request there. If the protocol is not supported, the proposal is refused and harms nothing. About any other peer, only
//! identify says that.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;

/// The name in ALPN ([RFC 7301](https://www.rfc-editor.org/rfc/rfc7301)).
pub(crate) const PROTOCOL: &[u8] = b"p2pnode/1";

/// How many peers are remembered; the oldest is forgotten first. Far more than a node has connections.
const CAPACITY: usize = 1024;

/// The peers that run these programs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Kin(Arc<Mutex<VecDeque<PeerId>>>);

impl Kin {
    /// Whether the last handshake with this peer has shown that. `false` also of a peer with which only circuits were negotiated.
    #[must_use]
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.peers().contains(peer)
    }

    /// A handshake with `peer` has ended with this protocol.
    pub(crate) fn shook_hands(&self, peer: PeerId, protocol: Option<&[u8]>) {
        let mut peers = self.peers();
        peers.retain(|known| *known != peer);
        if protocol == Some(PROTOCOL) {
            if peers.len() == CAPACITY {
                peers.pop_front();
            }
            peers.push_back(peer);
        }
    }

    fn peers(&self) -> MutexGuard<'_, VecDeque<PeerId>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_handshake_counts_and_the_oldest_peer_makes_room() {
        let (kin, peer) = (Kin::default(), PeerId::random());
        kin.shook_hands(peer, Some(b"libp2p"));
        assert!(!kin.contains(&peer));
        kin.shook_hands(peer, Some(PROTOCOL));
        kin.shook_hands(peer, Some(PROTOCOL));
        assert!(kin.contains(&peer));
        kin.shook_hands(peer, None);
        assert!(!kin.contains(&peer));
        kin.shook_hands(peer, Some(PROTOCOL));
        for _ in 0..CAPACITY {
            kin.shook_hands(PeerId::random(), Some(PROTOCOL));
        }
        assert!(!kin.contains(&peer));
        assert_eq!(kin.peers().len(), CAPACITY);
    }
}
