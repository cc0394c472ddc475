//! What a session promises while nodes, relays and networks fail: a forward of one node to a service of another, in the lab.

mod aging;
mod datagrams;
mod traffic;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::sleep;

pub use self::{
    aging::{Aged, Move, aging},
    datagrams::{DATAGRAM_TARGET, DATAGRAMS, Datagrams},
    traffic::{AGAIN, Echo, LISTEN, Pause, TARGET, Traffic},
};

use crate::{
    args::Transport,
    faults,
    host::Host,
    lab::Lab,
    nat::NatKind,
    node::{Launch, Process},
    running::{Node, Prepared, Running},
};

pub const SESSIONS: &str = "p2pnode_sessions";
pub const OPENS: &str = "p2pnode_session_opens_total";
pub const BYTES: &str = "p2pnode_session_bytes_total";
pub const MOVES: &str = "p2pnode_session_moves_total";

/// How long a test waits for a status that has changed.
const LOOK: Duration = Duration::from_millis(50);

/// A node with a forward, `a`, and one with the service, `b`, and their relay.
pub struct Carry {
    pub a: Node,
    pub b: Node,
    pub echo: Echo,
    pub lab: Prepared,
    linger: Duration,
}

/// What happened in a part of a run.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: &'static str,
    /// Bytes each way.
    pub bytes: u64,
    pub took: Duration,
    pub longest_pause: Duration,
}

impl Carry {
    /// `linger` is that of both nodes. Until [`Self::mend`], the path is relayed.
    pub async fn start(
        lab: Lab,
        nats: [NatKind; 2],
        over: Transport,
        linger: Duration,
    ) -> Result<Self> {
        let running = Running::new(nats[0], nats[1]).over(&[over]);
        let lab = running.prepare_in(lab).await?;
        let echo = Echo::on(&lab.b.host)?;
        let b = serving(&lab, linger).await?;
        cut(&lab)?;
        let a = forwarding(&lab, &b.id, linger).await?;
        Ok(Self {
            a,
            b,
            echo,
            lab,
            linger,
        })
    }

    /// Another process for `b`, after the end of the last one.
    pub async fn serve_again(&mut self) -> Result<()> {
        self.b = serving(&self.lab, self.linger).await?;
        Ok(())
    }

    /// The same for `a`.
    pub async fn forward_again(&mut self) -> Result<()> {
        self.a = forwarding(&self.lab, &self.b.id, self.linger).await?;
        Ok(())
    }

    /// Nothing goes between the sites of both.
    pub fn cut(&self) -> Result<()> {
        cut(&self.lab)
    }

    pub fn mend(&self) -> Result<()> {
        self.lab.a.site.mend()
    }

    /// The path may be direct, and is.
    pub async fn direct(&self) -> Result<()> {
        self.mend()?;
        // A punch that began while the path was cut may fail now. The next one comes by itself.
        self.a.dial("dial", &self.b.id).await?;
        self.a.direct(&self.b.id, AGAIN).await?;
        Ok(())
    }

    /// Waits until the session is on a path of this kind.
    pub async fn is_on(&self, kind: &str) -> Result<()> {
        let until = Instant::now() + AGAIN;
        loop {
            let status = self.status().await?;
            if status["sessions"][0]["kind"] == kind {
                return Ok(());
            }
            ensure!(Instant::now() < until, "no session is {kind}: {status}");
            sleep(LOOK).await;
        }
    }

    pub async fn status(&self) -> Result<Value> {
        let args = ["status", "--json", "--sessions"];
        self.a.control.json(&args).await
    }

    pub async fn keeps_range(&self) -> Result<()> {
        self.lab.a.keeps_range().await?;
        self.lab.b.keeps_range().await
    }
}

fn cut(lab: &Prepared) -> Result<()> {
    let ip = lab.b.site.outside_ip4();
    let ip = ip.map_or_else(|| lab.b.host.ip(false), Ok)?;
    lab.a.site.cut(&[faults::Traffic::With(ip)])
}

