//! What the answers to UPnP's calls mean for the mappings, and which call is next.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use p2pnode_protocol::mapping::{
    Response,
    upnp::{self, Action as Call},
};

use super::{
    Mappings,
    interface::{Action, Event, Inside, LEASE, Lost, Method},
    upnp::Step,
};

/// Outside ports that are tried if others have them.
const PORTS: u16 = 8;

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
                let outside =
                    upnp::external_address(body).filter(|ip| is_ok && !ip.is_unspecified());
                match outside {
                    Some(ip) => {
                        self.upnp.outside = Some(ip);
                        let external = SocketAddr::new(ip.into(), external);
                        self.granted(inside, external, LEASE, Method::Upnp, now);
                        None
                    }
                    // Nothing is left there of what cannot be used.
                    None => {
                        self.refused(inside, "the router names no outside address", now);
                        self.upnp.delete(inside, external)
                    }
                }
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
