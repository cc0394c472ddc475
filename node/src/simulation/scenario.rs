//! What a test sets up: which programs run, which peer dials which, and what breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use libp2p::{
    Multiaddr, PeerId, core::transport::ListenerId, identity::Keypair, swarm::ConnectionId,
};
use p2pnode_protocol::{
    join::{Token, TokenId},
    mapping::Protocol,
};
use p2pnode_transports::{Family, FamilyPolicy, HostAddress, PortRange, Transport};
use relay_node::core::{Access, RelayState, Settings as RelaySettings};

use super::{
    Host, Program, World,
    connection::End,
    nat::{Nat, Site},
    network::Network,
    node::SimNode,
    relay::{SimRelay, both},
};
use crate::{
    config::{RelayAddr, Rotate},
    core::{
        dialer::Sources,
        liveness::Ended,
        mappings::{Claim, Inside, Method},
        state::{DialId, NodeState, Settings},
        tokens::Tokens,
    },
    punch::{
        address::Candidate,
        candidates::Policy,
        machine::{Machine, Timing},
    },
};

/// Where relays listen, and nodes first.
const RELAY_PORT: u16 = 443;
const NODE_PORT: u16 = 40_000;

/// What runs on a host.
#[derive(Clone)]
pub(super) enum Setup {
    Node(NodeSetup),
    Relay(RelaySettings),
}

/// How a node is configured and connected.
#[derive(Clone)]
pub(super) struct NodeSetup {
    pub(super) ip4: Option<Nat>,
    pub(super) ip6: Option<Nat>,
    /// Its relays, and in which families it knows them.
    pub(super) relays: Vec<(usize, Vec<Family>)>,
    pub(super) reservations: usize,
    pub(super) family: FamilyPolicy,
    pub(super) punches: bool,
    /// Whether it asks its relays for introductions.
    pub(super) introductions: bool,
    pub(super) transports: Vec<Transport>,
    /// The text of its file of tokens.
    pub(super) tokens: Option<String>,
    /// The hosts that may connect, if not all may.
    pub(super) allowed: Option<Vec<usize>>,
    /// It closes what it has accepted after this time.
    pub(super) hangs_up: Option<Duration>,
}

impl NodeSetup {
    /// A node behind this NAT that reserves on the first of these relays.
    pub(super) fn behind(nat: Nat, relays: &[usize]) -> Self {
        Self {
            ip4: Some(nat),
            ip6: None,
            relays: relays
                .iter()
                .map(|relay| (*relay, vec![Family::Ip4]))
                .collect(),
            reservations: 1,
            family: FamilyPolicy::Auto,
            punches: true,
            introductions: true,
            transports: vec![Transport::Quic, Transport::Tcp],
            tokens: None,
            allowed: None,
            hangs_up: None,
        }
    }
}

