use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{limits::KEPT_FILES, *};

/// A node's admission, and what came out of it.
struct Node {
    admission: Admission,
    now: Instant,
    next: usize,
    relay: PeerId,
    ended: Vec<ConnectionId>,
    closed: Vec<ConnectionId>,
    events: Vec<Event>,
}

impl Node {
    fn new() -> Self {
        Self::with_files(None)
    }

    fn with_files(files: Option<u64>) -> Self {
        let relay = PeerId::random();
        Self {
            admission: Admission::new([relay].into(), files),
            now: Instant::now(),
            next: 0,
            relay,
            ended: Vec::new(),
            closed: Vec::new(),
            events: Vec::new(),
        }
    }

    fn id(&mut self) -> ConnectionId {
        self.next += 1;
        ConnectionId::new_unchecked(self.next)
    }

    /// Carries out what there is to do.
    fn act(&mut self) {
        while let Some(action) = self.admission.poll_action() {
            match action {
                Action::End(id) => {
                    self.admission.handle_failed(id);
                    self.ended.push(id);
                }
                Action::Close(peer, id) => {
                    self.admission.handle_closed(id, peer);
                    self.closed.push(id);
                }
            }
        }
        while let Some(event) = self.admission.poll_event() {
            self.events.push(event);
        }
    }

    fn begins(&mut self, local: &Multiaddr, remote: &Multiaddr) -> Result<ConnectionId, Refused> {
        let id = self.id();
        let begun = self.admission.handle_incoming(id, local, remote, self.now);
        self.act();
        begun.map(|()| id)
    }

    fn handshake(&mut self, remote: &str) -> Result<ConnectionId, Refused> {
        self.begins(&listener(), &addr(remote))
    }

    fn circuit(&mut self, relay: PeerId, caller: PeerId) -> Result<ConnectionId, Refused> {
        let (local, remote) = circuit(relay, caller);
        self.begins(&local, &remote)
    }

    /// A handshake from there and its end, with `peer`.
    fn connects(&mut self, remote: &str, peer: PeerId) -> Result<ConnectionId, Refused> {
        let id = self.handshake(remote)?;
        let (local, remote) = (listener(), addr(remote));
        let inbound = Some((&local, &remote));
        let admitted = self
            .admission
            .handle_authenticated(id, peer, inbound, self.now);
        match admitted {
            Ok(()) => self
                .admission
                .handle_established(id, peer, inbound, self.now),
            Err(_) => self.admission.handle_failed(id),
        }
        self.act();
        admitted.map(|()| id)
    }

    fn own_dial(&mut self, peer: PeerId) -> ConnectionId {
        let id = self.id();
        self.admission.handle_own_dial(id, peer);
        let dialed = self.admission.handle_dial(id, Some(peer), self.now);
        assert_eq!(dialed, Ok(()));
        id
    }

    /// This node's own dial ends in a connection.
    fn dials(&mut self, peer: PeerId) -> ConnectionId {
        let id = self.own_dial(peer);
        let admitted = self
            .admission
            .handle_authenticated(id, peer, None, self.now);
        assert_eq!(admitted, Ok(()));
        self.admission.handle_established(id, peer, None, self.now);
        id
    }

    fn punch(&mut self, peer: PeerId) -> Result<ConnectionId, Refused> {
        let id = self.id();
        let dialed = self.admission.handle_dial(id, Some(peer), self.now);
        self.act();
        dialed.map(|()| id)
    }

    /// What nobody else may take: a leg to a relay, and a dial of the user.
    fn works(&mut self) {
        self.dials(self.relay);
        self.dials(PeerId::random());
    }
}

fn addr(text: &str) -> Multiaddr {
    text.parse().expect("a multiaddr")
}

fn listener() -> Multiaddr {
    addr("/ip4/192.0.2.1/tcp/443")
}

fn circuit(relay: PeerId, caller: PeerId) -> (Multiaddr, Multiaddr) {
    (
        addr(&format!("/ip4/192.0.2.9/tcp/4001/p2p/{relay}/p2p-circuit")),
        addr(&format!("/p2p/{caller}")),
    )
}

fn host(number: usize) -> String {
    format!("/ip4/198.51.{}.{}/tcp/4", number / 250, number % 250)
}

