//! Port mappings of the router: which are asked for, by which protocol, and how long they hold.
//!
//! 1. [`Mappings::handle_gateway`] names the router. All protocols of the mode are asked at once whether it knows them.
//! 2. PCP is taken as soon as it answers, another one a moment later ([`search`], [`questions`]).
//! 3. Each wanted port is asked for, watched, and renewed at half of its lease ([`lease`]). UPnP takes several calls ([`upnp`], [`calls`]).
//! 4. A router that has lost its mappings or has another outside address is noticed by the epoch, or by the next look.
//! 5. A relay sends a nonce to each mapping, again and again. Only a mapping at which it arrives is offered ([`checks`]). See
//!    `docs/decisions/0902-a-mapping-is-believed-once-verified.md`.
//! 6. A port that no router maps is held: traffic to a relay keeps what the NAT gives ([`hold`]). It is checked and offered alike.
//! 7. [`Mappings::handle_shutdown`] releases everything.

mod answers;
mod calls;
mod checks;
mod ending;
mod hold;
mod interface;
mod lease;
mod publish;
mod questions;
mod search;
#[cfg(test)]
mod tests;
mod upnp;
mod waiting;
mod waits;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::{ROUTER_PORT, nat_pmp, pcp, ssdp};

use self::{interface::LEASE, lease::Lease, search::Search, upnp::Upnp, waiting::Reported};

pub(crate) use self::interface::{
    Action, Checked, Claim, Event, Exposure, ExposureState, Gateway, Inside, Lost, MappingState,
    Method, RouterFacts, Unchecked, changes,
};
pub(crate) use self::publish::{Change, Entry, Publication, Publisher};
pub(crate) use self::waiting::Wait;

/// A router that has refused is asked again after this long at the earliest.
const REFUSED: Duration = Duration::from_secs(60);

/// The mappings of one family of addresses.
#[derive(Debug)]
pub(crate) struct Mappings {
    /// In the order of preference.
    methods: Vec<Method>,
    rng: fastrand::Rng,
    gateway: Option<Gateway>,
    router: RouterFacts,
    leases: BTreeMap<Inside, Lease>,
    search: Search,
    /// When a router is looked for again although ports are held.
    look_again: Option<Instant>,
    upnp: Upnp,
    /// The router's epoch, and when it was read.
    epoch: Option<(u32, Instant)>,
    /// Datagrams that ask to drop mappings and are to be confirmed before the end, with the nonces of PCP.
    ending: BTreeMap<Inside, (pcp::Nonce, Action)>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    /// What ports wait for, and what of that has been reported.
    waits: VecDeque<(Inside, Wait)>,
    reported: BTreeMap<Inside, Reported>,
}

impl Mappings {
    pub(crate) fn new(methods: &[Method], seed: u64) -> Self {
        let mut methods = methods.to_vec();
        methods.sort_unstable();
        Self {
            methods,
            rng: fastrand::Rng::with_seed(seed),
            gateway: None,
            router: RouterFacts::default(),
            leases: BTreeMap::new(),
            search: Search::Idle(None),
            look_again: None,
            upnp: Upnp::default(),
            epoch: None,
            ending: BTreeMap::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            waits: VecDeque::new(),
            reported: BTreeMap::new(),
        }
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.gateway.filter(|_| !self.leases.is_empty())?;
        let leases = self
            .leases
            .values()
            .filter_map(|lease| lease.poll_timeout(matches!(self.search, Search::Found(_))));
        let search = self.search.poll_timeout().into_iter();
        leases.chain(search).chain(self.look_again).min()
    }

    /// The router of this family, when it is known or has changed. What the one before has granted is gone with it.
    pub(crate) fn handle_gateway(&mut self, gateway: Option<Gateway>, now: Instant) {
        if self.gateway == gateway {
            return;
        }
        self.gateway = gateway;
        (self.epoch, self.upnp, self.look_again) = (None, Upnp::default(), None);
        self.router = RouterFacts::default();
        let wanted: Vec<_> = self.leases.keys().copied().collect();
        for inside in wanted {
            self.lose(inside, Lost::GatewayChanged);
        }
        self.search = Search::Idle(Some(now));
        self.handle_timeout(now);
    }

    /// The ports that are to be mapped.
    pub(crate) fn handle_wanted(&mut self, wanted: &[Inside], now: Instant) {
        let gone: Vec<_> = self
            .leases
            .keys()
            .filter(|inside| !wanted.contains(inside))
            .copied()
            .collect();
        for inside in gone {
            self.release(inside);
            self.lose(inside, Lost::Unwanted);
            self.leases.remove(&inside);
            self.router.forget(inside);
            self.progress(inside);
        }
        for inside in wanted {
            let nonce = std::array::from_fn(|_| self.rng.u8(..));
            self.leases
                .entry(*inside)
                .or_insert_with(|| Lease::new(*inside, nonce));
        }
        if matches!(self.search, Search::Idle(None)) && !self.leases.is_empty() {
            self.search = Search::Idle(Some(now));
        }
        self.handle_timeout(now);
        self.note_waits(now);
    }

