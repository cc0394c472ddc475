//! The calls by which a router with UPnP maps a port: whose it is, the mapping, the outside address.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use p2pnode_protocol::mapping::{
    Http,
    upnp::{Action as Call, Service},
};

use super::interface::{Action, Inside};

/// Calls under way. A router that leaves more of them open is not asked more.
const MOST_CALLS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Upnp {
    pub(super) service: Option<Service>,
    /// The router's outside address, as it says; NAT-PMP's answers name it apart as well.
    pub(super) outside: Option<Ipv4Addr>,
    pub(super) calls: BTreeMap<u64, Step>,
    begun: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
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

    pub(super) fn call(&mut self, step: Step, call: Call) -> Option<Action> {
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