#[test]
fn silent_sockets_refuse_nobody_else_and_touch_no_circuit_dial_or_leg() {
    for flood in ["/ip4/203.0.113.1/tcp/4", "/ip4/203.0.113.1/udp/4/quic-v1"] {
        let mut node = Node::new();
        for _ in 0..300 {
            let _ = node.handshake(flood);
        }
        for other in [
            "/ip4/198.51.100.2/tcp/4",
            "/ip4/198.51.100.2/udp/4/quic-v1",
            "/ip6/2001:db8::1/tcp/4",
            "/ip6/2001:db8::1/udp/4/quic-v1",
        ] {
            assert!(node.connects(other, PeerId::random()).is_ok(), "{other}");
        }
        let relay = node.relay;
        assert!(node.circuit(relay, PeerId::random()).is_ok());
        assert!(node.punch(PeerId::random()).is_ok());
        node.works();
        let counted = |refused| node.events.iter().any(|event| event.refused == refused);
        assert!(counted(Refused::Handshakes) && counted(Refused::HandshakeDisplaced));
        let lines = node.events.iter().filter_map(|event| event.to_log).count();
        assert_eq!(lines, 1, "one line a minute");
    }
}

#[test]
fn silent_circuits_leave_room_for_other_callers_of_the_same_relay_and_of_others() {
    for ids in [3, 64, 256] {
        let mut node = Node::new();
        let (relay, other) = (node.relay, PeerId::random());
        let callers: Vec<PeerId> = (0..ids).map(|_| PeerId::random()).collect();
        let flood = |node: &mut Node| {
            for number in 0..256 {
                let _ = node.circuit(relay, callers[number % ids]);
            }
        };
        flood(&mut node);
        let caller = PeerId::random();
        if ids > 128 {
            // Nobody has more than this caller, so it waits until one of them is old.
            assert_eq!(node.circuit(relay, caller), Err(Refused::Circuits));
            node.now += PATIENCE;
        }
        let honest = node.circuit(relay, caller).expect("a place");
        let over_other = node.circuit(other, PeerId::random()).expect("a place");
        flood(&mut node);
        assert!(!node.ended.contains(&honest) && !node.ended.contains(&over_other));
        assert!(node.connects("/ip4/198.51.100.2/tcp/4", caller).is_ok());
        node.works();
    }
}

#[test]
fn a_caller_has_four_circuits_in_their_handshake() {
    let mut node = Node::new();
    let (relay, caller) = (node.relay, PeerId::random());
    let circuits = [(); CIRCUITS_PER_CALLER].map(|()| node.circuit(relay, caller));
    assert_eq!(node.circuit(relay, caller), Err(Refused::Circuits));
    node.admission.handle_failed(circuits[0].expect("a place"));
    assert!(node.circuit(relay, caller).is_ok());
}

#[test]
fn punches_that_remotes_ask_for_are_bounded_and_the_nodes_own_dials_are_not() {
    let mut node = Node::new();
    let peer = PeerId::random();
    for _ in 0..PUNCHES_PER_PEER {
        assert!(node.punch(peer).is_ok());
    }
    assert_eq!(node.punch(peer), Err(Refused::Punches));
    let begun = (0..64 * 8).filter(|number| node.punch(PeerId::random()).is_ok() && *number < 512);
    assert_eq!(begun.count(), Limits::DEFAULT.punches - PUNCHES_PER_PEER);
    for _ in 0..300 {
        node.own_dial(PeerId::random());
    }
    node.works();
    assert!(node.connects("/ip4/198.51.100.2/tcp/4", peer).is_ok());
}

#[test]
fn idle_connections_of_one_network_are_bounded_and_a_peer_has_seventeen() {
    let mut node = Node::new();
    let one = "/ip4/203.0.113.1/tcp/4";
    let held = (0..4140).filter(|_| node.connects(one, PeerId::random()).is_ok());
    assert_eq!(held.count(), PER_SOURCE);
    assert!(
        node.connects("/ip4/198.51.100.2/tcp/4", PeerId::random())
            .is_ok()
    );
    node.works();
    let mut node = Node::new();
    let peer = PeerId::random();
    let held = (0..40).filter(|number| node.connects(&host(*number), peer).is_ok());
    assert_eq!(held.count(), PER_PEER);
    assert_eq!(
        node.connects(&host(99), peer),
        Err(Refused::PeerConnections)
    );
    node.dials(peer);
    let mut of_48 = 0;
    for number in 0..4 * PER_SOURCE * 2 {
        let from = format!("/ip6/2001:db8:0:{:x}::1/tcp/4", number);
        of_48 += usize::from(node.connects(&from, PeerId::random()).is_ok());
    }
    assert_eq!(of_48, 4 * PER_SOURCE);
}

