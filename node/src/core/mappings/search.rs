//! By which protocol the router maps ports.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::{ROUTER_PORT, nat_pmp, pcp, ssdp};

use super::{Action, Gateway, Mappings, Method};

/// The first pause between two questions. It doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// How often is asked.
const TRIES: u32 = 4;
/// How long a better method may be late.
const HEAD_START: Duration = Duration::from_millis(300);
/// A router that knows no method is asked again after this long.
const AGAIN: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// Nothing is asked, until then if there is a time.
    Idle(Option<Instant>),
    Asking {
        tries: u32,
        next: Instant,
        /// The best method that has answered, and until when a better one is waited for.
        best: Option<(Method, Instant)>,
    },
    Found(Method),
}

impl Search {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Idle(at) => *at,
            Self::Asking { next, best, .. } => {
                Some(best.map_or(*next, |(_, until)| until.min(*next)))
            }
            Self::Found(_) => None,
        }
    }

    /// Notes that the router knows `method`.
    pub(super) fn answered(&mut self, method: Method, methods: &[Method], now: Instant) {
        let Self::Asking { best, .. } = self else {
            return;
        };
        if !methods.contains(&method) {
            return;
        }
        if methods.first() == Some(&method) {
            *self = Self::Found(method);
        } else if best.is_none_or(|(known, _)| method < known) {
            let until = best.map_or(now + HEAD_START, |(_, until)| until);
            *best = Some((method, until));
        }
    }
}

impl Mappings {
    pub(super) fn advance_search(&mut self, gateway: Gateway, now: Instant) {
        if matches!(self.search, Search::Idle(Some(at)) if at <= now) {
            self.search = Search::Asking {
                tries: 0,
                next: now,
                best: None,
            };
        }
        let Search::Asking { tries, next, best } = &mut self.search else {
            return;
        };
        match *best {
            Some((method, until)) if until <= now => self.search = Search::Found(method),
            _ if *next > now => {}
            _ if *tries == TRIES => {
                self.search = best.map_or(Search::Idle(Some(now + AGAIN)), |(method, _)| {
                    Search::Found(method)
                });
            }
            _ => {
                *next = now + PAUSE * 2_u32.pow(*tries);
                *tries += 1;
                self.question(gateway);
            }
        }
    }

    /// Asks by every method at once. No question makes the router keep anything.
    fn question(&mut self, gateway: Gateway) {
        let at = |port| SocketAddr::new(gateway.router, port);
        for method in &self.methods {
            let questions = match method {
                Method::Pcp => vec![(ROUTER_PORT, pcp::announce(gateway.own))],
                Method::NatPmp | Method::Upnp if gateway.router.is_ipv6() => Vec::new(),
                Method::NatPmp => vec![(ROUTER_PORT, nat_pmp::ADDRESS_REQUEST.to_vec())],
                Method::Upnp => ssdp::TARGETS
                    .map(|target| (ssdp::PORT, ssdp::search(gateway.router, target)))
                    .to_vec(),
            };
            let sends = questions.into_iter();
            self.actions
                .extend(sends.map(|(port, datagram)| Action::Send {
                    to: at(port),
                    datagram,
                }));
        }
    }
}
