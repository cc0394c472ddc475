//! Ten thousand nodes whose relay restarts: their keepers, the relay's state, and packets between them.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::ListenerId},
    multiaddr::Protocol,
    swarm::ConnectionId,
};
use p2pnode_transports::{Family, FamilyPolicy};
use relay_node::{
    config::{Limits, PerSource},
    core::{Now, RelayState, Settings},
};

use super::seconds;
use crate::{
    config::RelayAddr,
    core::relays::{Action, RelayKeeper},
};

const CLIENTS: usize = 10_000;

/// When a QUIC dial sends its first packet again, and when it gives up.
const PACKETS: [Duration; 3] = [Duration::ZERO, seconds(1), seconds(3)];
const DIAL: Duration = seconds(5);

/// The defaults of the program, for a relay that has room for all.
fn limits() -> Limits {
    let per_source = PerSource {
        ip4: 1024,
        ip6_net: 1024,
    };
    Limits {
        reservations: 16_384,
        reservations_per_peer: 8,
        reservations_per_source: per_source,
        reservation_duration: seconds(3600),
        connections: 16_384,
        connections_per_peer: 16,
        connections_per_source: per_source,
        pending_connections: 1024,
        ..Limits::UNLIMITED
    }
}

struct Client {
    peer: PeerId,
    addr: Multiaddr,
    keeper: RelayKeeper,
    /// One way to the relay.
    delay: Duration,
    due: Option<Instant>,
    connection: Option<ConnectionId>,
    listener: Option<ListenerId>,
}

enum Step {
    Wake(usize),
    /// A packet of a dial arrives at the relay.
    Packet(usize, ConnectionId),
    /// The relay has authenticated the client.
    Authenticated(usize, ConnectionId),
    DialFailed(usize, ConnectionId),
    Identified(usize, ConnectionId),
    Reserved(usize, ConnectionId, ListenerId),
    Lost(usize, ConnectionId),
}

