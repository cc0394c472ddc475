//! Two nodes that run, each behind a NAT, with a relay on the internet: the lab of everything that happens after a dial.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    args::{PATIENCE, Transport, reserved},
    bins::bins,
    control::{self, Control},
    events::Event,
    host::Host,
    lab::Lab,
    nat::NatKind,
    node::{Dial, Launch, Process, control_socket},
    peer::{Peer, same_connection},
    relay::Relay,
};

pub struct Node {
    pub process: Process,
    pub id: String,
    pub control: Control,
    pub host: Host,
}

impl Launch {
    pub async fn runs(self, host: &Host) -> Result<Node> {
        let process = self.on(host)?;
        let started = process.event("started", PATIENCE).await?;
        let socket = control_socket(&host.artifacts, process.name());
        Ok(Node {
            id: started.text("/peer_id").to_owned(),
            control: Control::new(&bins()?.p2pnode, &socket),
            host: host.clone(),
            process,
        })
    }

    pub async fn reserves(self, host: &Host) -> Result<Node> {
        let node = self.runs(host).await?;
        reserved(&node.process).await?;
        Ok(node)
    }
}

impl Relay {
    pub async fn node(&self, name: &str, host: &Host, over: &[Transport]) -> Result<Node> {
        self.run(name, host, over)?.reserves(host).await
    }
}

impl Node {
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.host.artifacts, self.process.name())
    }

    pub fn start_dial(&self, name: &str, peer: &str) -> Result<Process> {
        self.control.dial(name, peer).on(&self.host)
    }

    pub async fn dial(&self, name: &str, peer: &str) -> Result<Dial> {
        self.dial_with(name, peer, &[]).await
    }

    pub async fn dial_with(&self, name: &str, peer: &str, args: &[&str]) -> Result<Dial> {
        let dial = self.control.dial(name, peer).args(args.iter().copied());
        dial.on(&self.host)?.ended().await
    }

    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let name = format!("{}-watch", self.process.name());
        let watch = self.control.watch(&name).on(&self.host)?;
        let last = |events: &[Event]| look(&events.last()?.json);
        let found = watch.until(what, within, last).await;
        found.with_context(|| {
            let events = watch.events();
            let status = events.last().map_or("none", |event| &event.line);
            format!("{}: {what}; its status: {status}", self.process.name())
        })
    }

    /// Waits until its best path to `peer` is direct, and returns that path.
    pub async fn direct(&self, peer: &str, within: Duration) -> Result<Value> {
        let look = |status: &Value| {
            let path = &control::peer(status, peer)["path"];
            (path["kind"] == "direct").then(|| path.clone())
        };
        self.until("a direct path", within, look).await
    }

    pub async fn last_punch(&self, peer: &str) -> Result<Value> {
        let status = self.control.status().await?;
        Ok(control::peer(&status, peer)["last_punch"].clone())
    }

    pub fn punches(&self, peer: &str) -> Vec<Event> {
        let mut events = self.process.events();
        events.retain(|event| event.name() == "punch" && event.text("/peer") == peer);
        events
    }

    pub fn seen(&self) -> usize {
        self.process.events().len()
    }
}

#[derive(Clone, Debug)]
pub struct Running {
    nats: [NatKind; 2],
    transports: Vec<Transport>,
}

impl Running {
    pub fn new(a: NatKind, b: NatKind) -> Self {
        Self {
            nats: [a, b],
            transports: Transport::ALL.to_vec(),
        }
    }

    /// The usual pair: a NAT that keeps ports, and one that does not.
    pub fn homes() -> Self {
        Self::new(NatKind::EimApdf, NatKind::EimApdfRewrite)
    }

    pub fn over(mut self, transports: &[Transport]) -> Self {
        self.transports = transports.to_vec();
        self
    }

    pub async fn prepare(self) -> Result<Prepared> {
        self.prepare_in(Lab::of_test().await?).await
    }

    pub async fn prepare_in(self, lab: Lab) -> Result<Prepared> {
        Ok(Prepared {
            relay: Relay::start(&lab, "relay").await?,
            a: Peer::new(&lab, "a", self.nats[0]).await?,
            b: Peer::new(&lab, "b", self.nats[1]).await?,
            transports: self.transports,
            env: [Vec::new(), Vec::new()],
            lab,
        })
    }

    pub async fn start(self) -> Result<Both> {
        self.prepare().await?.start().await
    }

