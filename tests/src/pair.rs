//! The main job in the lab: two peers, one NAT each, one public relay.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use p2pnode_tests::{args::Transport, nat::NatKind, pair::Pair};
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

use anyhow::{Context as _, Result};

use crate::{
    args::{NodeArgs, PATIENCE, Transport, reserved, strays},
    bins::{Bins, bins},
    capture::{Capture, Side},
    control::Control,
    events::Event,
    lab::{Host, Lab, Site},
    nat::{NatKind, RANGE},
    node::{Process, control_socket},
    relay::Relay,
};

/// Pings on the final path.
pub const PINGS: usize = 3;

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
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transports = vec![transport];
        self
    }

    /// The dial writes to the terminal of this process, for a person to watch, instead of JSON for a test.
    pub fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    /// Builds the networks, starts captures, relay and B, and returns when B holds its reservation.
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
            b_control: Control::new(&bins.p2pnode, &control_socket(lab.artifacts(), "b")),
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
    /// A host behind such a NAT, with captures.
    pub async fn new(lab: &Lab, name: &str, kind: NatKind) -> Result<Self> {
        let site = lab.site(name, kind).await?;
        Ok(Self {
            host: lab.host(&format!("host-{name}"), &site).await?,
            home: lab.capture(&site).await?,
            carrier: lab.capture_carrier(&site).await?,
            site,
        })
    }

    /// The capture whose inside is the LAN.
    pub fn home(&self) -> &Capture {
        &self.home
    }

    /// The capture whose outside is the internet.
    pub fn edge(&self) -> &Capture {
        self.carrier.as_ref().unwrap_or(&self.home)
    }

    /// Returns when all that has passed its routers is captured.
    pub async fn settle(&self) -> Result<()> {
        self.home.settle().await?;
        self.edge().settle().await
    }

    /// The packets it sent from a port outside its range, as text. Empty is the promise.
    pub fn strays(&self) -> Vec<String> {
        strays(&self.home, &self.host, &RANGE)
    }
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
    /// B's control socket.
    pub b_control: Control,
    /// The relay.
    pub relay: Relay,
    /// The binaries.
    pub bins: Bins,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
    pub(crate) transports: Vec<Transport>,
    watched: bool,
}

/// A dial that has ended.
#[derive(Debug)]
pub struct Dial {
    /// How many pings it was to send on the final path.
    pub pings: usize,
    /// Its exit code.
    pub code: i32,
    /// What it printed. Nothing for a watched one.
    pub events: Vec<Event>,
}

impl Dial {
    /// The `result` line.
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
    pub async fn dial(&mut self) -> Result<Dial> {
        let mut process = self.start_dial("a", PINGS)?;
        self.ended(&mut process, PINGS).await
    }

    /// Waits for the end of a dial that was started with that many pings.
    pub async fn ended(&self, process: &mut Process, pings: usize) -> Result<Dial> {
        let status = process.exit(PATIENCE * 2).await?;
        Ok(Dial {
            pings,
            code: status
                .code()
                .with_context(|| format!("the dial was ended: {status}"))?,
            events: process.events(),
        })
    }

    /// Starts `p2pnode dial` from A to B with that many pings on the final path.
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

    /// What the captures saw of the path between the peers, one line per flow, for a person.
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
