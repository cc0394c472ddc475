//! The main job in the lab: two peers, one NAT each, one public relay.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use p2pnode_tests::{nat::NatKind, pair::{Pair, Transport}};
//!
//! let mut peers = Pair::new("example", NatKind::EimApdf, NatKind::FullCone)
//!     .transport(Transport::Quic)
//!     .start()
//!     .await?;
//! let dial = peers.dial().await?;
//! peers.verify_direct(&dial).await?;
//! peers.lab.succeeded();
//! # Ok(()) }
//! ```

use std::{fmt, net::SocketAddr, ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    bins::{Bins, bins},
    capture::{Capture, Side},
    lab::{Host, Lab, Site},
    nat::{NatKind, RANGE},
    node::{Event, Launch, Process},
    relay::Relay,
};

/// What a dial may take before it gives up, on its own command line.
pub const DIAL_TIMEOUT: &str = "20s";
/// Pings on the final path.
pub const PINGS: usize = 3;
/// For what a healthy process does in a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The transport that relay and peers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TCP.
    Tcp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    /// As in JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }

    /// The protocol that its packets are seen as.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Quic => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A range of ports as an argument.
#[must_use]
pub fn range(ports: &RangeInclusive<u16>) -> String {
    format!("{}-{}", ports.start(), ports.end())
}

/// Builds a lab with two peers and starts everything but the dial.
#[derive(Clone, Debug)]
pub struct Pair {
    name: String,
    nat_a: NatKind,
    nat_b: NatKind,
    transports: Vec<Transport>,
    watched: bool,
}

impl Pair {
    /// `name` names the artifacts; A dials B.
    #[must_use]
    pub fn new(name: impl Into<String>, nat_a: NatKind, nat_b: NatKind) -> Self {
        Self {
            name: name.into(),
            nat_a,
            nat_b,
            transports: Transport::ALL.to_vec(),
            watched: false,
        }
    }

    /// Only this transport, for the relay and between the peers. Without it: both.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transports = vec![transport];
        self
    }

    /// The dial writes to the terminal of this process, for a person to watch, instead of JSON for a test.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    /// Builds the networks, starts captures, relay and B, and returns when B holds its reservation.
    ///
    /// # Errors
    ///
    /// When the lab cannot be built, or a process does not do its part.
    pub async fn start(self) -> Result<Peers> {
        let bins = bins()?;
        let lab = Lab::new(&self.name).await?;
        let relay = Relay::start(&lab, &bins, "relay").await?;
        let a = Peer::new(&lab, "a", self.nat_a).await?;
        let b = Peer::new(&lab, "b", self.nat_b).await?;
        let mut peers = Peers {
            b_process: NodeArgs::new(&relay, &b.host, &self.transports)
                .run(&lab, &bins, "b")
                .start(&b.host.device, lab.artifacts())?,
            b_id: String::new(),
            transports: self.transports,
            watched: self.watched,
            bins,
            relay,
            a,
            b,
            lab,
        };
        peers.b_id = reserved(&peers.b_process).await?;
        Ok(peers)
    }
}

/// What every node of a lab is started with.
#[derive(Clone, Debug)]
pub struct NodeArgs {
    /// Its relays, with their peer ids.
    pub relays: Vec<String>,
    /// What it may use.
    pub transports: Vec<Transport>,
    /// Its ports.
    pub range: RangeInclusive<u16>,
}

impl NodeArgs {
    /// For a node in `host`: the relay's addresses of its families, and [`RANGE`].
    #[must_use]
    pub fn new(relay: &Relay, host: &Host, transports: &[Transport]) -> Self {
        Self {
            relays: relay.addresses(host, transports),
            transports: transports.to_vec(),
            range: RANGE,
        }
    }

    /// With other ports.
    #[must_use]
    pub fn range(mut self, range: RangeInclusive<u16>) -> Self {
        self.range = range;
        self
    }

    /// `p2pnode run --json` with a key named like its logs.
    #[must_use]
    pub fn run(&self, lab: &Lab, bins: &Bins, name: &str) -> Launch {
        Launch::new(name, &bins.p2pnode)
            .args(["run", "--json", "--key"])
            .arg(lab.artifacts().file(&format!("{name}.key")))
            .args(self.list())
    }

    /// `p2pnode dial PEER --json` with a throwaway identity.
    #[must_use]
    pub fn dial(&self, bins: &Bins, name: &str, peer: &str) -> Launch {
        self.plain_dial(bins, name, peer).arg("--json")
    }

    /// The same as a person would do it, on the terminal of this process.
    #[must_use]
    pub fn watched_dial(&self, bins: &Bins, name: &str, peer: &str) -> Launch {
        self.plain_dial(bins, name, peer).inherit_stdio()
    }

    fn plain_dial(&self, bins: &Bins, name: &str, peer: &str) -> Launch {
        Launch::new(name, &bins.p2pnode)
            .args(["dial", peer, "--timeout", DIAL_TIMEOUT])
            .args(self.list())
    }