async fn serving(lab: &Prepared, linger: Duration) -> Result<Node> {
    let services = format!("services: {{ echo: {{ target: \"{TARGET}\", allow: any }} }}\n");
    let host = &lab.b.host;
    configured(lab, host, "b", &services, linger)?
        .reserves(host)
        .await
}

async fn forwarding(lab: &Prepared, b: &str, linger: Duration) -> Result<Node> {
    let forwards = format!("forwards: [ {{ listen: \"{LISTEN}\", to: \"echo@{b}\" }} ]\n");
    let host = &lab.a.host;
    configured(lab, host, "a", &forwards, linger)?
        .runs(host)
        .await
}

fn configured(
    lab: &Prepared,
    host: &Host,
    name: &str,
    text: &str,
    linger: Duration,
) -> Result<Launch> {
    let file = host.file(&format!("{name}.yaml"));
    let text = format!("{text}sessions: {{ linger: {}s }}\n", linger.as_secs());
    std::fs::write(&file, text).context("the configuration")?;
    let launch = lab.run(name, host)?;
    Ok(launch.arg("--config").arg(file))
}

/// A command that asks the node.
pub fn command(node: &Node, name: &str, args: &[&str]) -> Result<Process> {
    node.control.command(name, args).on(&node.host)
}

/// The log of a command that has ended with `code`.
pub async fn exits(mut process: Process, code: i32) -> Result<String> {
    let status = process.exit(AGAIN).await?;
    let log = process.log();
    ensure!(
        status.code() == Some(code),
        "{status}, and not {code}: {log}"
    );
    Ok(log)
}

/// `bytes` go each way while the path is relayed, direct, cut, relayed, relayed by a relay that was restarted, and direct again. If
/// `stays_relayed`, no path is ever direct.
pub async fn changes(
    lab: Lab,
    nats: [NatKind; 2],
    bytes: u64,
    pace: Duration,
    stays_relayed: bool,
) -> Result<Vec<Phase>> {
    let linger = Duration::from_secs(60);
    let mut carry = Carry::start(lab, nats, Transport::Quic, linger).await?;
    let traffic = Traffic::paced(&carry.a.host, pace)?;
    let mut run = Run {
        traffic,
        share: bytes / 5,
        phases: Vec::new(),
        since: Instant::now(),
    };
    carry.is_on("relayed").await?;
    run.phase("relayed").await?;
    if stays_relayed {
        // The network is gone for a moment.
        carry.lab.a.site.cut(&[faults::Traffic::Outside])?;
        sleep(Duration::from_secs(2)).await;
        carry.mend()?;
        run.phase("after a moment without network").await?;
    } else {
        carry.direct().await?;
        carry.is_on("direct").await?;
        run.phase("relayed to direct").await?;
        carry.cut()?;
        carry.is_on("relayed").await?;
        run.phase("direct path cut").await?;
    }
    carry.lab.relay.process.kill().await?;
    carry.lab.relay.restart().await?;
    run.phase("relay restarted").await?;
    if !stays_relayed {
        carry.direct().await?;
        carry.is_on("direct").await?;
    }
    let left = bytes.saturating_sub(run.traffic.returned());
    run.share = left.max(run.share);
    run.phase("to the end").await?;
    let went = run.traffic.end()?;
    ensure!(went >= bytes, "{went} bytes went each way");
    carry.keeps_range().await?;
    Ok(run.phases)
}

struct Run {
    traffic: Traffic,
    share: u64,
    phases: Vec<Phase>,
    since: Instant,
}

impl Run {
    async fn phase(&mut self, name: &'static str) -> Result<()> {
        self.traffic.carries(self.share).await.context(name)?;
        self.phases.push(Phase {
            name,
            bytes: self.traffic.returned(),
            took: self.since.elapsed(),
            longest_pause: self.traffic.longest_pause(),
        });
        self.since = Instant::now();
        Ok(())
    }
}