struct Crowd {
    start: Instant,
    now: Instant,
    rng: fastrand::Rng,
    relay: Option<RelayState>,
    relay_peer: PeerId,
    clients: Vec<Client>,
    /// Dials that no packet has reached the relay of, and connections.
    dialing: BTreeMap<ConnectionId, usize>,
    open: BTreeMap<ConnectionId, usize>,
    queue: BTreeMap<(Instant, usize), Step>,
    numbers: usize,
    refused: usize,
    dials: usize,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        let (now, rng) = (Instant::now(), fastrand::Rng::with_seed(seed));
        let relay_peer = PeerId::random();
        let mut crowd = Self {
            start: now,
            now,
            rng,
            relay: None,
            relay_peer,
            clients: Vec::new(),
            dialing: BTreeMap::new(),
            open: BTreeMap::new(),
            queue: BTreeMap::new(),
            numbers: 0,
            refused: 0,
            dials: 0,
        };
        let relay = RelayAddr {
            peer: relay_peer,
            addr: "/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap(),
        };
        for number in 0..CLIENTS as u32 {
            let ip = Ipv4Addr::from(0x0a00_0000 + number);
            let addr = Multiaddr::from(ip)
                .with(Protocol::Udp(40_000))
                .with(Protocol::QuicV1);
            // They were started over a while, as nodes are.
            let begins = now + Duration::from_millis(crowd.rng.u64(..20_000));
            let keeper =
                RelayKeeper::new(std::slice::from_ref(&relay), 1, FamilyPolicy::Auto, begins);
            crowd.clients.push(Client {
                peer: PeerId::random(),
                addr,
                keeper,
                delay: Duration::from_millis(crowd.rng.u64(5..40)),
                due: None,
                connection: None,
                listener: None,
            });
            crowd.settle(number as usize);
        }
        crowd.start_relay();
        crowd
    }

    fn start_relay(&mut self) {
        let settings = Settings {
            limits: limits(),
            external: vec!["/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap()],
            ..Settings::default()
        };
        self.relay = Some(RelayState::new(self.relay_peer, &settings, self.both()));
    }

    fn both(&self) -> Now {
        let wall = SystemTime::UNIX_EPOCH + seconds(1_800_000_000) + (self.now - self.start);
        Now {
            instant: self.now,
            wall,
        }
    }

    fn after(&mut self, delay: Duration, step: Step) {
        self.numbers += 1;
        self.queue.insert((self.now + delay, self.numbers), step);
    }

    /// The relay ends, and each node notices within this time.
    fn stop_relay(&mut self, noticed: Duration) {
        self.relay = None;
        for (connection, client) in std::mem::take(&mut self.open) {
            let at = noticed.mul_f64(self.rng.f64());
            self.after(at, Step::Lost(client, connection));
        }
    }

    /// Carries out what a keeper asks for.
    fn settle(&mut self, client: usize) {
        let now = self.now;
        self.clients[client].keeper.handle_timeout(now);
        while let Some(action) = self.clients[client].keeper.poll_action() {
            match action {
                Action::Dial { leg, .. } => {
                    self.numbers += 1;
                    let id = ConnectionId::new_unchecked(self.numbers);
                    self.dials += 1;
                    self.dialing.insert(id, client);
                    self.clients[client].keeper.handle_dialing(leg, id);
                    let delay = self.clients[client].delay;
                    for at in PACKETS {
                        self.after(at + delay, Step::Packet(client, id));
                    }
                    self.after(DIAL, Step::DialFailed(client, id));
                }
                Action::Reserve { relay } => {
                    let listener = ListenerId::next();
                    self.clients[client]
                        .keeper
                        .handle_reserving(&relay, listener);
                    self.clients[client].listener = Some(listener);
                    let Client {
                        connection, delay, ..
                    } = self.clients[client];
                    if let Some(id) = connection {
                        self.after(delay, Step::Reserved(client, id, listener));
                    }
                }
            }
        }
        let due = self.clients[client].keeper.poll_timeout();
        if due != self.clients[client].due {
            self.clients[client].due = due;
            if let Some(due) = due {
                self.after(due.saturating_duration_since(now), Step::Wake(client));
            }
        }
    }

    fn step(&mut self, step: Step) {
        let (now, both, jitter) = (self.now, self.both(), self.rng.f64());
        match step {
            Step::Wake(client) => {
                self.clients[client].due = None;
                self.settle(client);
            }
            Step::Packet(client, id) => {
                let Some(relay) = self
                    .relay
                    .as_mut()
                    .filter(|_| self.dialing.contains_key(&id))
                else {
                    return;
                };
                self.dialing.remove(&id);
                let (addr, delay) = (&self.clients[client].addr, self.clients[client].delay);
                match relay.handle_incoming(id, addr, || None, both) {
                    Ok(displaced) => {
                        assert_eq!(displaced, None, "a handshake gave way to another");
                        self.after(delay * 2, Step::Authenticated(client, id));
                    }
                    Err(_) => self.refuse(client, id),
                }
            }
            Step::Authenticated(client, id) => {
                let Client {
                    peer, addr, delay, ..
                } = &self.clients[client];
                let (peer, addr, delay) = (*peer, addr.clone(), *delay);
                let Some(relay) = self.relay.as_mut() else {
                    return self.after(DIAL, Step::Lost(client, id));
                };
                if relay
                    .handle_authenticated(&peer, Some(&addr), both)
                    .is_err()
                {
                    relay.handle_incoming_failed(id);
                    return self.refuse(client, id);
                }
                let endpoint = ConnectedPoint::Listener {
                    local_addr: "/ip4/203.0.113.10/udp/443/quic-v1".parse().unwrap(),
                    send_back_addr: addr,
                };
                relay.handle_established(peer, id, &endpoint, both);
                while relay.poll_action().is_some() {}
                while relay.poll_event().is_some() {}
                self.open.insert(id, client);
                self.clients[client].connection = Some(id);
                self.clients[client].keeper.handle_established(id, now);
                self.after(delay, Step::Identified(client, id));
            }
            Step::DialFailed(client, id) => {
                if self.dialing.remove(&id).is_some() {
                    self.clients[client]
                        .keeper
                        .handle_dial_failed(id, now, jitter);
                    self.settle(client);
                }
            }
            Step::Identified(client, id) => {
                self.clients[client].keeper.handle_identified(id, now);
                self.settle(client);
            }
            Step::Reserved(client, id, listener) => {
                let Some(relay) = self.relay.as_mut().filter(|_| self.open.contains_key(&id))
                else {
                    return;
                };
                let peer = self.clients[client].peer;
                let granted = relay.handle_reservation_request(peer, id, both).is_ok();
                while relay.poll_action().is_some() {}
                while relay.poll_event().is_some() {}
                let (relay, keeper) = (self.relay_peer, &mut self.clients[client].keeper);
                if granted {
                    keeper.handle_reserved(&relay, Family::Ip4);
                } else {
                    self.refused += 1;
                    self.clients[client].listener = None;
                    let keeper = &mut self.clients[client].keeper;
                    keeper.handle_listener_closed(listener, now, jitter);
                }
                self.settle(client);
            }
            Step::Lost(client, id) => {
                let Client {
                    keeper,
                    listener,
                    connection,
                    ..
                } = &mut self.clients[client];
                *connection = None;
                if let Some(listener) = listener.take() {
                    keeper.handle_listener_closed(listener, now, jitter);
                }
                keeper.handle_closed(id, now, jitter);
                self.settle(client);
            }
        }
    }

    fn refuse(&mut self, client: usize, id: ConnectionId) {
        self.refused += 1;
        self.dialing.insert(id, client);
        self.after(Duration::ZERO, Step::DialFailed(client, id));
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self
            .queue
            .first_entry()
            .filter(|next| next.key().0 <= until)
        {
            self.now = self.now.max(next.key().0);
            let step = next.remove();
            self.step(step);
        }
        self.now = until;
    }

    fn held(&self) -> usize {
        self.clients
            .iter()
            .filter(|client| client.keeper.held() == 1)
            .count()
    }
}

#[test]
fn ten_thousand_nodes_return_to_a_relay_that_restarts_and_none_is_refused() {
    for noticed in [Duration::ZERO, Duration::from_millis(3500)] {
        let mut crowd = Crowd::new(1);
        crowd.run(seconds(30));
        assert_eq!((crowd.held(), crowd.refused), (CLIENTS, 0));
        crowd.stop_relay(noticed);
        crowd.run(seconds(3));
        crowd.start_relay();
        crowd.run(seconds(8));
        assert_eq!((crowd.held(), crowd.refused), (CLIENTS, 0), "{noticed:?}");
    }
}

#[test]
fn ten_thousand_nodes_leave_an_address_alone_that_does_not_answer() {
    let mut crowd = Crowd::new(2);
    crowd.run(seconds(30));
    crowd.stop_relay(Duration::ZERO);
    crowd.run(seconds(1200));
    let before = crowd.dials;
    crowd.run(seconds(600));
    let per_node = (crowd.dials - before) as f64 / CLIENTS as f64;
    assert!(
        per_node < 6.0,
        "{per_node} dials of each node in ten minutes"
    );
    crowd.start_relay();
    crowd.run(seconds(320));
    assert_eq!((crowd.held(), crowd.refused), (CLIENTS, 0));
}
