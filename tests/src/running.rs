//! Two nodes that run, each behind a NAT, with a relay on the internet: the lab of everything that happens after a dial.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    control::{self, Control},
    events::Event,
    lab::{Host, Lab},
    nat::NatKind,
    node::{Launch, Process, control_socket},
    pair::Peer,
    relay::Relay,
};

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its process, `p2pnode run --json`.
    pub process: Process,
    /// Its peer id.
    pub id: String,
    /// Its control socket.
    pub control: Control,
    /// Its machine.
    pub host: Host,
}

impl Node {
    /// Starts a node of `p2pnode run --json` and waits until it is up.
    pub async fn start(lab: &Lab, bins: &Bins, host: &Host, launch: Launch) -> Result<Self> {
        let process = launch.start(&host.device, lab.artifacts())?;
        let started = process.event("started", PATIENCE).await?;
        let socket = control_socket(lab.artifacts(), process.name());
        Ok(Self {
            id: started.text("/peer_id").to_owned(),
            control: Control::new(&bins.p2pnode, &socket),
            host: host.clone(),
            process,
        })
    }

    /// Waits until a status of it is as `look` wants it.
    pub async fn until<T>(
        &self,
        lab: &Lab,
        what: &str,
        within: Duration,
        look: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let name = format!("{}-watch", self.process.name());
        let watch = self
            .control
            .watch(&name)
            .start(&self.host.device, lab.artifacts())?;
        let last = |events: &[Event]| look(&events.last()?.json);
        let found = watch.until(what, within, last).await;
        found.with_context(|| {
            let events = watch.events();
            let status = events.last().map_or("none", |event| &event.line);
            format!("{}: {what}; its status: {status}", self.process.name())
        })
    }

    /// Waits until its best path to `peer` is direct, and returns that path.
    pub async fn direct(&self, lab: &Lab, peer: &str, within: Duration) -> Result<Value> {
        let look = |status: &Value| {
            let path = &control::peer(status, peer)["path"];
            (path["kind"] == "direct").then(|| path.clone())
        };
        self.until(lab, "a direct path", within, look).await
    }

    /// The last punch with `peer`, as its status tells it; null if there was none.
    pub async fn last_punch(&self, peer: &str) -> Result<Value> {
        let status = self.control.status().await?;
        Ok(control::peer(&status, peer)["last_punch"].clone())
    }

    /// The punches with `peer` that it has told of, oldest first.
    pub fn punches(&self, peer: &str) -> Vec<Event> {
        let mut events = self.process.events();
        events.retain(|event| event.name() == "punch" && event.text("/peer") == peer);
        events
    }
}

/// Builds a lab with two running nodes.
#[derive(Clone, Debug)]
pub struct Running {
    name: String,
    nats: [NatKind; 2],
    transports: Vec<Transport>,
}

impl Running {
    /// `name` names the artifacts.
    pub fn new(name: impl Into<String>, a: NatKind, b: NatKind) -> Self {
        Self {
            name: name.into(),
            nats: [a, b],
            transports: Transport::ALL.to_vec(),
        }
    }

    /// Only these transports, to the relay and between the nodes. Without it: both.
    pub fn transports(mut self, transports: &[Transport]) -> Self {
        self.transports = transports.to_vec();
        self
    }

    /// Builds the networks, starts captures and the relay.
    pub async fn prepare(self) -> Result<Prepared> {
        let bins = bins()?;
        let lab = Lab::new(&self.name).await?;
        Ok(Prepared {
            relay: Relay::start(&lab, &bins, "relay").await?,
            a: Peer::new(&lab, "a", self.nats[0]).await?,
            b: Peer::new(&lab, "b", self.nats[1]).await?,
            transports: self.transports,
            env: [Vec::new(), Vec::new()],
            bins,
            lab,
        })
    }

    /// The same, and starts both nodes; returns when each holds its reservation.
    pub async fn start(self) -> Result<Both> {
        self.prepare().await?.start().await
    }
}

/// A lab in which the nodes are still to be started.
#[derive(Debug)]
pub struct Prepared {
    /// A's network.
    pub a: Peer,
    /// B's network.
    pub b: Peer,
    /// The relay.
    pub relay: Relay,
    /// The binaries.
    pub bins: Bins,
    /// The lab.
    pub lab: Lab,
    transports: Vec<Transport>,
    env: [Vec<(String, String)>; 2],
}

impl Prepared {
    /// A variable of A's environment.
    pub fn a_env(mut self, name: &str, value: &str) -> Self {
        self.env[0].push((name.to_owned(), value.to_owned()));
        self
    }

    /// A variable of B's environment.
    pub fn b_env(mut self, name: &str, value: &str) -> Self {
        self.env[1].push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts both nodes; returns when each holds its reservation.
    pub async fn start(self) -> Result<Both> {
        let mut nodes = Vec::new();
        for ((name, peer), env) in [("a", &self.a), ("b", &self.b)].into_iter().zip(&self.env) {
            let args = NodeArgs::new(&self.relay, &peer.host, &self.transports);
            let mut launch = args.run(&self.lab, &self.bins, name);
            for (name, value) in env {
                launch = launch.env(name, value);
            }
            nodes.push(Node::start(&self.lab, &self.bins, &peer.host, launch).await?);
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
            bins: self.bins,
            lab: self.lab,
        })
    }
}

/// Two running nodes.
#[derive(Debug)]
pub struct Both {
    /// The one that dials.
    pub a: Node,
    /// The one that is dialed.
    pub b: Node,
    /// A's network.
    pub a_side: Peer,
    /// B's network.
    pub b_side: Peer,
    /// The relay.
    pub relay: Relay,
    /// The binaries.
    pub bins: Bins,
    /// The lab; last, so that it outlives what runs in it.
    pub lab: Lab,
}