/// A dial that the test waits for.
pub(super) struct Dialed {
    pub(super) host: usize,
    pub(super) runs: u16,
    pub(super) id: DialId,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            network: Network::new(seed),
            hosts: Vec::new(),
            ends: BTreeMap::new(),
            opening: BTreeMap::new(),
            attempts: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            numbers: 0,
            dials: Vec::new(),
            surplus: BTreeMap::new(),
        }
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.network.wall()
    }

    pub(super) fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// A relay at a public address of either family.
    pub(super) fn relay(&mut self, settings: RelaySettings) -> usize {
        let name = format!("relay{}", self.hosts.len());
        let sites = [Family::Ip4, Family::Ip6].map(|family| (family, Nat::None));
        self.host(name, &sites, Setup::Relay(settings))
    }

    /// Relays that keep copies of each other's records.
    pub(super) fn relays<const N: usize>(&mut self, settings: &RelaySettings) -> [usize; N] {
        let relays = [(); N].map(|()| self.relay(settings.clone()));
        let known = relays.map(|relay| (self.peer(relay), self.address(relay, Family::Ip4)));
        for relay in relays {
            let relays = known.to_vec();
            self.hosts[relay].setup = Setup::Relay(RelaySettings {
                relays,
                ..settings.clone()
            });
            self.start(relay);
        }
        relays
    }

    pub(super) fn node(&mut self, setup: NodeSetup) -> usize {
        let name = format!("node{}", self.hosts.len());
        let sites = [(Family::Ip4, setup.ip4), (Family::Ip6, setup.ip6)];
        let sites: Vec<_> = sites
            .into_iter()
            .filter_map(|(family, nat)| Some((family, nat?)))
            .collect();
        self.host(name, &sites, Setup::Node(setup))
    }

    fn host(&mut self, name: String, sites: &[(Family, Nat)], setup: Setup) -> usize {
        let number = self.hosts.len() as u8;
        let sites = sites.iter().map(|(family, nat)| {
            let (inside, outside): (IpAddr, IpAddr) = match family {
                Family::Ip4 => (
                    Ipv4Addr::new(10, 0, number, 2).into(),
                    Ipv4Addr::new(198, 51, 100, number + 1).into(),
                ),
                Family::Ip6 => (
                    Ipv6Addr::new(0xfd00, 0, 0, number.into(), 0, 0, 0, 2).into(),
                    Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, 1).into(),
                ),
            };
            (*family, Site::new(*nat, inside, outside))
        });
        let keypair = Keypair::ed25519_from_bytes([number + 1; 32]).unwrap();
        self.hosts.push(Host {
            name,
            peer: keypair.public().to_peer_id(),
            keypair,
            delay: Duration::from_millis(10),
            sites: sites.collect(),
            port: RELAY_PORT,
            setup,
            program: Program::Off,
            runs: 0,
            dials_from: None,
            is_touched: false,
            wakes: (self.network.now, 0),
        });
        let host = self.hosts.len() - 1;
        self.start(host);
        host
    }

    /// The address at which a host is seen over QUIC, by this family.
    pub(super) fn address(&self, host: usize, family: Family) -> Multiaddr {
        self.address_over(Transport::Quic, host, family)
    }

    fn address_over(&self, transport: Transport, host: usize, family: Family) -> Multiaddr {
        let host = &self.hosts[host];
        let socket = (host.sites[&family].outside, host.port).into();
        Candidate { transport, socket }.to_multiaddr()
    }

    /// Starts the program of a host, if it does not run.
    pub(super) fn start_again(&mut self, host: usize) {
        if matches!(self.hosts[host].program, Program::Off) {
            self.start(host);
        }
    }

    /// Starts the program of a host.
    pub(super) fn start(&mut self, host: usize) {
        let seed = self.network.rng.u64(..);
        let (now, local) = (self.network.now, self.hosts[host].peer);
        self.hosts[host].runs += 1;
        self.note(host, "starts");
        match self.hosts[host].setup.clone() {
            Setup::Relay(mut settings) => {
                settings.external = [Family::Ip4, Family::Ip6]
                    .map(|family| self.address(host, family))
                    .to_vec();
                let state = RelayState::new(local, &settings, both(&self.network));
                self.hosts[host].program = Program::Relay(Box::new(SimRelay::new(state)));
            }
            Setup::Node(setup) => {
                // Another run dials from other ports.
                self.hosts[host].port = NODE_PORT + self.hosts[host].runs - 1;
                let node = self.new_node(host, &setup, seed);
                self.hosts[host].program = Program::Node(Box::new(node));
                self.place(host, &setup, now);
            }
        }
        self.hosts[host].is_touched = true;
        self.settle();
    }

    fn new_node(&self, host: usize, setup: &NodeSetup, seed: u64) -> SimNode {
        let (now, local) = (self.network.now, self.hosts[host].peer);
        let transport = setup.transports.first();
        let transport = transport.copied().unwrap_or(Transport::Quic);
        let relays: Vec<RelayAddr> = setup
            .relays
            .iter()
            .flat_map(|(relay, families)| {
                families.iter().map(|family| RelayAddr {
                    peer: self.hosts[*relay].peer,
                    addr: self.address_over(transport, *relay, *family),
                })
            })
            .collect();
        let with_id = |relay: &RelayAddr| relay.addr.clone().with_p2p(relay.peer).unwrap();
        let relay_addrs: Vec<Multiaddr> = relays.iter().map(with_id).collect();
        let introducers: BTreeSet<_> = relays.iter().map(|relay| relay.peer).collect();
        let state = NodeState::new(
            Settings {
                searches: true,
                rotate: Rotate::Auto,
                local,
                is_throwaway: false,
                relays,
                reservations: setup.reservations,
                family: setup.family,
                port_range: PortRange::new(NODE_PORT, NODE_PORT + 100).unwrap(),
                punches: setup.punches,
                introducers: introducers
                    .into_iter()
                    .filter(|_| setup.introductions)
                    .collect(),
                allowed: self.allowed(setup),
                sources: Sources::default(),
                tokens: setup
                    .tokens
                    .as_ref()
                    .map(|text| Tokens::new(text, Path::new("tokens"), local).unwrap()),
                seed,
            },
            now,
        );
        let policy = Policy {
            transports: setup.transports.clone(),
            families: setup.family,
            ..Policy::open()
        };
        let mut machine = Machine::new(local, setup.punches, policy, Timing::default(), seed);
        machine.handle_relays(&relay_addrs);
        SimNode::new(state, machine, seed)
    }

    /// The peers that may connect to a node: its relays, and those of its rules.
    pub(super) fn allowed(&self, setup: &NodeSetup) -> Option<BTreeSet<PeerId>> {
        let relays = setup.relays.iter().map(|(relay, _)| relay);
        let named = setup.allowed.as_ref()?.iter();
        Some(
            named
                .chain(relays)
                .map(|host| self.hosts[*host].peer)
                .collect(),
        )
    }

    /// Says to a node where it is.
    fn place(&mut self, host: usize, setup: &NodeSetup, now: Instant) {
        let port = self.hosts[host].port;
        let sites: Vec<(Family, IpAddr, bool)> = self.hosts[host]
            .sites
            .iter()
            .map(|(family, site)| (*family, site.inside, site.is_open()))
            .collect();
        let node = self.hosts[host].node().unwrap();
        let ports = sites.iter().flat_map(|(family, _, _)| {
            setup
                .transports
                .iter()
                .map(move |transport| ((*transport, *family), port))
        });
        node.state.handle_punch_ports(ports.collect(), now);
        let alone = |ip: IpAddr| HostAddress::plain(ip, if ip.is_ipv4() { 32 } else { 128 });
        let ips = sites.iter().map(|(_, ip, _)| alone(*ip)).collect();
        node.state.handle_interfaces(ips, now);
        for (_, ip, _) in sites.iter().filter(|(_, _, is_open)| *is_open) {
            let socket = (*ip, port).into();
            let transport = Transport::Quic;
            let address = Candidate { transport, socket }.to_multiaddr();
            node.state
                .handle_listening(ListenerId::next(), address, now);
        }
    }

    /// Gives a host the key of another one, and starts it with that.
    pub(super) fn copy_key(&mut self, from: usize, to: usize) {
        self.stop(to);
        let Host { keypair, peer, .. } = &self.hosts[from];
        let (keypair, peer) = (keypair.clone(), *peer);
        self.hosts[to].keypair = keypair;
        self.hosts[to].peer = peer;
        self.start(to);
    }

    /// Ends the program of a host without a word.
    pub(super) fn crash(&mut self, host: usize) {
        self.note(host, "crashes");
        self.hosts[host].program = Program::Off;
        let ends = &self.ends;
        self.exchanges.retain(|_, exchange| {
            let end = ends.get(&exchange.over);
            end.is_none_or(|end| end.host != host)
        });
        self.ends.retain(|_, end| end.host != host);
        self.opening.retain(|_, (of, _)| *of != host);
        self.attempts.retain(|_, attempt| attempt.host != host);
    }

    /// Kills the program of a host and starts it again, with the same ports: the host resets the direct connections of others to it.
    pub(super) fn restart(&mut self, host: usize) {
        self.crash(host);
        self.hosts[host].runs -= 1;
        self.start(host);
        let direct = |end: &End| end.far_host == host && end.is_direct();
        let known = self.ends.iter().filter(|(_, end)| direct(end));
        let known: Vec<ConnectionId> = known.map(|(id, _)| *id).collect();
        for id in known {
            if let Some(base) = self.path(id) {
                let delay = self.network.spread(base) * 2;
                self.after(delay, move |world| world.lose(id, Ended::Reset));
            }
        }
    }

    /// Ends the program of a host, which closes its connections.
    pub(super) fn stop(&mut self, host: usize) {
        self.note(host, "stops");
        self.hosts[host].program = Program::Off;
        for id in self.ends_of(host, None) {
            self.close(id);
        }
        self.crash(host);
    }

    /// A node leaves: it withdraws its record and stops.
    pub(super) fn leave(&mut self, host: usize) {
        self.note(host, "leaves");
        if let Some(node) = self.hosts[host].node() {
            node.state.handle_shutdown();
        }
        self.settle();
        self.after(Duration::from_millis(500), move |world| world.stop(host));
    }

    /// A relay is asked to end.
    pub(super) fn shut_down(&mut self, host: usize) {
        let now = both(&self.network);
        if let Some(relay) = self.hosts[host].relay() {
            relay.state.handle_shutdown(now);
        }
        self.settle();
    }

    /// Lets no packet of a host through, or again.
    pub(super) fn isolate(&mut self, host: usize, is_cut: bool) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.network.cut(host, other, is_cut);
        }
    }

    /// A node is asked to forget the peers that it has lost.
    pub(super) fn forget_lost(&mut self, host: usize) {
        if let Some(node) = self.hosts[host].node() {
            let lost: Vec<PeerId> = node.state.lost().map(|lost| lost.peer).collect();
            for peer in lost {
                node.state.handle_forget(peer);
            }
        }
        self.settle();
    }

    /// From now on a node admits nobody.
    pub(super) fn turn_all_away(&mut self, host: usize) {
        if let Setup::Node(setup) = &mut self.hosts[host].setup {
            setup.allowed = Some(Vec::new());
        }
    }

    /// How long packets take from a host to the middle of the network.
    pub(super) fn set_delay(&mut self, host: usize, delay: Duration) {
        self.hosts[host].delay = delay;
    }

    /// The NAT of a host restarts.
    pub(super) fn restart_nat(&mut self, host: usize) {
        self.note(host, "its NAT restarts");
        for site in self.hosts[host].sites.values_mut() {
            site.forget();
        }
    }

    /// The router of a node maps its punch ports to this port outside, and a check has proved that.
    pub(super) fn map(&mut self, host: usize, outside: u16) {
        let (now, port) = (self.network.now, self.hosts[host].port);
        let site = self.hosts[host].sites.get_mut(&Family::Ip4).unwrap();
        let external = (site.outside, outside).into();
        let claims = [
            (Transport::Quic, Protocol::Udp),
            (Transport::Tcp, Protocol::Tcp),
        ]
        .map(|(transport, protocol)| {
            site.forwards.insert((transport, outside), port);
            Claim {
                inside: Inside { protocol, port },
                method: Method::Pcp,
                external,
                verified: Some(external),
            }
        });
        if let Some(node) = self.hosts[host].node() {
            node.state.handle_mapped(claims.to_vec(), now);
        }
        self.settle();
    }

    /// A token of a relay for a node, as a line of a file.
    pub(super) fn token(&self, relay: usize, node: usize, expires: SystemTime) -> String {
        let peer = self.hosts[node].peer;
        Token::sign(&self.hosts[relay].keypair, TokenId::new(7), &peer, expires).unwrap()
    }

    /// The file of tokens of a node has this text from now on.
    pub(super) fn give_tokens(&mut self, node: usize, text: &str) {
        let (now, local) = (self.network.now, self.hosts[node].peer);
        let tokens = Tokens::new(text, Path::new("tokens"), local).unwrap();
        if let Some(node) = self.hosts[node].node() {
            node.state.handle_tokens(tokens, now);
        }
        self.settle();
    }

    /// A relay has other access rules from now on.
    pub(super) fn set_access(&mut self, relay: usize, access: &Access) {
        let now = both(&self.network);
        if let Some(relay) = self.hosts[relay].relay() {
            relay.state.handle_access(access, now);
        }
        self.settle();
    }
}