    /// Returns when one direct connection between them is all there is.
    pub async fn direct(self) -> Result<Both> {
        let both = self.start().await?;
        both.dial().await?;
        both.settled(PATIENCE).await?;
        Ok(both)
    }
}

pub struct Prepared {
    pub a: Peer,
    pub b: Peer,
    pub relay: Relay,
    pub lab: Lab,
    transports: Vec<Transport>,
    env: [Vec<(String, String)>; 2],
}

impl Prepared {
    pub fn a_env(mut self, name: &str, value: &str) -> Self {
        self.env[0].push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn b_env(mut self, name: &str, value: &str) -> Self {
        self.env[1].push((name.to_owned(), value.to_owned()));
        self
    }

    /// A node of this lab over its transports.
    pub fn run(&self, name: &str, host: &Host) -> Result<Launch> {
        self.relay.run(name, host, &self.transports)
    }

    pub async fn start(self) -> Result<Both> {
        let mut nodes = Vec::new();
        for ((name, peer), env) in [("a", &self.a), ("b", &self.b)].into_iter().zip(&self.env) {
            let launch = self.run(name, &peer.host)?;
            let set = |launch: Launch, (name, value): &(String, String)| launch.env(name, value);
            nodes.push(env.iter().fold(launch, set).runs(&peer.host).await?);
        }
        for node in &nodes {
            reserved(&node.process).await?;
        }
        let [a, b] = nodes.try_into().map_err(|_| anyhow::anyhow!("two nodes"))?;
        Ok(Both {
            a,
            b,
            a_side: self.a,
            b_side: self.b,
            relay: self.relay,
            lab: self.lab,
        })
    }
}

pub struct Both {
    pub a: Node,
    pub b: Node,
    pub a_side: Peer,
    pub b_side: Peer,
    pub relay: Relay,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
}

impl Both {
    pub fn ways(&self) -> [(&Node, &Node); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }

    pub fn sides(&self) -> [&Peer; 2] {
        [&self.a_side, &self.b_side]
    }

    pub fn start_dial(&self) -> Result<Process> {
        self.a.start_dial("a-dial", &self.b.id)
    }

    pub async fn dial(&self) -> Result<Dial> {
        let dial = self.start_dial()?.ended().await?;
        dial.is("direct")?;
        Ok(dial)
    }

    pub async fn dial_relayed(&self) -> Result<Event> {
        let dial = self.start_dial()?.ended().await?;
        Ok(dial.is("relayed")?.clone())
    }

    /// Both have exactly one direct path to each other, and none over a relay; returns A's.
    pub async fn settled(&self, within: Duration) -> Result<Value> {
        let one_direct = |status: &Value, peer: &str| {
            let relayed = control::paths(status, peer, "relayed");
            let direct = only_direct(status, peer).ok();
            direct.filter(|_| relayed.is_empty())
        };
        let (what, until) = ("one direct path and no other", Instant::now() + within);
        let [(a, b), _] = self.ways();
        let path = a.until(what, within, |status| one_direct(status, &b.id));
        let path = path.await?;
        let left = until.saturating_duration_since(Instant::now());
        b.until(what, left, |status| one_direct(status, &a.id))
            .await?;
        Ok(path)
    }

    /// Both are direct and nothing else, each after a punch, over sockets that are on the wire.
    pub async fn punched(&self) -> Result<()> {
        self.settled(PATIENCE).await?;
        self.verify_sockets().await?;
        for (node, peer) in self.ways() {
            let punch = node.last_punch(&peer.id).await?;
            let name = node.process.name();
            ensure!(
                punch["outcome"] == "direct",
                "{name}: the last punch is {punch}"
            );
        }
        Ok(())
    }

    /// The direct paths in both statuses are one connection, between sockets that are on the wire, and both kept to their ranges.
    pub async fn verify_sockets(&self) -> Result<()> {
        let mut paths = Vec::new();
        for (node, peer) in self.ways() {
            // Of two connections that a punch has made one is closed first.
            let one_direct = |status: &Value| only_direct(status, &peer.id).ok();
            paths.push(node.until("one direct path", PATIENCE, one_direct).await?);
        }
        same_connection((&self.a_side, &paths[0]), (&self.b_side, &paths[1])).await?;
        for side in self.sides() {
            side.keeps_range().await?;
        }
        Ok(())
    }
}

pub fn only_direct(status: &Value, peer: &str) -> Result<Value> {
    let direct = control::paths(status, peer, "direct");
    ensure!(direct.len() == 1, "{} direct paths: {status}", direct.len());
    Ok(direct[0].clone())
}
