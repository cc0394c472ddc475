//! The range: one port, a range that is taken, and hundreds of connections to one relay.

use std::{collections::BTreeSet, ops::RangeInclusive};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, range, reserved, strays},
    bins::{Bins, bins},
    capture::Capture,
    events::Event,
    holder::hold,
    lab::{Host, Lab, Site},
    nat::{NatKind, RANGE},
    node::Process,
    packet::Protocol,
    relay::Relay,
};

p2pnode_tests::lab_tests!();

const ONE_PORT: RangeInclusive<u16> = 40000..=40000;
const PEERS: u16 = 20;
const RECONNECTS: usize = 200;

/// A relay, and one host behind a NAT with a capture in it.
struct Single {
    host: Host,
    capture: Capture,
    relay: Relay,
    bins: Bins,
    lab: Lab,
    _site: Site,
}

impl Single {
    async fn new(name: &str) -> Result<Self> {
        let bins = bins()?;
        let lab = Lab::new(name).await?;
        let relay = Relay::start(&lab, &bins, "relay").await?;
        let site = lab.site("a", NatKind::EimApdf).await?;
        Ok(Self {
            host: lab.host("host-a", &site).await?,
            capture: lab.capture(&site).await?,
            relay,
            bins,
            lab,
            _site: site,
        })
    }

    fn args(&self, transports: &[Transport]) -> NodeArgs {
        NodeArgs::new(&self.relay, &self.host, transports)
    }

    fn run(&self, name: &str, args: &NodeArgs) -> Result<Process> {
        args.run(&self.lab, &self.bins, name)
            .start(&self.host.device, self.lab.artifacts())
    }

    /// Asserts that all its packets came from `range`, and that there were some; ends the test well.
    async fn kept(self, range: RangeInclusive<u16>) -> Result<()> {
        self.capture.settle().await?;
        let strays = strays(&self.capture, &self.host, &range);
        ensure!(
            strays.is_empty(),
            "packets from outside {range:?}: {strays:?}"
        );
        ensure!(
            !self.capture.sent_by(&self.host.addresses).is_empty(),
            "the capture holds no packet"
        );
        self.lab.succeeded();
        Ok(())
    }
}

fn direct(event: &Event) -> bool {
    event.name() == "connected" && event.path_kind() == "direct"
}

#[tokio::test]
async fn one_port_carries_quic_and_tcp_to_a_relay_and_to_20_peers_at_once() -> Result<()> {
    let single = Single::new("one-port").await?;
    let node = single.run("node", &single.args(&Transport::ALL).range(ONE_PORT))?;
    let id = reserved(&node).await?;
    let crowd = single.lab.public_host("crowd").await?;
    let mut dials = Vec::new();
    for i in 0..PEERS {
        let first = 41000 + 10 * i;
        let transport = Transport::ALL[usize::from(i % 2)];
        let args = NodeArgs::new(&single.relay, &crowd, &[transport]).range(first..=first + 9);
        let dial = args
            .dial(&single.bins, &format!("dial-{i}"), &id)
            .args(["--count", "1000"]);
        let dial = dial.start(&crowd.device, single.lab.artifacts())?;
        // One circuit after the other: libp2p's relay drops what goes beyond ten circuit handshakes to one peer at a time.
        dial.event("connected", PATIENCE).await?;
        dials.push((transport, dial));
    }
    for (transport, dial) in &dials {
        let path = dial.until("a direct connection", PATIENCE, |events| {
            events.iter().find(|event| direct(event)).cloned()
        });
        let path = path.await?;
        ensure!(
            path.text("/path/hops/0/transport") == transport.name(),
            "{}: {}",
            dial.name(),
            path.json
        );
    }
    // All at once: each still pings after the last one came.
    for (_, dial) in &dials {
        let seen = dial.events().len();
        let ping = dial.event_after(seen, "ping", PATIENCE).await?;
        ensure!(
            ping.text("/kind") == "direct",
            "{} pings over a {} path",
            dial.name(),
            ping.text("/kind")
        );
    }
    single.capture.settle().await?;
    let sent = single.capture.sent_by(&single.host.addresses);
    let tcp = sent
        .iter()
        .filter(|packet| matches!(packet.protocol, Protocol::Tcp { .. }));
    let tcp: BTreeSet<_> = tcp.map(|packet| packet.destination).collect();
    let udp: BTreeSet<_> = sent
        .iter()
        .filter(|packet| packet.protocol == Protocol::Udp)
        .map(|packet| packet.destination)
        .collect();
    for (name, remotes) in [("tcp", tcp), ("quic", udp)] {
        let relay = remotes
            .iter()
            .any(|remote| single.relay.host.addresses.contains(&remote.ip()));
        let peers = remotes
            .iter()
            .filter(|remote| crowd.addresses.contains(&remote.ip()))
            .count();
        ensure!(
            relay && peers >= usize::from(PEERS / 2),
            "{name}: the relay: {relay}, peers: {peers}"
        );
    }
    single.kept(ONE_PORT).await
}

