//! The main job in the lab: two peers, one NAT each, one public relay; B runs, and A is a dial.

use anyhow::Result;

use crate::{
    args::{DIAL_TIMEOUT, NodeArgs, Transport},
    capture::Side,
    lab::Lab,
    nat::NatKind,
    node::{Dial, Process},
    peer::Peer,
    relay::Relay,
    running::Node,
};

pub const PINGS: usize = 3;

#[derive(Clone, Debug)]
pub struct Pair {
    name: Option<String>,
    nats: [NatKind; 2],
    transports: Vec<Transport>,
    watched: bool,
}

impl Pair {
    pub fn new(name: impl Into<String>, nat_a: NatKind, nat_b: NatKind) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::of_test(nat_a, nat_b)
        }
    }

    pub fn of_test(nat_a: NatKind, nat_b: NatKind) -> Self {
        Self {
            name: None,
            nats: [nat_a, nat_b],
            transports: Transport::ALL.to_vec(),
            watched: false,
        }
    }

    /// Only these transports, for the relay and between the peers. Without it: both.
    pub fn over(mut self, transports: &[Transport]) -> Self {
        self.transports = transports.to_vec();
        self
    }

    /// The dial writes to the terminal of this process, for a person to watch, instead of JSON for a test.
    pub fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    /// Builds the networks, starts captures, relay and B, and returns when B holds its reservation.
    pub async fn start(self) -> Result<Peers> {
        let lab = match &self.name {
            Some(name) => Lab::new(name).await?,
            None => Lab::of_test().await?,
        };
        let relay = Relay::start(&lab, "relay").await?;
        let a = Peer::new(&lab, "a", self.nats[0]).await?;
        let b = Peer::new(&lab, "b", self.nats[1]).await?;
        let b_node = relay.node("b", &b.host, &self.transports).await?;
        Ok(Peers {
            b_id: b_node.id.clone(),
            b_node,
            transports: self.transports,
            watched: self.watched,
            relay,
            a,
            b,
            lab,
        })
    }
}

/// A lab with a relay, a peer that holds a reservation, and another one that will dial it.
pub struct Peers {
    pub a: Peer,
    pub b: Peer,
    pub b_node: Node,
    pub b_id: String,
    pub relay: Relay,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
    pub(crate) transports: Vec<Transport>,
    watched: bool,
}

impl Peers {
    pub async fn dial(&mut self) -> Result<Dial> {
        self.start_dial("a", PINGS)?.ended().await
    }

    pub fn start_dial(&self, name: &str, pings: usize) -> Result<Process> {
        let args = NodeArgs::new(&self.relay, &self.a.host, &self.transports);
        let dial = if self.watched {
            args.watched_dial(name, &self.b_id, DIAL_TIMEOUT)?
                .inherit_stdio()
        } else {
            args.dial(name, &self.b_id)?
        };
        dial.args(["--count", &pings.to_string()]).on(&self.a.host)
    }

    /// What the captures saw of the path between the peers, one line per flow, for a person.
    pub async fn flows(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for (name, peer) in [("a", &self.a), ("b", &self.b)] {
            peer.settle().await?;
            let kind = peer.site.kind;
            let mut sent = peer.edge().packets(Side::Outside);
            sent.retain(|packet| packet.outgoing);
            let flow = |packet| format!("{name} ({kind}): {packet}");
            let mut flows: Vec<_> = sent.iter().map(flow).collect();
            flows.sort();
            flows.dedup();
            lines.append(&mut flows);
        }
        Ok(lines)
    }
}
