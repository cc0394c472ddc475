//! One mapping: asked for, granted, watched, renewed, lost.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::pcp::Nonce;

use super::interface::{Inside, WATCH};

/// The first pause between two requests. It doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// A router that leaves so many requests without an answer is asked no longer.
const TRIES: u32 = 6;

#[derive(Debug)]
pub(super) struct Lease {
    inside: Inside,
    nonce: Nonce,
    granted: Option<Granted>,
    /// The outside address of an earlier grant, to be wished for again.
    last: Option<SocketAddr>,
    /// Requests since the last answer.
    tries: u32,
    /// When it is asked for next; `None` is at once.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    external: SocketAddr,
    ends: Instant,
    is_verified: bool,
}

impl Lease {
    pub(super) const fn new(inside: Inside, nonce: Nonce) -> Self {
        Self {
            inside,
            nonce,
            granted: None,
            last: None,
            tries: 0,
            next: None,
        }
    }

    pub(super) const fn nonce(&self) -> Nonce {
        self.nonce
    }

    pub(super) fn external(&self) -> Option<SocketAddr> {
        self.granted.map(|granted| granted.external)
    }

    pub(super) fn verified(&self) -> Option<SocketAddr> {
        self.granted
            .filter(|granted| granted.is_verified)
            .map(|granted| granted.external)
    }

    pub(super) const fn set_verified(&mut self, is_verified: bool) {
        if let Some(granted) = &mut self.granted {
            granted.is_verified = is_verified;
        }
    }

    /// What is wished for: what it was before, else the port's own number.
    pub(super) fn wish(&self, is_ip6: bool) -> SocketAddr {
        let any: IpAddr = if is_ip6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        self.last.unwrap_or(SocketAddr::new(any, self.inside.port))
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.tries > 0
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// The end counts always, a request only if there is somebody to ask.
    pub(super) fn poll_timeout(&self, asks: bool) -> Option<Instant> {
        let ends = self.granted.map(|granted| granted.ends);
        ends.into_iter().chain(self.next.filter(|_| asks)).min()
    }

    /// Notes a request. Whether the router may still be expected to answer.
    pub(super) fn asked(&mut self, now: Instant) -> bool {
        self.next = Some(now + PAUSE * 2_u32.pow(self.tries.min(TRIES)));
        self.tries += 1;
        if self.tries > TRIES {
            self.tries = 0;
            return false;
        }
        true
    }

    pub(super) const fn ask_now(&mut self, now: Instant) {
        self.next = Some(now);
    }

    pub(super) const fn rest_until(&mut self, until: Instant) {
        (self.next, self.tries) = (Some(until), 0);
    }

    /// Notes an answer. Returns the outside address before it. Another one has to be verified first.
    pub(super) fn granted(
        &mut self,
        external: SocketAddr,
        lifetime: u32,
        now: Instant,
    ) -> Option<SocketAddr> {
        let before = self.granted;
        let lifetime = Duration::from_secs(lifetime.into());
        self.granted = Some(Granted {
            external,
            ends: now + lifetime,
            is_verified: before
                .is_some_and(|before| before.is_verified && before.external == external),
        });
        self.last = Some(external);
        self.tries = 0;
        // A look is a renewal: it shows what the router has, and a lease is never older than half.
        self.next = Some(now + WATCH.min(lifetime / 2));
        before.map(|before| before.external)
    }

    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.granted.is_some_and(|granted| granted.ends <= now)
    }

    /// Forgets the grant. Whether there was one.
    pub(super) fn reset(&mut self) -> bool {
        self.tries = 0;
        self.granted.take().is_some()
    }
}