#[tokio::test]
async fn a_dial_from_a_range_that_is_taken_says_so_and_by_whom() -> Result<()> {
    let single = Single::new("range-taken-dial").await?;
    let _held = hold(&single.host, ONE_PORT)?;
    let args = single.args(&Transport::ALL).range(ONE_PORT);
    let mut dial = args
        .dial(&single.bins, "dial", &single.relay.id)
        .start(&single.host.device, single.lab.artifacts())?;
    let status = dial.exit(PATIENCE).await?;
    ensure!(status.code() == Some(4), "{status}: {}", dial.log());
    let log = dial.log();
    let line = log
        .lines()
        .find(|line| line.contains("port range 40000-40000 exhausted"));
    let line = line.with_context(|| format!("the range is not named as exhausted: {log}"))?;
    let holder = std::process::id().to_string();
    ensure!(
        line.contains(&holder),
        "the line does not name the process {holder} that holds the port: {line}"
    );
    single.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_node_lives_without_a_free_port_and_recovers_when_one_is_freed() -> Result<()> {
    let single = Single::new("range-taken-run").await?;
    let held = hold(&single.host, ONE_PORT)?;
    let mut node = single.run("node", &single.args(&Transport::ALL).range(ONE_PORT))?;
    let unreachable = node.event("relay_unreachable", PATIENCE).await?;
    ensure!(
        unreachable
            .text("/reason")
            .contains("port range 40000-40000 exhausted"),
        "{}",
        unreachable.json
    );
    ensure!(node.is_alive()?, "the node ended");
    drop(held);
    node.event("reserved", PATIENCE).await?;
    single.kept(ONE_PORT).await
}

/// Dials over the same relay again and again, each time as a new process with the same key: so every connection is closed
/// by the node, whose kernel keeps it in TIME_WAIT, and the next one wants the same port.
async fn reconnect(name: &str, timestamps: bool) -> Result<()> {
    let single = Single::new(name).await?;
    if !timestamps {
        single.host.sysctl("net/ipv4/tcp_timestamps", "0")?;
    }
    let half = RANGE.start() + (RANGE.end() - RANGE.start()) / 2;
    let _held = hold(&single.host, *RANGE.start()..=half)?;
    let other = single.lab.public_host("other").await?;
    let transports = [Transport::Tcp];
    let target =
        NodeArgs::new(&single.relay, &other, &transports).run(&single.lab, &single.bins, "target");
    let target = target.start(&other.device, single.lab.artifacts())?;
    let id = reserved(&target).await?;
    let mut exhausted = 0;
    for i in 0..RECONNECTS {
        let dial = single
            .args(&transports)
            .dial(&single.bins, "dial", &id)
            .args(["--until", "connected", "--key"])
            .arg(single.lab.artifacts().file("dial.key"));
        let mut dial = dial.start(&single.host.device, single.lab.artifacts())?;
        let status = dial.exit(PATIENCE).await?;
        let log = dial.log();
        let says_exhausted = log.contains(&format!("port range {} exhausted", range(&RANGE)));
        match status.code() {
            Some(0) => {}
            Some(4) if !timestamps && says_exhausted => exhausted += 1,
            _ => anyhow::bail!("connection {i}: {status}: {log}"),
        }
    }
    single.capture.settle().await?;
    let opened: BTreeSet<u16> = single
        .capture
        .sent_by(&single.host.addresses)
        .iter()
        .filter(|packet| matches!(packet.protocol, Protocol::Tcp { opens: true, .. }))
        .map(|packet| packet.source.port())
        .collect();
    ensure!(exhausted < RECONNECTS, "no connection was made");
    ensure!(
        opened.iter().all(|port| *port > half),
        "connections opened from {opened:?}, of which up to {half} are held"
    );
    single.kept(half + 1..=*RANGE.end()).await
}

#[tokio::test]
async fn tcp_to_a_relay_200_times_from_half_a_range_stays_in_it() -> Result<()> {
    reconnect("reconnect", true).await
}

#[tokio::test]
async fn tcp_to_a_relay_200_times_without_timestamps_waits_or_is_exhausted_but_stays_in_the_range()
-> Result<()> {
    reconnect("reconnect-no-timestamps", false).await
}
