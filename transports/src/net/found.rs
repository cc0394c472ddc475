//! Sockets of the range that a search for ports has found to reach a remote, until QUIC takes them.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
};

use crate::net::ports::Claim;

/// A socket, and the one remote that it reaches.
pub(crate) struct FoundSocket {
    pub(crate) socket: UdpSocket,
    pub(crate) claim: Claim,
    pub(crate) remote: SocketAddr,
}

/// Those that wait.
#[derive(Default)]
pub(crate) struct Found(Mutex<Vec<FoundSocket>>);

impl Found {
    pub(crate) fn add(&self, found: FoundSocket) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(found);
    }

    pub(crate) fn take(&self) -> Vec<FoundSocket> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
