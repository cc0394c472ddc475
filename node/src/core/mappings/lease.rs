//! One mapping: asked for, granted, watched, renewed, lost.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::pcp::Nonce;

use super::interface::{CHECK, Checked, Claim, HOLD, Inside, Method, WATCH};

/// The first pause between two requests. It doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// A router that leaves so many requests without an answer is asked no longer.
const TRIES: u32 = 6;
/// Nonces in a row that do not arrive and make a claim a wrong one.
const FAILURES: u32 = 3;
/// A check is given up after this: its outcome got lost.
const LONGEST: Duration = Duration::from_secs(10);
/// From a check that no relay made to the next.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Lease {
    inside: Inside,
    nonce: Nonce,
    granted: Option<Granted>,
    /// The outside address of an earlier grant, to be wished for again.
    last: Option<SocketAddr>,
    /// Requests since the last answer.
    tries: u32,
    /// When it was asked for last, and when it is next; `None` is at once.
    asked: Option<Instant>,
    next: Option<Instant>,
    /// Which relay is asked for a nonce: the next one after each that did not arrive.
    relay: usize,
    /// Until then it is held, because the router has refused it.
    held: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    external: SocketAddr,
    method: Method,
    ends: Instant,
    /// Where a nonce has come in.
    verified: Option<SocketAddr>,
    /// When it is checked next.
    check: Instant,
    /// Nonces in a row that did not arrive.
    failures: u32,
    /// Whether the router was asked again because of them.
    is_doubted: bool,
}

/// What an outcome of a check changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// It is proved for the first time, or at another address.
    Proved(SocketAddr),
    /// It was proved and is not any more. The router is asked again.
    Doubted,
    /// It is wrong.
    Wrong,
}

impl Lease {
    pub(super) const fn new(inside: Inside, nonce: Nonce) -> Self {
        Self {
            inside,
            nonce,
            granted: None,
            last: None,
            tries: 0,
            asked: None,
            next: None,
            relay: 0,
            held: None,
        }
    }

    pub(super) const fn nonce(&self) -> Nonce {
        self.nonce
    }

    pub(super) fn external(&self) -> Option<SocketAddr> {
        self.granted.map(|granted| granted.external)
    }

    /// What is granted.
    pub(super) fn claim(&self) -> Option<Claim> {
        self.granted.map(|granted| Claim {
            inside: self.inside,
            method: granted.method,
            external: granted.external,
            verified: granted.verified,
        })
    }

    pub(super) fn method(&self) -> Option<Method> {
        self.granted.map(|granted| granted.method)
    }

    /// The claim and the relay to ask, if a check is due.
    pub(super) fn check(&mut self, now: Instant) -> Option<(SocketAddr, usize)> {
        let granted = self
            .granted
            .as_mut()
            .filter(|granted| granted.check <= now)?;
        granted.check = now + LONGEST;
        Some((granted.external, self.relay))
    }

    /// Notes how a check has ended.
    pub(super) fn checked(&mut self, outcome: Checked, now: Instant) -> Verdict {
        let Some(granted) = &mut self.granted else {
            return Verdict::Same;
        };
        match outcome {
            Checked::Arrived(at) => {
                (granted.failures, granted.is_doubted) = (0, false);
                granted.check = now + CHECK;
                match granted.verified.replace(at) == Some(at) {
                    true => Verdict::Same,
                    false => Verdict::Proved(at),
                }
            }
            Checked::Unknown(_) => {
                self.relay = self.relay.wrapping_add(1);
                granted.check = now + AGAIN;
                Verdict::Same
            }
            Checked::Silent => {
                self.relay = self.relay.wrapping_add(1);
                granted.failures += 1;
                granted.check = now;
                if granted.failures < FAILURES {
                    return Verdict::Same;
                }
                granted.failures = 0;
                if granted.verified.take().is_some() && !granted.is_doubted {
                    granted.is_doubted = true;
                    granted.check = now + AGAIN;
                    self.next = Some(now);
                    return Verdict::Doubted;
                }
                Verdict::Wrong
            }
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

    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held.is_some_and(|until| now < until)
    }

    /// From now on until then it is held.
    pub(super) const fn hold(&mut self, now: Instant, until: Instant) {
        self.rest_until(now);
        self.held = Some(until);
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.tries > 0
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// The end and the check count always, a request only if there is somebody to ask.
    pub(super) fn poll_timeout(&self, asks: bool) -> Option<Instant> {
        let granted = self.granted.map(|granted| granted.ends.min(granted.check));
        granted.into_iter().chain(self.next.filter(|_| asks)).min()
    }

    /// Notes a request. Whether the router may still be expected to answer.
    pub(super) fn asked(&mut self, now: Instant) -> bool {
        self.asked = Some(now);
        self.next = Some(now + PAUSE * 2_u32.pow(self.tries.min(TRIES)));
        self.tries += 1;
        if self.tries > TRIES {
            self.tries = 0;
            return false;
        }
        true
    }

    /// Asks at once, but no sooner after the last request than a first repetition: a router cannot make this node ask faster.
    pub(super) fn ask_now(&mut self, now: Instant) {
        let at = self.asked.map_or(now, |asked| now.max(asked + PAUSE));
        self.next = Some(at);
    }

    pub(super) const fn rest_until(&mut self, until: Instant) {
        (self.next, self.tries, self.held) = (Some(until), 0, None);
    }

    /// Notes an answer. Returns the outside address before it. Another one has to be verified first.
    pub(super) fn granted(
        &mut self,
        external: SocketAddr,
        lifetime: u32,
        method: Method,
        now: Instant,
    ) -> Option<SocketAddr> {
        let before = self.granted;
        let lifetime = Duration::from_secs(lifetime.into());
        let same = before.filter(|before| before.external == external);
        let granted = same.unwrap_or(Granted {
            external,
            method,
            ends: now,
            verified: None,
            check: now,
            failures: 0,
            is_doubted: false,
        });
        self.granted = Some(Granted {
            method,
            ends: now + lifetime,
            ..granted
        });
        self.last = Some(external);
        self.tries = 0;
        // A look is a renewal: it shows what the router has, and a lease is never older than half.
        let watch = if method == Method::Hold { HOLD } else { WATCH };
        self.next = Some(now + watch.min(lifetime / 2));
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
