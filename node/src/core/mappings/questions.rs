//! The questions by which the search finds a protocol.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::{ROUTER_PORT, nat_pmp, pcp, ssdp};

use super::{
    Mappings,
    interface::{Action, Gateway, Method},
    search::Search,
};

/// The first pause between two questions. It doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// How often is asked.
const TRIES: u32 = 4;
/// A router that knows no method is asked again after this long.
const AGAIN: Duration = Duration::from_secs(600);

impl Mappings {
    pub(super) fn advance_search(&mut self, gateway: Gateway, now: Instant) {
        self.look_again(now);
        if matches!(self.search, Search::Idle(Some(at)) if at <= now) {
            if self.methods == [Method::Hold] {
                self.begin_hold(now);
                return;
            }
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
                let best = best.map(|(method, _)| method);
                self.search = best.map_or(Search::Idle(Some(now + AGAIN)), Search::Found);
                if best.is_none() {
                    self.begin_hold(now);
                    self.note_waits(now);
                }
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
                Method::Hold => Vec::new(),
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