#[test]
fn a_full_table_closes_the_oldest_stranger_of_the_heaviest_source_and_nobody_that_is_wanted() {
    let mut node = Node::with_files(Some(KEPT_FILES as u64 + 64));
    let limit = 32;
    let called = PeerId::random();
    node.own_dial(called);
    let wanted = node
        .connects("/ip4/203.0.113.1/tcp/4", called)
        .expect("a place");
    let lone = node
        .connects("/ip4/198.51.100.9/tcp/4", PeerId::random())
        .expect("a place");
    let mut held = Vec::new();
    for _ in 0..2 * limit {
        held.extend(node.connects("/ip4/203.0.113.1/tcp/4", PeerId::random()));
    }
    assert_eq!(held.len(), limit - limit / 8 - 2);
    let late = node
        .connects("/ip4/198.51.100.2/tcp/4", PeerId::random())
        .expect("a place");
    assert_eq!(node.closed, [held[0]]);
    assert!(
        node.connects("/ip6/2001:db8::1/tcp/4", PeerId::random())
            .is_ok()
    );
    assert_eq!(node.closed, [held[0]], "a part is kept for IPv6");
    let relay = node.relay;
    assert!(
        node.connects("/ip4/203.0.113.1/tcp/4", relay).is_ok(),
        "a relay waits for nobody"
    );
    node.now += STRANGERS_PATIENCE;
    for _ in 0..2 * limit {
        let _ = node.connects("/ip4/203.0.113.1/tcp/4", PeerId::random());
    }
    for kept in [wanted, lone, late] {
        assert!(!node.closed.contains(&kept));
    }
    node.works();
}

#[test]
fn few_open_files_leave_room_for_the_nodes_own_dials() {
    for files in [64, 256, 1024, 65_536] {
        let limits = Limits::within(Some(files));
        let taken = limits.handshakes + limits.punches + limits.connections;
        assert!(
            taken <= (files as usize).saturating_sub(KEPT_FILES).max(8),
            "{files}"
        );
        assert!(limits.handshakes > 0 && limits.connections > 0, "{files}");
    }
    let (most, all) = (Limits::within(Some(65_536)), Limits::within(None));
    assert_eq!(format!("{most:?}"), format!("{all:?}"));
}

#[test]
fn sessions_hold_a_quarter_of_what_the_process_may_take() {
    const MIB: u64 = 1 << 20;
    for (wanted, limit, most) in [
        (128, 0, 128),
        (128, 512, 128),
        (128, 40, 10),
        (1024, 64, 16),
        (8, 64, 8),
        (128, 2, 1),
    ] {
        let most_of = memory_of_services(wanted * MIB, limit * MIB);
        assert_eq!(most_of, most * MIB, "{wanted} of {limit}");
    }
}

#[test]
fn services_leave_files_for_the_node_however_few_there_are() {
    for (files, services) in [(16, 4), (60, 22), (256, 64), (1024, 448), (65_536, 61_056)] {
        assert_eq!(of_services(Some(files)), services, "{files}");
    }
    assert_eq!(of_services(None), usize::MAX);
}

#[test]
fn what_is_over_leaves_nothing() {
    let mut node = Node::new();
    let peers = [(); 3].map(|()| PeerId::random());
    let connection = node
        .connects("/ip4/198.51.100.2/tcp/4", peers[0])
        .expect("a place");
    let dialed = node.dials(peers[1]);
    let relay = node.relay;
    let ends = [
        node.handshake("/ip4/198.51.100.3/tcp/4").expect("a place"),
        node.circuit(relay, peers[2]).expect("a place"),
        node.punch(peers[2]).expect("a place"),
        node.own_dial(peers[2]),
    ];
    for id in ends {
        node.admission.handle_failed(id);
    }
    node.admission.handle_closed(connection, peers[0]);
    node.admission.handle_closed(dialed, peers[1]);
    let Admission {
        peers,
        handshakes,
        circuits,
        own_dials,
        punches,
        inbound,
        owners,
        ..
    } = node.admission;
    assert!(peers.is_empty() && own_dials.is_empty() && punches.is_empty() && owners.is_empty());
    assert!(handshakes.is_empty() && circuits.is_empty() && inbound.shares.is_empty());
}

#[test]
fn refusals_are_summed_up_once_a_minute() {
    let mut node = Node::new();
    let mut lines = Vec::new();
    for _ in 0..3 {
        for _ in 0..200 {
            let _ = node.handshake("/ip4/203.0.113.1/tcp/4");
        }
        lines.extend(node.events.drain(..).filter_map(|event| event.to_log));
        node.now += LOG_PERIOD / 2 + Duration::from_millis(1);
    }
    assert_eq!(lines.len(), 2);
    assert!(lines[1] > 200, "{lines:?}");
}
