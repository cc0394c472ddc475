//! The machine against routers that keep to the specifications, and some that do not.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod hold;
mod hostile;
mod routers;
mod waiting;

use std::net::{IpAddr, Ipv4Addr};

use p2pnode_protocol::mapping::{Protocol, upnp};

use super::*;

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
const QUIC: Inside = Inside {
    protocol: Protocol::Udp,
    port: 40017,
};

/// The ways to ask a router.
const ROUTERS: [Method; 3] = [Method::Pcp, Method::NatPmp, Method::Upnp];

/// A router under virtual time.
struct Router {
    knows: Vec<Method>,
    outside: Ipv4Addr,
    booted: Instant,
    /// By outside port: whose it is, and that one's port.
    entries: BTreeMap<u16, (IpAddr, u16)>,
    /// What PCP and NAT-PMP give instead of the wish.
    gives: Option<u16>,
    is_silent: bool,
    /// Whether what it has granted works not.
    drops: bool,
}

struct World {
    mappings: Mappings,
    router: Router,
    now: Instant,
    events: Vec<Event>,
    sent: usize,
    /// Whether a relay sends nonces.
    has_relay: bool,
    /// As whom a relay sees the port.
    seen: Option<SocketAddr>,
}

impl World {
    fn new(methods: &[Method], knows: &[Method]) -> Self {
        let now = Instant::now();
        let mut mappings = Mappings::new(methods, 7);
        mappings.handle_wanted(&[QUIC], now);
        mappings.handle_gateway(
            Some(Gateway {
                router: ROUTER,
                own: OWN,
            }),
            now,
        );
        let router = Router {
            knows: knows.to_vec(),
            outside: Ipv4Addr::new(203, 0, 113, 7),
            booted: now,
            entries: BTreeMap::new(),
            gives: None,
            is_silent: false,
            drops: false,
        };
        Self {
            mappings,
            router,
            now,
            events: Vec::new(),
            sent: 0,
            has_relay: true,
            seen: None,
        }
    }

    /// Lets everything happen that is due within this time.
    fn run(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        loop {
            self.exchange();
            match self.mappings.poll_timeout().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.mappings.handle_timeout(self.now);
                }
                None => break,
            }
        }
        self.now = end;
        std::mem::take(&mut self.events)
    }

    fn exchange(&mut self) {
        while let Some(action) = self.mappings.poll_action() {
            self.sent += usize::from(!matches!(action, Action::Check { .. }));
            match action {
                Action::Check {
                    inside, external, ..
                } => {
                    let outcome = self.check(inside, external);
                    self.mappings
                        .handle_checked(inside, external, outcome, self.now);
                }
                Action::Hold { inside } => {
                    self.mappings.handle_held(inside, self.seen, self.now);
                }
                Action::Send { to, datagram } => {
                    assert_eq!(to.ip(), ROUTER);
                    if let Some(answer) = self.router.datagram(to, &datagram, self.now) {
                        self.mappings.handle_datagram(to, &answer, self.now);
                    }
                }
                Action::Call { id, to, request } => {
                    assert_eq!(to.ip(), ROUTER);
                    let answer = self.router.call(&String::from_utf8(request).unwrap());
                    self.mappings.handle_answer(id, answer.as_deref(), self.now);
                }
            }
            while let Some(event) = self.mappings.poll_event() {
                self.events.push(event);
            }
        }
        while let Some(event) = self.mappings.poll_event() {
            self.events.push(event);
        }
    }

    fn check(&self, inside: Inside, external: SocketAddr) -> Checked {
        let router = &self.router;
        let leads = router.entries.get(&external.port()) == Some(&(OWN, inside.port));
        match self.has_relay {
            false => Checked::Unknown(Unchecked::NotConnected),
            true if leads && !router.drops => {
                Checked::Arrived(SocketAddr::new(router.outside.into(), external.port()))
            }
            true => Checked::Silent,
        }
    }

    fn verified(&self) -> Vec<SocketAddr> {
        self.mappings
            .claims()
            .filter_map(|claim| claim.verified)
            .collect()
    }

    fn granted(&self) -> SocketAddr {
        self.mappings.leases[&QUIC].external().unwrap()
    }
}

impl Router {
    fn epoch(&self, now: Instant) -> [u8; 4] {
        let seconds = now.saturating_duration_since(self.booted).as_secs();
        u32::try_from(seconds).unwrap().to_be_bytes()
    }

    fn map(&mut self, port: u16, wish: u16, lifetime: u32) -> u16 {
        self.entries.retain(|_, entry| *entry != (OWN, port));
        let external = self.gives.unwrap_or(wish);
        if lifetime > 0 {
            self.entries.insert(external, (OWN, port));
        }
        external
    }

