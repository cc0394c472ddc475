//! The calls by which a router with UPnP maps a port: whose it is, the mapping, the outside address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use p2pnode_protocol::mapping::{
    Http, Response,
    upnp::{self, Action as Call, Service},
};

use super::{Action, Event, Inside, LEASE, Lost, Mappings, Method};

/// Calls under way. A router that leaves more of them open is not asked more.
const MOST_CALLS: usize = 32;
/// Outside ports that are tried if others have them.
const PORTS: u16 = 8;

#[derive(Debug, Default)]
pub(super) struct Upnp {
    service: Option<Service>,
    /// The router's outside address, as it says; NAT-PMP's answers name it apart as well.
    pub(super) outside: Option<Ipv4Addr>,
    calls: BTreeMap<u64, Step>,
    begun: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Describe(Http),
    Whose(Inside, u16),
    Add(Inside, u16),
    Outside(Inside, u16),
    Delete,
}

impl Upnp {
    /// Reads the router's description, once.
    pub(super) fn describe(&mut self, place: Http) -> Option<Action> {
        let is_read = self
            .calls
            .values()
            .any(|step| matches!(step, Step::Describe(_)));
        if self.service.is_some() || is_read {
            return None;
        }
        let (to, request) = (place.addr(), place.get());
        self.begin(Step::Describe(place), to, request)
    }

    /// Asks who has an outside port, which is the first step to have it.
    pub(super) fn look(&mut self, inside: Inside, external: u16) -> Option<Action> {
        let protocol = inside.protocol;
        self.call(
            Step::Whose(inside, external),
            Call::Entry { protocol, external },
        )
    }

    pub(super) fn delete(&mut self, inside: Inside, external: u16) -> Option<Action> {
        let protocol = inside.protocol;
        self.call(Step::Delete, Call::Delete { protocol, external })
    }

    fn call(&mut self, step: Step, call: Call) -> Option<Action> {
        let service = self.service.clone()?;
        self.begin(step, service.control.addr(), service.call(call))
    }

    fn begin(&mut self, step: Step, to: SocketAddr, request: Vec<u8>) -> Option<Action> {
        if self.calls.len() >= MOST_CALLS {
            return None;
        }
        self.begun += 1;
        self.calls.insert(self.begun, step);
        Some(Action::Call {
            id: self.begun,
            to,
            request,
        })
    }
}

impl Mappings {
    pub(super) fn handle_upnp(&mut self, id: u64, bytes: Option<&[u8]>, now: Instant) {
        let Some(step) = self.upnp.calls.remove(&id) else {
            return;
        };
        // Without an answer the lease asks again, and gives up after some tries.
        let Some(answer) = bytes.and_then(Response::read) else {
            return;
        };
        let (is_ok, body) = (answer.status == 200, answer.body.as_str());
        let next = match step {
            Step::Describe(place) => {
                self.upnp.service = upnp::services(body, &place).into_iter().next();
                if self.upnp.service.is_some() {
                    self.answered(Method::Upnp, None, now);
                }
                None
            }
            Step::Whose(inside, external) => self.whose(inside, external, is_ok, body, now),
            Step::Add(inside, external) if is_ok => {
                let external = upnp::reserved_port(body).unwrap_or(external);
                self.upnp
                    .call(Step::Outside(inside, external), Call::ExternalAddress)
            }
            Step::Add(inside, external) => self.not_added(inside, external, upnp::fault(body), now),
            Step::Outside(inside, external) => {
                let outside = upnp::external_address(body).filter(|_| is_ok);
                if let Some(ip) = outside {
                    self.upnp.outside = Some(ip);
                    let external = SocketAddr::new(ip.into(), external);
                    self.granted(inside, external, LEASE, Method::Upnp, now);
                }
                None
            }
            Step::Delete => None,
        };
        self.actions.extend(next);
    }

    /// A port that somebody else has is left to them.
    fn whose(
        &mut self,
        inside: Inside,
        external: u16,
        is_ok: bool,
        body: &str,
        now: Instant,
    ) -> Option<Action> {
        let IpAddr::V4(client) = self.gateway?.own else {
            return None;
        };
        let owner = upnp::entry(body).filter(|_| is_ok);
        let is_other = owner.is_some_and(|owner| owner != (client.into(), inside.port));
        let held = self.leases.get(&inside)?.external();
        if held.is_some_and(|held| held.port() == external) && owner.is_none() {
            // Gone: a router that has rebooted, or its user.
            self.events.push_back(Event::Lost {
                inside,
                reason: Lost::Replaced,
            });
            self.leases.get_mut(&inside)?.reset();
        }
        if is_other {
            return self.not_added(inside, external, Some(upnp::CONFLICT), now);
        }
        let add = Call::Add {
            protocol: inside.protocol,
            external,
            client,
            port: inside.port,
            lease: LEASE,
            any: false,
        };
        self.upnp.call(Step::Add(inside, external), add)
    }

    fn not_added(
        &mut self,
        inside: Inside,
        external: u16,
        fault: Option<u16>,
        now: Instant,
    ) -> Option<Action> {
        let is_near = external.wrapping_sub(inside.port) < PORTS;
        match fault {
            Some(upnp::CONFLICT) if is_near && external < u16::MAX => {
                return self.upnp.look(inside, external + 1);
            }
            Some(upnp::CONFLICT) => self.refused(inside, "others have these ports", now),
            Some(upnp::ONLY_PERMANENT) => {
                self.refused(inside, "the router knows no leases that end", now)
            }
            Some(code) => self.refused(inside, &format!("UPnP error {code}"), now),
            None => self.refused(inside, "UPnP call failed", now),
        }
        None
    }
}
