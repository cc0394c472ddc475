//! What answers of the router mean for the mappings.

use std::{net::SocketAddr, time::Instant};

use p2pnode_protocol::mapping::{nat_pmp, pcp};

use super::{
    Mappings,
    interface::{Event, Inside, LEASE, Lost, Method},
    lease::Lease,
    search::Search,
};

impl Mappings {
    /// Notes a method's answer, and that the router has lost its mappings if its epoch says so.
    pub(super) fn answered(&mut self, method: Method, epoch: Option<u32>, now: Instant) {
        self.search.answered(method, &self.methods, now);
        let Some(epoch) = epoch else { return };
        let before = self.epoch.replace((epoch, now));
        let is_lost = before.is_some_and(|(before, at)| {
            let passed = now.saturating_duration_since(at).as_secs();
            !pcp::is_continuous(before, epoch, u32::try_from(passed).unwrap_or(u32::MAX))
        });
        if is_lost {
            self.leases
                .values_mut()
                .for_each(|lease| lease.ask_now(now));
        }
    }

    pub(super) fn handle_pcp(&mut self, said: pcp::Said, now: Instant) {
        let of = |nonce: pcp::Nonce| move |(_, lease): &(&Inside, &Lease)| lease.nonce() == nonce;
        match said {
            pcp::Said::Announce => {}
            pcp::Said::Mapped {
                nonce,
                protocol,
                port,
                external,
                lifetime,
            } => {
                let inside = Inside { protocol, port };
                // Another nonce is somebody else's mapping, or a forgery. What was not asked for may come at any rate.
                let is_it = |lease: &(&Inside, &Lease)| {
                    *lease.0 == inside && of(nonce)(lease) && lease.1.is_asked()
                };
                if self.leases.iter().any(|lease| is_it(&lease)) {
                    self.granted(inside, external, lifetime, Method::Pcp, now);
                }
            }
            pcp::Said::Refused { nonce, code, .. } => {
                let inside = nonce.and_then(|nonce| self.leases.iter().find(of(nonce)));
                if let Some(inside) = inside.map(|(inside, _)| *inside) {
                    self.refused(inside, pcp::reason(code), now);
                }
            }
        }
    }

    pub(super) fn handle_nat_pmp(&mut self, said: nat_pmp::Said, now: Instant) {
        if self.search != Search::Found(Method::NatPmp) {
            if let nat_pmp::Said::Address(ip) = said {
                self.upnp.outside = Some(ip);
            }
            return;
        }
        match said {
            nat_pmp::Said::Address(ip) => {
                let is_other = self
                    .upnp
                    .outside
                    .replace(ip)
                    .is_some_and(|before| before != ip);
                if is_other {
                    self.leases
                        .values_mut()
                        .for_each(|lease| lease.ask_now(now));
                }
            }
            nat_pmp::Said::Mapped {
                protocol,
                port,
                external,
                lifetime,
            } => {
                let inside = Inside { protocol, port };
                let lease = self.leases.get(&inside);
                if let Some(ip) = self.upnp.outside
                    && lease.is_some_and(Lease::is_asked)
                {
                    self.granted(
                        inside,
                        SocketAddr::new(ip.into(), external),
                        lifetime,
                        Method::NatPmp,
                        now,
                    );
                }
            }
            nat_pmp::Said::Refused(code) => {
                let asked = self.leases.iter().find(|(_, lease)| lease.is_asked());
                if let Some(inside) = asked.map(|(inside, _)| *inside) {
                    self.refused(inside, nat_pmp::reason(code), now);
                }
            }
        }
    }

    /// The router says that it has made or renewed a mapping.
    pub(super) fn granted(
        &mut self,
        inside: Inside,
        external: SocketAddr,
        lifetime: u32,
        method: Method,
        now: Instant,
    ) {
        let Some(lease) = self.leases.get_mut(&inside) else {
            return;
        };
        if lifetime == 0 || external.port() == 0 || external.ip().is_unspecified() {
            if lease.external().is_some() {
                self.lose(inside, Lost::Replaced);
            }
            return;
        }
        if method != Method::Hold {
            self.router.outside = Some(external.ip());
        }
        let before = lease.granted(external, lifetime.min(LEASE), method, now);
        if before == Some(external) {
            return;
        }
        if before.is_some() {
            self.events.push_back(Event::Lost {
                inside,
                reason: Lost::Replaced,
            });
        }
        self.progress(inside);
        self.events.push_back(Event::Granted {
            inside,
            external,
            method,
        });
        self.check_due(now);
    }

    pub(super) fn refused(&mut self, inside: Inside, reason: &str, now: Instant) {
        let reason = reason.to_owned();
        self.events.push_back(Event::Refused { inside, reason });
        self.refuse(inside, now);
    }
}