    fn datagram(&mut self, to: SocketAddr, asked: &[u8], now: Instant) -> Option<Vec<u8>> {
        let knows = |method| self.knows.contains(&method) && !self.is_silent;
        let epoch = self.epoch(now);
        if to.port() == ssdp::PORT {
            let answer = "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLocation: http://192.168.1.1:5000/d.xml\r\n\r\n";
            return knows(Method::Upnp).then(|| answer.into());
        }
        let u16_at = |at: usize| u16::from_be_bytes(asked[at..at + 2].try_into().unwrap());
        if asked[0] == 2 {
            if !knows(Method::Pcp) {
                // As NAT-PMP answers to another version.
                return knows(Method::NatPmp).then(|| [&[0, 128, 0, 1][..], &epoch].concat());
            }
            let mut answer = asked[..asked.len().min(60)].to_vec();
            answer[1] |= 0x80;
            answer[8..12].copy_from_slice(&epoch);
            answer[12..24].fill(0);
            if asked[1] == 1 {
                let lifetime = u32::from_be_bytes(asked[4..8].try_into().unwrap());
                let external = self.map(u16_at(40), u16_at(42), lifetime);
                answer[42..44].copy_from_slice(&external.to_be_bytes());
                answer[44..60].copy_from_slice(&self.outside.to_ipv6_mapped().octets());
            }
            return Some(answer);
        }
        if !knows(Method::NatPmp) {
            return None;
        }
        if asked.len() == 2 {
            return Some([&[0, 128, 0, 0][..], &epoch, &self.outside.octets()].concat());
        }
        let lifetime: [u8; 4] = asked[8..12].try_into().unwrap();
        let external = self.map(u16_at(4), u16_at(6), u32::from_be_bytes(lifetime));
        Some(
            [
                &[0, 128 + asked[1], 0, 0][..],
                &epoch,
                &asked[4..6],
                &external.to_be_bytes(),
                &lifetime,
            ]
            .concat(),
        )
    }