    fn list(&self) -> Vec<String> {
        let transports: Vec<_> = self
            .transports
            .iter()
            .map(|transport| transport.name())
            .collect();
        let mut args = vec![
            "--port-range".to_owned(),
            range(&self.range),
            "--transports".to_owned(),
            transports.join(","),
        ];
        for relay in &self.relays {
            args.extend(["--relay".to_owned(), relay.clone()]);
        }
        args
    }
}

/// Waits until a running node holds a reservation, and returns its peer id.
///
/// # Errors
///
/// When it does not get one.
pub async fn reserved(node: &Process) -> Result<String> {
    let started = node.event("started", PATIENCE).await?;
    node.event("reserved", PATIENCE).await?;
    Ok(started.text("/peer_id").to_owned())
}

/// One of the two.
#[derive(Debug)]
pub struct Peer {
    /// Its NAT.
    pub site: Site,
    /// Its machine.
    pub host: Host,
    home: Capture,
    carrier: Option<Capture>,
}

impl Peer {
    async fn new(lab: &Lab, name: &str, kind: NatKind) -> Result<Self> {
        let site = lab.site(name, kind).await?;
        Ok(Self {
            host: lab.host(&format!("host-{name}"), &site).await?,
            home: lab.capture(&site).await?,
            carrier: lab.capture_carrier(&site).await?,
            site,
        })
    }

    /// The capture whose inside is the LAN.
    #[must_use]
    pub fn home(&self) -> &Capture {
        &self.home
    }

    /// The capture whose outside is the internet.
    #[must_use]
    pub fn edge(&self) -> &Capture {
        self.carrier.as_ref().unwrap_or(&self.home)
    }

    async fn settle(&self) -> Result<()> {
        self.home.settle().await?;
        self.edge().settle().await
    }

    /// The packets it sent from a port outside its range, as text. Empty is the promise.
    #[must_use]
    pub fn strays(&self) -> Vec<String> {
        strays(&self.home, &self.host, &RANGE)
    }
}

/// The packets that a host sent from a port outside `range`, as text.
#[must_use]
pub fn strays(capture: &Capture, host: &Host, range: &RangeInclusive<u16>) -> Vec<String> {
    let mut strays: Vec<_> = capture
        .sent_by(&host.addresses)
        .into_iter()
        .filter(|packet| !range.contains(&packet.source.port()))
        .map(|packet| {
            format!(
                "{} {} > {}",
                packet.protocol.name(),
                packet.source,
                packet.destination
            )
        })
        .collect();
    strays.dedup();
    strays
}

/// A lab with a relay, a peer that holds a reservation, and another one that will dial it.
#[derive(Debug)]
pub struct Peers {
    /// The peer that dials.
    pub a: Peer,
    /// The peer that is dialed.
    pub b: Peer,
    /// B's process.
    pub b_process: Process,
    /// B's peer id.
    pub b_id: String,
    /// The relay.
    pub relay: Relay,
    /// The binaries.
    pub bins: Bins,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
    transports: Vec<Transport>,
    watched: bool,
}

/// A dial that has ended.
#[derive(Debug)]
pub struct Dial {
    /// Its exit code.
    pub code: i32,
    /// What it printed. Nothing for a watched one.
    pub events: Vec<Event>,
}

impl Dial {
    /// The `result` line.
    ///
    /// # Errors
    ///
    /// When it printed none.
    pub fn result(&self) -> Result<&Event> {
        let result = self.events.iter().find(|event| event.name() == "result");
        result.with_context(|| {
            format!(
                "the dial ended with code {} and without a result",
                self.code
            )
        })
    }
}

impl Peers {
    /// `p2pnode dial` from A to B, to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not end.
    pub async fn dial(&mut self) -> Result<Dial> {
        let mut process = self.start_dial("a", PINGS)?;
        let status = process.exit(PATIENCE * 2).await?;
        Ok(Dial {
            code: status
                .code()
                .with_context(|| format!("the dial was ended: {status}"))?,
            events: process.events(),
        })
    }