    /// A datagram that came to the port that asked. Only the router is listened to.
    pub(crate) fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        let Some(gateway) = self.gateway.filter(|gateway| gateway.router == from.ip()) else {
            return;
        };
        match from.port() {
            ssdp::PORT => {
                let text = String::from_utf8_lossy(bytes);
                if let Some(place) = ssdp::location(&text, gateway.router)
                    && self.methods.contains(&Method::Upnp)
                    && let Some(call) = self.upnp.describe(place)
                {
                    self.actions.push_back(call);
                }
            }
            ROUTER_PORT => {
                if let Some(answer) = pcp::Answer::read(bytes) {
                    self.answered(Method::Pcp, Some(answer.epoch), now);
                    self.handle_pcp(answer.said, now);
                } else if let Some(answer) = nat_pmp::Answer::read(bytes) {
                    // A refusal of the version is what PCP's requests are answered with.
                    if answer.said != nat_pmp::Said::Refused(1) {
                        self.answered(Method::NatPmp, Some(answer.epoch), now);
                        self.handle_nat_pmp(answer.said, now);
                    }
                }
            }
            _ => {}
        }
        self.handle_timeout(now);
    }

    /// The answer to a call; `None` if there was none.
    pub(crate) fn handle_answer(&mut self, id: u64, bytes: Option<&[u8]>, now: Instant) {
        self.handle_upnp(id, bytes, now);
        self.handle_timeout(now);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let Some(gateway) = self.gateway.filter(|_| !self.leases.is_empty()) else {
            return;
        };
        self.advance_search(gateway, now);
        self.check_due(now);
        let Search::Found(method) = self.search else {
            self.expire(now);
            return;
        };
        let due: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.is_due(now))
            .map(|(inside, _)| *inside)
            .collect();
        for inside in due {
            let method = self.method_of(inside, method, now);
            self.ask(method, gateway, inside, now);
        }
        self.expire(now);
    }

    fn ask(&mut self, method: Method, gateway: Gateway, inside: Inside, now: Instant) {
        let Some(lease) = self.leases.get_mut(&inside) else {
            return;
        };
        if !lease.asked(now) {
            // It no longer answers. Perhaps it does by another way.
            self.search = Search::Idle(Some(now + REFUSED));
            return self.note_waits(now);
        }
        let to = SocketAddr::new(gateway.router, ROUTER_PORT);
        let wish = lease.wish(gateway.router.is_ipv6());
        match method {
            Method::Pcp => {
                let nonce = lease.nonce();
                self.actions.push_back(Action::Send {
                    to,
                    datagram: map(gateway, inside, nonce, LEASE, wish),
                });
            }
            Method::NatPmp => {
                let datagram =
                    nat_pmp::map_request(inside.protocol, inside.port, wish.port(), LEASE);
                // The outside address is not in the answer.
                for datagram in [nat_pmp::ADDRESS_REQUEST.to_vec(), datagram.to_vec()] {
                    self.actions.push_back(Action::Send { to, datagram });
                }
            }
            Method::Upnp => self.actions.extend(self.upnp.look(inside, wish.port())),
            Method::Hold => self.actions.push_back(Action::Hold { inside }),
        }
    }

    fn lose(&mut self, inside: Inside, reason: Lost) {
        if let Some(lease) = self.leases.get_mut(&inside)
            && lease.reset()
        {
            self.events.push_back(Event::Lost { inside, reason });
        }
    }

    fn expire(&mut self, now: Instant) {
        let ended: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.has_ended(now))
            .map(|(inside, _)| *inside)
            .collect();
        for inside in ended {
            self.lose(inside, Lost::Expired);
        }
    }

    fn release(&mut self, inside: Inside) {
        let release = self.release_of(inside);
        self.actions.extend(release);
    }

    /// Has the router drop a mapping, if it has made one.
    fn release_of(&mut self, inside: Inside) -> Option<Action> {
        let (gateway, lease) = self.gateway.zip(self.leases.get(&inside))?;
        let (method, external) = lease.method().zip(lease.external())?;
        let to = SocketAddr::new(gateway.router, ROUTER_PORT);
        match method {
            Method::Pcp => Some(Action::Send {
                to,
                datagram: map(
                    gateway,
                    inside,
                    lease.nonce(),
                    0,
                    lease.wish(gateway.router.is_ipv6()),
                ),
            }),
            Method::NatPmp => {
                let datagram = nat_pmp::map_request(inside.protocol, inside.port, 0, 0).to_vec();
                Some(Action::Send { to, datagram })
            }
            Method::Upnp => self.upnp.delete(inside, external.port()),
            // Nobody was asked for it, and it ends without traffic.
            Method::Hold => None,
        }
    }
}

fn map(
    gateway: Gateway,
    inside: Inside,
    nonce: pcp::Nonce,
    lifetime: u32,
    wish: SocketAddr,
) -> Vec<u8> {
    let map = pcp::Map {
        client: gateway.own,
        protocol: inside.protocol,
        port: inside.port,
        nonce,
        lifetime,
        wish,
        only_wish: false,
    };
    map.write()
}