    fn call(&mut self, request: &str) -> Option<Vec<u8>> {
        if self.is_silent {
            return None;
        }
        let value = |name| upnp::value(request, name).unwrap_or_default().to_owned();
        let external: u16 = value("NewExternalPort").parse().unwrap_or_default();
        let fault = |code: u16| (500, format!("<errorCode>{code}</errorCode>"));
        let (status, body) = if request.starts_with("GET ") {
            (200, "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/c</controlURL></service>".to_owned())
        } else if request.contains("#GetExternalIPAddress") {
            (
                200,
                format!(
                    "<NewExternalIPAddress>{}</NewExternalIPAddress>",
                    self.outside
                ),
            )
        } else if request.contains("#GetSpecificPortMappingEntry") {
            match self.entries.get(&external) {
                Some((ip, port)) => (
                    200,
                    format!(
                        "<NewInternalPort>{port}</NewInternalPort><NewInternalClient>{ip}</NewInternalClient>"
                    ),
                ),
                None => fault(upnp::NO_SUCH_ENTRY),
            }
        } else if request.contains("#AddPortMapping") {
            let client = (
                value("NewInternalClient").parse().unwrap(),
                value("NewInternalPort").parse().unwrap(),
            );
            assert!(
                self.entries
                    .get(&external)
                    .is_none_or(|entry| *entry == client),
                "stolen"
            );
            assert_eq!(value("NewLeaseDuration"), "7200");
            self.entries.insert(external, client);
            (200, String::new())
        } else {
            self.entries.remove(&external);
            (200, String::new())
        };
        Some(
            format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A claim, and its proof.
fn granted(external: &str, method: Method) -> [Event; 2] {
    let external = external.parse().unwrap();
    let claimed = Event::Granted {
        inside: QUIC,
        external,
        method,
    };
    [claimed, proved(external)]
}

fn proved(at: SocketAddr) -> Event {
    Event::Proved { inside: QUIC, at }
}

#[test]
fn each_method_maps_the_port_and_leaves_nothing_behind() {
    for method in ROUTERS {
        for methods in [&[method][..], &ROUTERS] {
            let mut world = World::new(methods, &[method]);
            assert_eq!(
                world.run(SECOND),
                granted("203.0.113.7:40017", method),
                "{method:?}"
            );
            assert_eq!(world.router.entries[&40017], (OWN, 40017));
            // Renewed long before it ends, and nothing is said of it.
            assert_eq!(world.run(SECOND * 9000), [], "{method:?}");
            world.mappings.handle_shutdown();
            world.exchange();
            assert!(world.router.entries.is_empty(), "{method:?}");
        }
    }
}

/// A slow router answers what it was asked before the shutdown, and loses datagrams.
#[test]
fn an_end_is_confirmed_by_an_answer_that_the_mapping_ended_and_asked_for_until_then() {
    for (method, lifetime) in [(Method::Pcp, 4..8), (Method::NatPmp, 12..16)] {
        let mut world = World::new(&[method], &[method]);
        assert_eq!(world.run(SECOND), granted("203.0.113.7:40017", method));
        let answers = |world: &mut World| {
            let mut answers = Vec::new();
            while let Some(Action::Send { to, datagram }) = world.mappings.poll_action() {
                answers.extend(world.router.datagram(to, &datagram, world.now));
            }
            answers
        };
        world.mappings.handle_shutdown();
        let lost = answers(&mut world);
        world.mappings.handle_no_release_answer();
        let ended = answers(&mut world);
        assert_eq!(ended, lost, "{method:?}");
        let mut late = ended.clone();
        for answer in &mut late {
            answer[lifetime.clone()].copy_from_slice(&7200_u32.to_be_bytes());
        }
        let router = SocketAddr::new(ROUTER, ROUTER_PORT);
        let other = SocketAddr::new(OWN, ROUTER_PORT);
        for (from, said, has_ended) in [
            (router, &late, false),
            (other, &ended, false),
            (router, &ended, true),
        ] {
            for answer in said {
                world.mappings.handle_release_answer(from, answer);
            }
            assert_eq!(world.mappings.has_ended(), has_ended, "{method:?} {from}");
        }
    }
}

#[test]
fn pcp_is_taken_where_the_router_knows_everything_and_a_mode_takes_only_its_own() {
    let mut world = World::new(&ROUTERS, &ROUTERS);
    assert_eq!(world.run(SECOND), granted("203.0.113.7:40017", Method::Pcp));
    let mut world = World::new(&[Method::Upnp], &[Method::Pcp, Method::NatPmp]);
    assert_eq!(world.run(SECOND * 60), []);
    assert!(world.sent <= 8, "{} questions in a minute", world.sent);
}

#[test]
fn a_mapping_is_offered_only_after_a_nonce_came_in_and_a_lie_is_given_back() {
    for method in ROUTERS {
        let mut world = World::new(&[method], &[method]);
        world.router.drops = true;
        let unverified = Event::Lost {
            inside: QUIC,
            reason: Lost::Unverified,
        };
        let events = world.run(SECOND * 30);
        assert!(matches!(events[0], Event::Granted { .. }), "{events:?}");
        assert_eq!(events[1..], [unverified]);
        assert!(world.router.entries.is_empty(), "{method:?}");
        let named = Some(world.router.outside.into());
        let shown = world.mappings.router().clone();
        assert_eq!(shown.outside, named, "{method:?}");
        let dead: Vec<_> = shown.dead.iter().map(|dead| dead.method).collect();
        assert_eq!(dead, [method]);
        assert_eq!(world.run(SECOND * 20), [], "not asked at once");
        world.router.drops = false;
        let external = granted("203.0.113.7:40017", method);
        assert_eq!(world.run(REFUSED), external);
        assert_eq!(world.verified(), [world.granted()]);
        assert_eq!(world.mappings.router().dead, []);
    }
}

#[test]
fn a_mapping_that_dies_is_withdrawn_within_30_s_and_released_if_the_router_cannot_mend_it() {
    for method in ROUTERS {
        let mut world = World::new(&[method], &[method]);
        world.run(SECOND * 100);
        assert_eq!(world.verified(), [world.granted()]);
        world.router.drops = true;
        let events = world.run(SECOND * 30);
        assert_eq!(events[0], Event::Doubted { inside: QUIC }, "{method:?}");
        assert_eq!(world.verified(), []);
        let unverified = Event::Lost {
            inside: QUIC,
            reason: Lost::Unverified,
        };
        assert_eq!(events[1..], [unverified]);
        assert!(world.router.entries.is_empty(), "{method:?}");
    }
}

#[test]
fn without_a_relay_that_checks_nothing_is_offered_and_what_was_proved_stays() {
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.has_relay = false;
    assert_eq!(world.run(SECOND * 600).len(), 1, "granted");
    assert_eq!(world.verified(), []);
    world.has_relay = true;
    assert_eq!(world.run(SECOND * 3), [proved(world.granted())]);
    world.has_relay = false;
    assert_eq!(world.run(SECOND * 600), []);
    assert_eq!(world.verified(), [world.granted()]);
}

#[test]
fn an_outcome_for_another_claim_means_nothing() {
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.has_relay = false;
    world.run(SECOND);
    let other = "203.0.113.7:40018".parse().unwrap();
    let arrived = Checked::Arrived(other);
    world
        .mappings
        .handle_checked(QUIC, other, arrived, world.now);
    assert_eq!(world.verified(), []);
}

#[test]
fn behind_a_second_nat_the_address_at_which_the_nonce_came_in_is_offered() {
    let mut world = World::new(&[Method::Pcp], &[Method::Pcp]);
    world.has_relay = false;
    world.run(SECOND);
    let (claim, seen) = (world.granted(), "198.51.100.9:40017".parse().unwrap());
    let arrived = Checked::Arrived(seen);
    world
        .mappings
        .handle_checked(QUIC, claim, arrived, world.now);
    assert_eq!(world.verified(), [seen]);
}
