//! The attacks: what the strangers do, to whom, and what it may cost.

use p2pnode_tests::args::Transport;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Relay,
    /// A node with public listeners.
    Node,
    /// A node behind a NAT, with a neighbour in its LAN; what it sends is captured.
    Home,
}

impl Target {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Node | Self::Home => "node",
        }
    }
}

/// What the target may lose, beyond what holds for every attack.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Budget {
    /// MiB by which resident memory may grow.
    pub(super) growth: Option<f64>,
    /// MiB of resident memory at the most: `limits.memory` and a tenth.
    pub(super) resident: Option<f64>,
    /// SYNs to a relay that is none, in a minute.
    pub(super) dials: Option<f64>,
    /// All packets to it, in a minute.
    pub(super) packets: Option<f64>,
    /// By how many they may grow.
    pub(super) descriptors: Option<f64>,
    /// Of one processor.
    pub(super) cpu: Option<f64>,
}

#[derive(Debug, Clone)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) target: Target,
    pub(super) transport: &'static str,
    pub(super) relay_env: Vec<(&'static str, &'static str)>,
    /// Whether the relay admits only the honest peers, and others with a token.
    pub(super) closed: bool,
    /// Whether a second relay copies the directory of the first.
    pub(super) mesh: bool,
    /// Words of `stranger attack` for a relay that is none, and that the node is configured with.
    pub(super) evil: Option<&'static str>,
    /// Whether strangers run on the host of the target.
    pub(super) local: bool,
    /// The `punch.allow` of the target: what is then reached shows what the same attack is kept from without it.
    pub(super) allows: Option<&'static str>,
    /// Words of `stranger`, with names in braces for what the lab knows.
    pub(super) strangers: Vec<String>,
    pub(super) budget: Budget,
}

impl Attack {
    /// Backoff and punches have times of their own, which a shorter attack would not see.
    pub(super) fn seconds(&self, wanted: u64) -> u64 {
        if self.evil.is_some() || self.name.starts_with("oracle") {
            wanted.max(60)
        } else {
            wanted
        }
    }

    fn new(
        name: &'static str,
        target: Target,
        transport: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            name,
            about,
            target,
            transport,
            relay_env: Vec::new(),
            closed: false,
            mesh: false,
            evil: None,
            local: false,
            allows: None,
            strangers: Vec::new(),
            budget: Budget::default(),
        }
    }

    fn by(mut self, words: &str) -> Self {
        self.strangers.push(words.to_owned());
        self
    }

    fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.relay_env.push((name, value));
        self
    }

    fn grows(mut self, mib: f64) -> Self {
        self.budget.growth = Some(mib);
        self
    }

    fn takes(mut self, cpu: f64) -> Self {
        self.budget.cpu = Some(cpu);
        self
    }

    fn limited(self) -> Self {
        self.env("RELAY_NODE_LIMITS_MEMORY", "256MiB")
            .resident(282.0)
    }

    fn resident(mut self, mib: f64) -> Self {
        self.budget.resident = Some(mib);
        self
    }

    fn closed(mut self) -> Self {
        self.closed = true;
        self.limited()
    }

    fn evil(mut self, words: &'static str) -> Self {
        self.evil = Some(words);
        self
    }
}

/// Addresses that no relay vouches for, of the kinds that are never dialed or only in one's own network.
const INNER: [&str; 14] = [
    "/ip4/10.7.0.1",
    "/ip4/192.168.1.{inside}",
    "/ip4/172.16.5.5",
    "/ip4/127.0.0.1",
    "/ip4/169.254.169.254",
    "/ip4/100.100.100.200",
    "/ip4/168.63.129.16",
    "/ip4/192.168.1.255",
    "/ip4/255.255.255.255",
    "/ip4/224.0.0.251",
    "/ip6/fd00:ec2::254",
    "/ip6/64:ff9b::a00:1",
    "/ip6/2002:a00:1::1",
    "/ip6/::ffff:10.0.0.1",
];