    /// Starts `p2pnode dial` from A to B with that many pings on the final path.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_dial(&self, name: &str, pings: usize) -> Result<Process> {
        let args = NodeArgs::new(&self.relay, &self.a.host, &self.transports);
        let dial = if self.watched {
            args.watched_dial(&self.bins, name, &self.b_id)
        } else {
            args.dial(&self.bins, name, &self.b_id)
        };
        dial.args(["--count", &pings.to_string()])
            .start(&self.a.host.device, self.lab.artifacts())
    }

    /// Asserts what a direct path is: relayed first, then direct, pings on it, and the same on the wire as in the JSON.
    ///
    /// # Errors
    ///
    /// Names what is not so.
    pub async fn verify_direct(&self, dial: &Dial) -> Result<()> {
        let result = dial.result()?;
        ensure!(
            result.text("/outcome") == "direct" && dial.code == 0,
            "outcome {:?}, exit code {}, reason {}",
            result.text("/outcome"),
            dial.code,
            result.json["reason"],
        );
        let kinds: Vec<_> = dial
            .events
            .iter()
            .filter(|event| event.name() == "connected")
            .map(Event::path_kind)
            .collect();
        ensure!(
            kinds.first() == Some(&"relayed"),
            "the first connection is not relayed: {kinds:?}"
        );
        ensure!(
            kinds.contains(&"direct"),
            "no direct connection was announced: {kinds:?}"
        );
        ensure!(
            result.path_kind() == "direct",
            "the result's path is {}",
            result.json["path"]
        );
        let transport = result.text("/path/hops/0/transport");
        ensure!(
            self.transports
                .iter()
                .any(|allowed| allowed.name() == transport),
            "the direct path uses {transport:?}"
        );
        let pings: Vec<_> = dial
            .events
            .iter()
            .filter(|event| event.name() == "ping")
            .map(|event| event.text("/kind"))
            .collect();
        ensure!(
            pings.len() == PINGS && pings.iter().all(|kind| *kind == "direct"),
            "pings went over {pings:?}"
        );
        self.verify_range().await?;
        self.verify_wire(result).await
    }

    /// Asserts that the peers ended on the relay, and said why.
    ///
    /// # Errors
    ///
    /// Names what is not so.
    pub async fn verify_relayed(&self, dial: &Dial) -> Result<()> {
        let result = dial.result()?;
        ensure!(
            result.text("/outcome") == "relayed" && dial.code == 3,
            "outcome {:?}, exit code {}, path {}",
            result.text("/outcome"),
            dial.code,
            result.json["path"],
        );
        ensure!(!result.text("/reason").is_empty(), "no reason is given");
        ensure!(
            result.path_kind() == "relayed",
            "the result's path is {}",
            result.json["path"]
        );
        self.verify_range().await
    }

    /// Asserts that neither peer sent a packet from outside its range.
    ///
    /// # Errors
    ///
    /// Lists the packets.
    pub async fn verify_range(&self) -> Result<()> {
        for (name, peer) in [("a", &self.a), ("b", &self.b)] {
            peer.settle().await?;
            let strays = peer.strays();
            ensure!(
                strays.is_empty(),
                "{name} sent from outside {}: {}",
                range(&RANGE),
                strays.join(", ")
            );
            ensure!(
                !peer.home.sent_by(&peer.host.addresses).is_empty(),
                "the capture of {name} holds no packet"
            );
        }
        Ok(())
    }

    /// Asserts that the sockets of the reported path are those on the wire, on both sides, after translation too.
    async fn verify_wire(&self, result: &Event) -> Result<()> {
        let hop = |field: &str| -> Result<SocketAddr> {
            let text = result.text(&format!("/path/hops/0/{field}"));
            text.parse()
                .with_context(|| format!("{field} socket of the direct path: {text:?}"))
        };
        let (local, remote) = (hop("local")?, hop("remote")?);
        let protocol = if result.text("/path/hops/0/transport") == "tcp" {
            "tcp"
        } else {
            "udp"
        };
        let sent = self.a.home.sent_by(&self.a.host.addresses);
        ensure!(
            sent.iter().any(|packet| packet.protocol.name() == protocol
                && packet.source == local
                && packet.destination == remote),
            "no {protocol} packet went from {local} to {remote}, as the result says"
        );
        let a_outside = self.a.edge().left_as(protocol, remote);
        let b_outside: Vec<_> = a_outside
            .iter()
            .flat_map(|a| self.b.edge().left_as(protocol, *a))
            .collect();
        ensure!(
            b_outside.contains(&remote),
            "B's packets to A ({a_outside:?} outside) left as {b_outside:?}, but A says it talks to {remote}"
        );
        let b_sockets: Vec<_> = self
            .b_process
            .events()
            .iter()
            .filter(|event| event.name() == "connected" && event.path_kind() == "direct")
            .map(|event| {
                (
                    event.text("/path/hops/0/local").to_owned(),
                    event.text("/path/hops/0/remote").to_owned(),
                )
            })
            .collect();
        let sent = self.b.home.sent_by(&self.b.host.addresses);
        let seen = |(local, remote): &(String, String)| {
            a_outside.iter().any(|a| a.to_string() == *remote)
                && sent.iter().any(|packet| {
                    packet.source.to_string() == *local && packet.destination.to_string() == *remote
                })
        };
        ensure!(
            b_sockets.iter().any(seen),
            "B reports the direct connections {b_sockets:?}; on the wire A is {a_outside:?}"
        );
        Ok(())
    }

    /// What the captures saw of the path between the peers, one line per flow, for a person.
    ///
    /// # Errors
    ///
    /// When a capture has ended.
    pub async fn flows(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for (name, peer) in [("a", &self.a), ("b", &self.b)] {
            peer.settle().await?;
            let mut flows: Vec<_> = peer
                .edge()
                .packets(Side::Outside)
                .into_iter()
                .filter(|packet| packet.outgoing)
                .map(|packet| {
                    format!(
                        "{name} ({}): {} {} > {}",
                        peer.site.kind,
                        packet.protocol.name(),
                        packet.source,
                        packet.destination
                    )
                })
                .collect();
            flows.sort();
            flows.dedup();
            lines.append(&mut flows);
        }
        Ok(lines)
    }
}
