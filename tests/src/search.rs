//! Two peers that search for ports, and what their routers see of it.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    args::{NodeArgs, Transport},
    capture::Side,
    events::Event,
    lab::Lab,
    nat::NatKind,
    node::Dial,
    packet::{Packet, Protocol},
    peer::{Peer, same_connection},
    relay::Relay,
    running::Node,
};

/// The most packets of a series.
const BUDGET: usize = 3_000;

/// How long a series, what precedes it and the first rest take at most.
const SERIES: Duration = Duration::from_secs(160);

/// A probe of 24 bytes in UDP over IPv4.
const PROBE: usize = 20 + 8 + 24;

/// A lab of two peers, of which the second one runs.
pub struct Searching {
    pub a: Peer,
    pub b: Peer,
    pub b_node: Node,
    pub relay: Relay,
    range: RangeInclusive<u16>,
    transports: Vec<Transport>,
}

/// A dial of it, which has ended.
pub struct Searched {
    pub result: Dial,
    pub peers: Searching,
}

impl Searched {
    pub async fn start(
        lab: &Lab,
        a: NatKind,
        b: NatKind,
        range: RangeInclusive<u16>,
    ) -> Result<Searching> {
        Self::over(lab, a, b, range, &[Transport::Quic]).await
    }

    pub async fn over(
        lab: &Lab,
        a: NatKind,
        b: NatKind,
        range: RangeInclusive<u16>,
        transports: &[Transport],
    ) -> Result<Searching> {
        let relay = Relay::start(lab, "relay").await?;
        let (a, b) = (Peer::new(lab, "a", a).await?, Peer::new(lab, "b", b).await?);
        Self::between(relay, a, b, range, transports).await
    }

    /// Of two NATs with blocks so small that the budget finds a pair in all but one of 10^20 searches.
    pub async fn in_small_blocks(lab: &Lab, range: RangeInclusive<u16>) -> Result<Searching> {
        let relay = Relay::start(lab, "relay").await?;
        let kind = NatKind::SymmetricBlock;
        let (a, b) = (
            Peer::new(lab, "a", kind).await?,
            Peer::new(lab, "b", kind).await?,
        );
        for peer in [&a, &b] {
            peer.site.gives(30_000..=30_255)?;
        }
        Self::between(relay, a, b, range, &[Transport::Quic]).await
    }

    async fn between(
        relay: Relay,
        a: Peer,
        b: Peer,
        range: RangeInclusive<u16>,
        transports: &[Transport],
    ) -> Result<Searching> {
        let args = NodeArgs::new(&relay, &b.host, transports);
        let launch = args.range(range.clone()).searching().run_on(&b.host, "b")?;
        Ok(Searching {
            b_node: launch.reserves(&b.host).await?,
            a,
            b,
            relay,
            range,
            transports: transports.to_vec(),
        })
    }

    /// Asserts that both sides have the same direct connection, from the range alone.
    pub async fn verify_direct(&self) -> Result<()> {
        let peers = &self.peers;
        for peer in [&peers.a, &peers.b] {
            peer.home.keeps(&peer.host, &peers.range).await?;
        }
        let path = &self.result.is("direct")?.json["path"];
        let events = peers.b_node.process.events();
        let mut last = Err(anyhow::anyhow!("B has reported no direct connection"));
        for event in events.iter().filter(|event| event.path_kind() == "direct") {
            let theirs = &event.json["path"];
            last = same_connection((&peers.a, path), (&peers.b, theirs)).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// What a pair came to that was left alone with its searches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Series {
    /// How many searches there were.
    pub series: usize,
    /// How long the last one took, in seconds, if it has found a pair over which the two are direct.
    pub found: Option<f64>,
    /// Probes that left each side's NAT.
    pub probes: [usize; 2],
}

impl Searching {
    /// Lets A run, too, under this name.
    pub async fn a_runs(&self, name: &str) -> Result<Node> {
        let args = NodeArgs::new(&self.relay, &self.a.host, &self.transports);
        let args = args.range(self.range.clone()).searching();
        args.run_on(&self.a.host, name)?
            .reserves(&self.a.host)
            .await
    }

    /// How many probes left each side's NAT.
    pub async fn probes(&self) -> Result<[usize; 2]> {
        Ok([
            probes(&self.a, &self.b).await?,
            probes(&self.b, &self.a).await?,
        ])
    }

    /// Asserts that the probes of a series are within the budget, and go to the other side's NAT alone.
    pub async fn verify_packets(&self) -> Result<()> {
        let probes = self.probes().await?;
        ensure!(probes.iter().all(|sent| *sent <= BUDGET), "{probes:?}");
        Ok(())
    }

    /// Waits until A's search sends.
    pub async fn a_sends(&self) -> Result<()> {
        let to: IpAddr = self.b.site.outside_ip4().context("no address outside")?;
        let is_sent = |packet: &Packet| is_probe(packet) && packet.destination.ip() == to;
        self.a.edge().until("a probe", SERIES, is_sent).await
    }

    /// Lets A run, too, dial B, and search as often as it takes, or until it has searched so often without success.
    pub async fn run(&self, most: usize) -> Result<Series> {
        let a = self.a_runs("a").await?;
        let _dial = a.start_dial("dial", &self.b_node.id)?;
        let ends = |events: &[Event]| {
            let is_direct = |event: &Event| event.connects(&self.b_node.id, "direct");
            let searches = events.iter().filter(|event| event.name() == "search");
            let failed = searches.filter(|event| event.text("/outcome") != "found");
            (events.iter().any(is_direct) || failed.count() >= most).then_some(())
        };
        let within = SERIES * u32::try_from(most)?;
        a.process
            .until("the end of the searches", within, ends)
            .await?;
        let events = a.process.events();
        let is_direct = events
            .iter()
            .any(|event| event.connects(&self.b_node.id, "direct"));
        let mut searches = events.iter().filter(|event| event.name() == "search");
        let series = searches.clone().count();
        let last = searches
            .next_back()
            .filter(|event| is_direct && event.text("/outcome") == "found");
        for peer in [&self.a, &self.b] {
            peer.home.keeps(&peer.host, &self.range).await?;
        }
        Ok(Series {
            series,
            found: last
                .and_then(|event| event.json["took_ms"].as_f64())
                .map(|ms| ms / 1000.0),
            probes: [
                probes(&self.a, &self.b).await?,
                probes(&self.b, &self.a).await?,
            ],
        })
    }

    pub async fn dial(self, name: &str) -> Result<Searched> {
        let args = NodeArgs::new(&self.relay, &self.a.host, &self.transports);
        let args = args.range(self.range.clone()).searching();
        let dial = args.dial_within(name, &self.b_node.id, "200s")?;
        let mut dial = dial.args(["--count", "3"]).on(&self.a.host)?;
        Ok(Searched {
            result: dial.ended_within(Duration::from_secs(220)).await?,
            peers: self,
        })
    }
}

fn is_probe(packet: &Packet) -> bool {
    packet.outgoing && packet.protocol == Protocol::Udp && packet.length == PROBE
}

async fn probes(from: &Peer, to: &Peer) -> Result<usize> {
    from.settle().await?;
    let to: IpAddr = to.site.outside_ip4().context("no address outside")?;
    let sent = from.edge().packets(Side::Outside);
    let probes: Vec<_> = sent.iter().filter(|packet| is_probe(packet)).collect();
    let stray = probes.iter().find(|probe| probe.destination.ip() != to);
    ensure!(stray.is_none(), "a probe went to a third party: {stray:?}");
    Ok(probes.len())
}