impl Both {
    /// A's running node dials B, to the end, and it must end direct.
    pub async fn dial(&self) -> Result<Vec<Event>> {
        let dial = self.a.control.dial("a-dial", &self.b.id);
        let mut dial = dial.start(&self.a.host.device, self.lab.artifacts())?;
        self.ends_direct(&mut dial).await
    }

    /// A's running node dials B, to the end, and it must end relayed; what the result is.
    pub async fn dial_relayed(&self) -> Result<Event> {
        let dial = self.a.control.dial("a-dial", &self.b.id);
        let mut dial = dial.start(&self.a.host.device, self.lab.artifacts())?;
        let status = dial.exit(PATIENCE * 2).await?;
        let result = dial.event("result", PATIENCE).await?;
        ensure!(
            status.code() == Some(3) && result.text("/outcome") == "relayed",
            "{status}: {}",
            result.line
        );
        Ok(result)
    }

    /// A dial must end direct, with exit code 0; what it printed.
    pub async fn ends_direct(&self, dial: &mut Process) -> Result<Vec<Event>> {
        let status = dial.exit(PATIENCE * 2).await?;
        let events = dial.events();
        let result = events.iter().find(|event| event.name() == "result");
        ensure!(
            status.code() == Some(0)
                && result.is_some_and(|result| result.text("/outcome") == "direct"),
            "{}: {status}; {:?}; {}",
            dial.name(),
            events.iter().map(|event| &event.line).collect::<Vec<_>>(),
            dial.log()
        );
        Ok(events)
    }

    /// Both have exactly one direct path to each other, and none over a relay; returns A's.
    pub async fn settled(&self, within: Duration) -> Result<Value> {
        let one_direct = |status: &Value, peer: &str| {
            let direct = control::paths(status, peer, "direct");
            let relayed = control::paths(status, peer, "relayed");
            (direct.len() == 1 && relayed.is_empty()).then(|| direct[0].clone())
        };
        let until = Instant::now() + within;
        let path = self
            .a
            .until(
                &self.lab,
                "one direct path and no other",
                within,
                |status| one_direct(status, &self.b.id),
            )
            .await?;
        let left = until.saturating_duration_since(Instant::now());
        self.b
            .until(&self.lab, "one direct path and no other", left, |status| {
                one_direct(status, &self.a.id)
            })
            .await?;
        Ok(path)
    }

    /// Both are direct and nothing else, each after a punch, over sockets that are on the wire.
    pub async fn punched(&self) -> Result<()> {
        self.settled(PATIENCE).await?;
        self.verify_sockets().await?;
        for (node, peer) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let punch = node.last_punch(&peer.id).await?;
            ensure!(
                punch["outcome"] == "direct",
                "{}: the last punch is {punch}",
                node.process.name()
            );
        }
        Ok(())
    }

    /// The direct paths in both statuses are one connection, between sockets that are on the wire: what A calls its remote is
    /// what B's packets left its NAT as, and the other way round. Of two connections that a punch has made one is closed first.
    pub async fn verify_sockets(&self) -> Result<()> {
        let one_direct = |status: &Value, peer: &str| only_direct(status, peer).ok();
        let a = self
            .a
            .until(&self.lab, "one direct path", PATIENCE, |status| {
                one_direct(status, &self.b.id)
            });
        let b = self
            .b
            .until(&self.lab, "one direct path", PATIENCE, |status| {
                one_direct(status, &self.a.id)
            });
        let (a_path, b_path) = (a.await?, b.await?);
        let transport = |path: &Value| path["hops"][0]["transport"].as_str().map(str::to_owned);
        ensure!(
            transport(&a_path) == transport(&b_path),
            "A: {a_path}, B: {b_path}"
        );
        let protocol = if transport(&a_path).as_deref() == Some("tcp") {
            "tcp"
        } else {
            "udp"
        };
        let (a_local, a_remote) = sockets(&a_path)?;
        let (b_local, b_remote) = sockets(&b_path)?;
        for (name, side, local, remote, mapped) in [
            ("A", &self.a_side, a_local, a_remote, b_remote),
            ("B", &self.b_side, b_local, b_remote, a_remote),
        ] {
            side.settle().await?;
            ensure!(
                side.home()
                    .sent_by(&side.host.addresses)
                    .iter()
                    .any(|packet| packet.protocol.name() == protocol
                        && packet.source == local
                        && packet.destination == remote),
                "{name}: no {protocol} packet went from {local} to {remote}, as its status says"
            );
            let outside = side.edge().left_as(protocol, remote);
            ensure!(
                outside.contains(&mapped),
                "{name} left its NAT as {outside:?} towards {remote}; the other side says it talks to {mapped}"
            );
            let strays = side.strays();
            ensure!(
                strays.is_empty(),
                "{name}: from outside the range: {strays:?}"
            );
        }
        Ok(())
    }
}

/// The one direct path of a peer.
pub fn only_direct(status: &Value, peer: &str) -> Result<Value> {
    let direct = control::paths(status, peer, "direct");
    ensure!(direct.len() == 1, "{} direct paths: {status}", direct.len());
    Ok(direct[0].clone())
}

/// The sockets of a path's first hop: local, remote.
pub fn sockets(path: &Value) -> Result<(SocketAddr, SocketAddr)> {
    let socket = |end: &str| {
        let text = path["hops"][0][end].as_str().unwrap_or("unknown");
        text.parse::<SocketAddr>()
            .with_context(|| format!("the {end} socket of {path}"))
    };
    Ok((socket("local")?, socket("remote")?))
}
