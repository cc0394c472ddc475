//! The end: the router is asked to drop every mapping, until it has confirmed that.

use std::net::SocketAddr;

use p2pnode_protocol::mapping::{ROUTER_PORT, nat_pmp, pcp};

use super::{
    Mappings,
    interface::{Action, Inside},
};

impl Mappings {
    /// Releases every mapping. From then on the driver passes datagrams to [`Self::handle_release_answer`] until [`Self::has_ended`].
    pub(crate) fn handle_shutdown(&mut self) {
        let all: Vec<_> = self
            .leases
            .iter()
            .map(|(inside, lease)| (*inside, lease.nonce()))
            .collect();
        for (inside, nonce) in all {
            let release = self.release_of(inside);
            if let Some(send @ Action::Send { .. }) = &release {
                self.ending.insert(inside, (nonce, send.clone()));
            }
            self.actions.extend(release);
        }
        self.leases.clear();
    }

    /// Whether the router has confirmed what datagrams asked for.
    pub(crate) fn has_ended(&self) -> bool {
        self.ending.is_empty()
    }

    /// How many mappings the router has not confirmed to have ended.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.ending.len()
    }

    /// Asks again for what is not confirmed: a datagram may be lost.
    pub(crate) fn handle_no_release_answer(&mut self) {
        let again = self.ending.values().map(|(_, release)| release.clone());
        self.actions.extend(again);
    }

    /// A datagram that came after the shutdown. A slow router still grants what it was asked before: only an answer with a lifetime of
    /// 0 confirms a release.
    pub(crate) fn handle_release_answer(&mut self, from: SocketAddr, bytes: &[u8]) {
        let router = self
            .gateway
            .map(|gateway| SocketAddr::new(gateway.router, ROUTER_PORT));
        if router != Some(from) {
            return;
        }
        if let Some(answer) = pcp::Answer::read(bytes) {
            match answer.said {
                pcp::Said::Mapped {
                    nonce, lifetime: 0, ..
                } => self.released(nonce),
                pcp::Said::Refused {
                    nonce: Some(nonce), ..
                } => self.released(nonce),
                pcp::Said::Mapped { .. } | pcp::Said::Refused { .. } | pcp::Said::Announce => {}
            }
        } else if let Some(answer) = nat_pmp::Answer::read(bytes)
            && let nat_pmp::Said::Mapped {
                protocol,
                port,
                lifetime: 0,
                ..
            } = answer.said
        {
            self.ending.remove(&Inside { protocol, port });
        }
    }

    fn released(&mut self, nonce: pcp::Nonce) {
        self.ending.retain(|_, (of, _)| *of != nonce);
    }
}