/// Either node is stopped for `stop`, as a host that sleeps: the connection goes on afterwards.
pub async fn stopped(lab: Lab, over: Transport, linger: Duration, stop: Duration) -> Result<()> {
    let carry = Carry::start(lab, HOMES, over, linger).await?;
    carry.direct().await?;
    let traffic = Traffic::start(&carry.a.host)?;
    traffic.carries(1 << 20).await?;
    for node in [&carry.b, &carry.a] {
        node.process.suspend()?;
        sleep(stop).await;
        node.process.resume()?;
        traffic
            .carries(4 << 20)
            .await
            .context(node.process.name().to_owned())?;
    }
    traffic.end()?;
    carry.keeps_range().await
}

/// The network is gone for less than the sessions linger, and then for more: the connection goes on, and then both sides see a reset
/// while the network is still gone. The next client is served. Over QUIC the path is relayed, over TCP it is direct.
pub async fn network_gone(
    lab: Lab,
    over: Transport,
    linger: Duration,
    [less, more]: [Duration; 2],
) -> Result<()> {
    let carry = Carry::start(lab, HOMES, over, linger).await?;
    if over == Transport::Tcp {
        carry.direct().await?;
    }
    let traffic = Traffic::start(&carry.a.host)?;
    traffic.carries(1 << 20).await?;
    let site = &carry.lab.a.site;
    site.cut(&[faults::Traffic::Outside])?;
    sleep(less).await;
    carry.mend()?;
    traffic.carries(4 << 20).await.context("gone for less")?;
    site.cut(&[faults::Traffic::Outside])?;
    // Pings notice within 4 s; from then on the session lingers.
    let noticed = Duration::from_secs(10);
    traffic.is_reset(more + noticed).await?;
    carry.echo.resets(1, more + noticed).await?;
    carry.mend()?;
    let traffic = Traffic::start(&carry.a.host)?;
    traffic.carries(1 << 20).await.context("the next client")?;
    traffic.end()?;
    carry.keeps_range().await
}

/// The node of the client is killed. The target sees a reset after the sessions have lingered, or as soon as the node `is_back`.
pub async fn caller_killed(
    lab: Lab,
    over: Transport,
    linger: Duration,
    is_back: bool,
) -> Result<()> {
    let mut carry = Carry::start(lab, HOMES, over, linger).await?;
    let traffic = Traffic::start(&carry.a.host)?;
    traffic.carries(1 << 20).await?;
    carry.a.process.kill().await?;
    traffic.is_reset(Duration::from_secs(5)).await?;
    let mut within = linger + Duration::from_secs(20);
    if is_back {
        carry.forward_again().await?;
        within = AGAIN;
    }
    carry.echo.resets(1, within).await?;
    if is_back {
        let traffic = Traffic::start(&carry.a.host)?;
        traffic.carries(1 << 20).await?;
        traffic.end()?;
    }
    Ok(())
}

/// The node of the service is killed and stays away. The client sees a reset after the sessions have lingered.
pub async fn server_killed(lab: Lab, linger: Duration) -> Result<()> {
    let mut carry = Carry::start(lab, HOMES, Transport::Quic, linger).await?;
    let traffic = Traffic::start(&carry.a.host)?;
    traffic.carries(1 << 20).await?;
    carry.b.process.kill().await?;
    carry.echo.resets(1, Duration::from_secs(5)).await?;
    traffic.is_reset(linger + Duration::from_secs(20)).await
}

/// The relay is killed, under a direct path, which does not notice.
pub async fn relay_killed(lab: Lab) -> Result<()> {
    let linger = Duration::from_secs(60);
    let mut carry = Carry::start(lab, HOMES, Transport::Quic, linger).await?;
    carry.direct().await?;
    let traffic = Traffic::start(&carry.a.host)?;
    carry.is_on("direct").await?;
    traffic.carries(1 << 20).await?;
    carry.lab.relay.process.kill().await?;
    traffic.carries(16 << 20).await?;
    carry.is_on("direct").await?;
    traffic.end()?;
    carry.keeps_range().await
}

const HOMES: [NatKind; 2] = [NatKind::EimApdf, NatKind::EimApdfRewrite];