fn addresses(ips: &[&str], flag: &str, ports: u16) -> String {
    let mut words = String::new();
    for port in 0..ports {
        for ip in ips {
            for end in [
                format!("tcp/{}", 6443 + port),
                format!("udp/{}/quic-v1", 6443 + port),
            ] {
                words.push_str(&format!(" {flag} {ip}/{end}"));
            }
        }
    }
    words
}

#[rustfmt::skip]
pub(super) fn all() -> Vec<Attack> {
    use Target::{Home, Node, Relay};
    let mut all = Vec::new();
    for transport in Transport::ALL {
        let t = transport.name();
        let name = |quic, tcp| if transport == Transport::Quic { quic } else { tcp };
        all.extend([
            Attack::new(name("memory-relay-streams-quic", "memory-relay-streams-tcp"), Relay, t, "16 connections without a token, 255 unread streams each")
                .closed().grows(48.0)
                .by(&format!("attack unread --at {{relay.{t}}} --connections 16 --streams 255")),
            Attack::new(name("memory-relay-one-stream-quic", "memory-relay-one-stream-tcp"), Relay, t, "16 connections without a token, one stream each that takes everything")
                .closed().grows(48.0)
                .by(&format!("attack unread --at {{relay.{t}}} --connections 16 --streams 1 --protocol /ipfs/ping/1.0.0")),
            Attack::new(name("memory-relay-many-quic", "memory-relay-many-tcp"), Relay, t, "400 connections without a token, 255 unread streams each, limits.memory 256MiB")
                .closed()
                .by(&format!("attack unread --at {{relay.{t}}} --connections 400 --streams 255")),
            Attack::new(name("memory-relay-circuits-quic", "memory-relay-circuits-tcp"), Relay, t, "480 circuits that one end fills and nobody reads")
                .grows(96.0)
                .by(&format!("attack circuits-nobody-reads --at {{relay.{t}}} --connections 8 --streams 480")),
            Attack::new(name("memory-node-streams-quic", "memory-node-streams-tcp"), Node, t, "16 connections, 255 unread streams each")
                .grows(48.0)
                .by(&format!("attack unread --at {{node.{t}}} --connections 16 --streams 255")),
            Attack::new(name("memory-node-4-circuits-quic", "memory-node-4-circuits-tcp"), Node, t, "4 circuits, 255 unread streams each")
                .grows(24.0)
                .by(&format!("attack unread-in-circuits --at {{relay.{t}}} --to {{node}} --connections 4 --streams 255")),
            Attack::new(name("memory-node-480-circuits-quic", "memory-node-480-circuits-tcp"), Node, t, "480 circuits, 20 unread streams each")
                .grows(256.0)
                .by(&format!("attack unread-in-circuits --at {{relay.{t}}} --to {{node}} --connections 480 --streams 20")),
            Attack::new(name("fair-relay-idle-quic", "fair-relay-idle-tcp"), Relay, t, "4,140 idle connections of one address")
                .by(&format!("attack idle --at {{relay.{t}}} --connections 4140")),
            Attack::new(name("fair-node-idle-quic", "fair-node-idle-tcp"), Node, t, "4,140 idle connections of one address")
                .by(&format!("attack idle --at {{node.{t}}} --connections 4140")),
            Attack::new(name("chat-reserve-quic", "chat-reserve-tcp"), Relay, t, "RESERVE at full speed, 2 connections")
                .by(&format!("attack reserve --at {{relay.{t}}} --connections 2 --streams 16")),
            Attack::new(name("chat-connect-quic", "chat-connect-tcp"), Relay, t, "CONNECT at full speed, 2 connections")
                .by(&format!("attack connect --at {{relay.{t}}} --connections 2 --streams 16")),
            Attack::new(name("chat-open-close-quic", "chat-open-close-tcp"), Relay, t, "streams opened and closed at full speed, 2 connections")
                .by(&format!("attack open-close --at {{relay.{t}}} --connections 2 --streams 16")),
            Attack::new(name("chat-relay-reopen-quic", "chat-relay-reopen-tcp"), Relay, t, "streams opened and reset in bare frames, 4 connections")
                .takes(0.4)
                .by(&format!("attack reopen --at {{relay.{t}}} --connections 4")),
            Attack::new(name("chat-node-reopen-quic", "chat-node-reopen-tcp"), Node, t, "streams opened and reset in bare frames, 4 connections")
                .takes(0.4)
                .by(&format!("attack reopen --at {{node.{t}}} --connections 4")),
            Attack::new(name("chat-circuit-reopen-quic", "chat-circuit-reopen-tcp"), Node, t, "streams opened and reset in bare frames, in 4 circuits")
                .takes(0.4)
                .by(&format!("attack reopen --at {{relay.{t}}} --to {{node}} --connections 4")),
            Attack::new(name("chat-relay-propose-quic", "chat-relay-propose-tcp"), Relay, t, "protocols that nobody speaks, 2 connections, 16 streams each")
                .takes(0.4)
                .by(&format!("attack propose --at {{relay.{t}}} --connections 2 --streams 16")),
            Attack::new(name("chat-node-propose-quic", "chat-node-propose-tcp"), Node, t, "protocols that nobody speaks, 2 connections, 16 streams each")
                .takes(0.4)
                .by(&format!("attack propose --at {{node.{t}}} --connections 2 --streams 16")),
            Attack::new(name("memory-relay-reserved-quic", "memory-relay-reserved-tcp"), Relay, t, "400 connections with a reservation, 255 unread streams each, limits.memory 256MiB")
                .limited()
                .by(&format!("attack unread --reserve --at {{relay.{t}}} --connections 400 --streams 255")),
            Attack::new(name("chat-node-ping-quic", "chat-node-ping-tcp"), Node, t, "pings at full speed, 2 connections")
                .by(&format!("attack ping --at {{node.{t}}} --connections 2 --streams 8")),
        ]);
    }
    all.extend([
        Attack::new("memory-relay-negotiated", Relay, "tcp", "64 connections without a token, 16 streams of the hop protocol each, never read")
            .closed().grows(80.0)
            .by("attack unread --at {relay.tcp} --connections 64 --streams 16 --protocol /libp2p/circuit/relay/0.2.0/hop"),
        Attack::new("fair-node-silent", Node, "tcp", "300 silent TCP connections to the public port and to the punch port each")
            .by("attack silent --at {node.tcp} --connections 300").by("attack silent --at {punch.tcp} --connections 300"),
        Attack::new("fair-node-drip", Node, "tcp", "300 TCP connections to the public port and to the punch port each, with a byte each second")
            .by("attack drip --at {node.tcp} --connections 300").by("attack drip --at {punch.tcp} --connections 300"),
        Attack::new("fair-relay-drip", Relay, "tcp", "1,200 TCP connections with a byte each second")
            .by("attack drip --at {relay.tcp} --connections 1200"),
        Attack::new("fair-relay-stray-packets", Relay, "quic", "QUIC packets of unknown versions and connections, 20,000 a second")
            .by("attack stray-packets --at {relay.quic}"),
        Attack::new("fair-node-stray-packets", Node, "quic", "QUIC packets of unknown versions and connections, 20,000 a second")
            .by("attack stray-packets --at {node.quic}"),
        Attack::new("memory-relay-pings", Relay, "tcp", "pings of yamux whose answers nobody reads, 16 connections")
            .grows(48.0)
            .by("attack pings --at {relay.tcp} --connections 16"),
        Attack::new("memory-node-pings", Node, "tcp", "pings of yamux whose answers nobody reads, 16 connections")
            .grows(48.0)
            .by("attack pings --at {node.tcp} --connections 16"),
        Attack::new("memory-circuit-pings", Node, "circuit", "pings of yamux whose answers nobody reads, in 16 circuits")
            .grows(48.0)
            .by("attack pings --at {relay.tcp} --to {node} --connections 16"),
        Attack::new("memory-node-updates", Node, "tcp", "frames of yamux for streams that are not there, 16 connections")
            .grows(48.0)
            .by("attack updates --at {node.tcp} --connections 16"),
        Attack::new("fair-node-silent-ip6", Node, "tcp", "820 silent TCP connections from four /64 of one /48")
            .by("attack silent --at {node6.tcp} --connections 820 {near}"),
        Attack::new("fair-node-half-quic-ip6", Node, "quic", "first packets of QUIC, 300 a second, from four /48")
            .by("attack initial --at {node6.quic} --per-second 300 {far}"),
        Attack::new("fair-node-idle-quic-ip6", Node, "quic", "4,140 idle connections from four /64 of one /48")
            .by("attack idle --at {node6.quic} --connections 4140 {near}"),
        Attack::new("fair-node-half-quic", Node, "quic", "first packets of QUIC, 300 a second")
            .by("attack initial --at {node.quic} --per-second 300"),
        Attack::new("fair-node-silent-circuits", Node, "circuit", "256 silent circuits over three relay connections")
            .by("attack silent-circuits --at {relay.quic} --at {relay.tcp} --at {relay.quic} --to {node} --connections 3 --streams 86"),
        Attack::new("fair-node-introductions", Node, "quic", "64 introductions at once, of 64 ids")
            .by("attack introductions --at {relay.quic} --to {node} --connections 64 --streams 4"),
        Attack::new("fair-relay-silent-one-64", Relay, "tcp", "820 silent TCP connections from one /64")
            .by("attack silent --at {relay6.tcp} --connections 820"),
        Attack::new("fair-relay-silent-one-56", Relay, "tcp", "820 silent TCP connections from four /64 of one /56")
            .by("attack silent --at {relay6.tcp} --connections 820 {nearest}"),
        Attack::new("fair-relay-silent-one-48", Relay, "tcp", "820 silent TCP connections from four /64 of one /48")
            .by("attack silent --at {relay6.tcp} --connections 820 {near}"),
        Attack::new("fair-relay-silent-four-48", Relay, "tcp", "820 silent TCP connections from four /48")
            .by("attack silent --at {relay6.tcp} --connections 820 {far}"),
        Attack::new("fair-relay-half-quic", Relay, "quic", "first packets of QUIC, 300 a second")
            .by("attack initial --at {relay.quic} --per-second 300"),
        Attack::new("fair-relay-half-quic-four-48", Relay, "quic", "first packets of QUIC, 300 a second, from four /48")
            .by("attack initial --at {relay6.quic} --per-second 300 {far}"),
        Attack::new("fair-relay-idle-quic-one-48", Relay, "quic", "4,140 idle connections from four /64 of one /48")
            .by("attack idle --at {relay6.quic} --connections 4140 {near}"),
        Attack::new("scan-introduction", Home, "both", "introductions of a stranger that names inner addresses as its own")
            .by(&format!("attack introductions --at {{relay.quic}} --to {{node}} --connections 2 --streams 2{}", addresses(&INNER[..4], "--names", 1)))
            .by(&format!("attack introductions --at {{relay.tcp}} --to {{node}} --connections 2 --streams 2{}", addresses(&INNER[4..8], "--names", 1)))
            .by(&format!("attack introductions --at {{relay.quic}} --to {{node}} --connections 2 --streams 2{}", addresses(&INNER[8..11], "--names", 1)))
            .by(&format!("attack introductions --at {{relay.quic}} --to {{node}} --connections 2 --streams 2{}", addresses(&INNER[11..], "--names", 1))),
        Attack::new("scan-dcutr", Home, "both", "DCUtR of strangers that offer inner addresses")
            .by(&format!("--relay {{relay.quic}} --abuse handshake --times 4{} dial {{node}}", addresses(&INNER[..4], "--candidate", 1)))
            .by(&format!("--relay {{relay.tcp}} --abuse handshake --times 4{} dial {{node}}", addresses(&INNER[4..8], "--candidate", 1)))
            .by(&format!("--relay {{relay.quic}} --abuse handshake --times 4{} dial {{node}}", addresses(&INNER[8..11], "--candidate", 1)))
            .by(&format!("--relay {{relay.quic}} --abuse handshake --times 4{} dial {{node}}", addresses(&INNER[11..], "--candidate", 1))),
        Attack::new("flood-introduction", Home, "both", "one introduction that names a third party")
            .by(&format!("attack introductions --at {{relay.quic}} --to {{node}} --connections 1 --streams 1{}", addresses(&["/ip4/{victim}"], "--names", 4))),
        Attack::new("flood-introductions", Home, "both", "141 introductions of 141 ids that name a third party")
            .by(&format!("attack introductions --at {{relay.quic}} --to {{node}} --connections 141 --streams 1{}", addresses(&["/ip4/{victim}"], "--names", 4))),
        Attack::new("flood-dcutr", Home, "both", "DCUtR of four ids that offer a third party, again and again")
            .by(&flood_dcutr("quic")).by(&flood_dcutr("tcp")).by(&flood_dcutr("quic")).by(&flood_dcutr("tcp")),
        Attack::new("flood-dcutr-ip6", Home, "both", "DCUtR that offers a third party's IPv6, mapped and NAT64 addresses")
            .by(&format!("--relay {{relay.quic}} --abuse handshake --times 30{} dial {{node}}", addresses(&["/ip6/{victim6}", "/ip6/::ffff:{victim}", "/ip6/64:ff9b::{victim}"], "--candidate", 1))),
        Attack::new("chat-connect-50", Relay, "quic", "CONNECT at full speed, 50 connections")
            .by("attack connect --at {relay.quic} --connections 50 --streams 2"),
        Attack::new("chat-connect-there", Relay, "tcp", "CONNECT to a peer that is there, at full speed, 2 connections")
            .by("attack connect --at {relay.tcp} --to {node} --connections 2 --streams 8"),
        Attack::new("chat-hop", Relay, "quic", "hop requests at full speed, 2 connections")
            .by("attack hop --at {relay.quic} --connections 2 --streams 16"),
        Attack::new("chat-join", Relay, "quic", "join requests with bad tokens at full speed, 2 connections")
            .closed()
            .by("attack join --at {relay.quic} --connections 2 --streams 4"),
        Attack::new("chat-ping", Relay, "tcp", "pings at full speed, 2 connections")
            .by("attack ping --at {relay.tcp} --connections 2 --streams 8"),
        Attack::new("chat-identify", Relay, "quic", "identify at full speed, 2 connections")
            .by("attack identify --at {relay.quic} --connections 2 --streams 8"),
        Attack::new("chat-identify-push", Relay, "quic", "identify pushes at full speed, 2 connections")
            .by("attack identify-push --at {relay.quic} --connections 2 --streams 8"),
        Attack::new("chat-node-identify-push", Node, "tcp", "identify pushes at full speed, 2 connections")
            .by("attack identify-push --at {node.tcp} --connections 2 --streams 8"),
        Attack::new("chat-node-open-close", Node, "tcp", "streams opened and closed at full speed, 2 connections")
            .by("attack open-close --at {node.tcp} --connections 2 --streams 16"),
        Attack { mesh: true, ..Attack::new("chat-directory", Relay, "quic", "records of many ids of one address, in a mesh of two relays; limits.records 500")
            .env("RELAY_NODE_LIMITS_RECORDS", "500")
            .by("attack put --at {relay.quic} --connections 16 --streams 1") },
        Attack { mesh: true, ..Attack::new("chat-directory-puts", Relay, "tcp", "PUTs at full speed of two ids, in a mesh of two relays")
            .by("attack put --at {relay.tcp} --connections 2 --streams 100000") },
        Attack::new("chat-directory-gets", Relay, "quic", "GETs of records that are not there, at full speed, 2 connections")
            .by("attack get --at {relay.quic} --connections 2 --streams 8"),
        Attack::new("chat-directory-gets-there", Relay, "tcp", "GETs of the record of a peer, at full speed, 2 connections")
            .by("attack get --at {relay.tcp} --to {node} --connections 2 --streams 8"),
        Attack { local: true, ..Attack::new("local-host-relay", Relay, "http", "requests to the admin server in the name of a web page, at full speed")
            .by("attack wrong-host --at /ip4/127.0.0.1/tcp/9464 --connections 16") },
        Attack { local: true, ..Attack::new("local-host-node", Node, "http", "requests to the admin server in the name of a web page, at full speed")
            .by("attack wrong-host --at /ip4/127.0.0.1/tcp/9464 --connections 16") },
        Attack { local: true, ..Attack::new("local-http-relay", Relay, "http", "600 half requests to the admin server")
            .by("attack half-http --at /ip4/127.0.0.1/tcp/9464 --connections 600") },
        Attack { local: true, ..Attack::new("local-http-node", Node, "http", "600 half requests to the admin server")
            .by("attack half-http --at /ip4/127.0.0.1/tcp/9464 --connections 600") },
        Attack { local: true, ..Attack::new("local-pipelined-relay", Relay, "http", "requests to the admin server whose answers are not read, 64 connections")
            .grows(48.0)
            .by("attack pipelined --at /ip4/127.0.0.1/tcp/9464 --connections 64") },
        Attack { local: true, ..Attack::new("local-pipelined-node", Node, "http", "requests to the admin server whose answers are not read, 64 connections")
            .grows(48.0)
            .by("attack pipelined --at /ip4/127.0.0.1/tcp/9464 --connections 64") },
        Attack { local: true, ..Attack::new("local-control-node", Node, "unix", "600 half requests to the control socket")
            .by("attack half-control --socket {control} --connections 600") },
        Attack::new("relay-closes", Home, "both", "a configured relay that closes each connection").evil("close-relay"),
        Attack::new("relay-refuses", Home, "both", "a configured relay that refuses reservations").evil("refuse-relay"),
        Attack::new("relay-silent", Home, "both", "a configured relay that says nothing").evil("silent-relay"),
        Attack::new("relay-garbage", Home, "both", "a configured relay whose answers mean nothing").evil("garbage-relay"),
        Attack::new("text-relay", Relay, "both", "control characters wherever text can be put")
            .by("attack text --at {relay.quic} --at {relay.tcp}"),
        Attack::new("text-node", Node, "both", "control characters wherever text can be put, and in circuits")
            .by("attack text --at {node.quic} --at {node.tcp} --at {text.quic} --at {text.tcp}")
            .by("attack text --at {relay.quic} --to {node}").by("attack text --at {relay.tcp} --to {text}"),
        oracle("oracle-tcp", "how long until the next CONNECT, by what is behind the address"),
        Attack { allows: Some("192.168.1.0/24"), ..oracle("oracle-tcp-allowed", "the same at a node whose punch.allow names the network: what is inside is reached") },
    ]);
    for attack in &mut all {
        if let Some(evil) = attack.evil {
            attack.budget.dials = Some(30.0);
            // One that answers has a connection with pings. In its second minute a relay is dialed about five times over each
            // transport, with up to 14 packets each.
            attack.budget.packets = ["silent-relay", "garbage-relay"].contains(&evil).then_some(150.0);
        }
        if attack.local {
            // The places of the server, one that is accepted to be judged, and what the honest dials open.
            let places = if attack.transport == "unix" { 32.0 } else { 64.0 };
            attack.budget.descriptors = Some(places + 1.0 + 16.0);
        }
    }
    all
}

fn flood_dcutr(transport: &str) -> String {
    let candidates = addresses(&["/ip4/{victim}"], "--candidate", 4);
    format!("--relay {{relay.{transport}}} --abuse handshake --times 30{candidates} dial {{node}}")
}

fn oracle(name: &'static str, about: &'static str) -> Attack {
    let by = |attack: Attack, host: &str, port: u16| {
        attack.by(&format!("--relay {{relay.quic}} --abuse handshake --times 0 --candidate /ip4/192.168.1.{host}/tcp/{port} dial {{node}}"))
    };
    let attack = by(
        Attack::new(name, Target::Home, "tcp", about),
        "{inside}",
        6443,
    );
    by(by(attack, "{inside}", 6444), "77", 6443)
}
