//! The range: one port, a range that is taken, and hundreds of connections to one relay.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use p2pnode_tests::{
    capture::Capture, faults::Traffic, holder::hold, packet::Protocol, prelude::*,
};

lab_tests! {
    where_a_firewall_drops_the_punch_port_quic_takes_another: partly_open(Transport::Quic, 0);
    where_a_firewall_drops_the_punch_port_tcp_takes_another: partly_open(Transport::Tcp, 0);
    where_a_firewall_drops_half_of_the_range_quic_takes_the_other: partly_open(Transport::Quic, 12);
    where_a_firewall_drops_half_of_the_range_tcp_takes_the_other: partly_open(Transport::Tcp, 12);
    one_port_carries_quic_and_tcp_to_a_relay_and_to_20_peers_at_once: one_port();
    a_dial_from_a_range_that_is_taken_says_so_and_by_whom: taken_for_a_dial();
    a_node_lives_without_a_free_port_and_recovers_when_one_is_freed: taken_for_a_node();
    tcp_to_a_relay_200_times_from_half_a_range_stays_in_it: reconnect(true);
    tcp_to_a_relay_200_times_without_timestamps_waits_or_is_exhausted_but_stays_in_the_range:
        reconnect(false);
}

const ONE_PORT: RangeInclusive<u16> = 40000..=40000;
const PEERS: u16 = 20;
const RECONNECTS: usize = 200;

struct Single {
    host: Host,
    capture: Capture,
    relay: Relay,
    lab: Lab,
    _site: Site,
}

impl Single {
    async fn new() -> Result<Self> {
        let lab = Lab::of_test().await?;
        let relay = Relay::start(&lab, "relay").await?;
        let (site, host) = lab.home("a", NatKind::EimApdf).await?;
        Ok(Self {
            host,
            capture: lab.capture(&site).await?,
            relay,
            lab,
            _site: site,
        })
    }

    fn args(&self) -> NodeArgs {
        NodeArgs::new(&self.relay, &self.host, &Transport::ALL).range(ONE_PORT)
    }
}

/// A firewall drops what leaves from the punch port and so many ports on both sides of it. The punch port moves: it is that of the leg, it
/// is advertised, and the pair is direct from there.
async fn partly_open(transport: Transport, around: u16) -> Result<()> {
    let mut both = Running::homes().over(&[transport]).start().await?;
    let of = format!("{}/ip4", transport.name());
    let port_of = |status: &Value| {
        let port = status["punch_ports"][&of]
            .as_u64()
            .context("a punch port")?;
        anyhow::Ok(u16::try_from(port)?)
    };
    let dropped = port_of(&both.a.control.status().await?)?;
    both.a.process.kill().await?;
    // Those beyond the end of the range are none of its ports.
    let drops = Traffic::From(dropped - around, dropped + around);
    both.a_side.site.cut(&[drops])?;
    let again = both.relay.run("a", &both.a_side.host, &[transport])?;
    let again = again.reserves(&both.a_side.host).await?;
    let port = port_of(&again.control.status().await?)?;
    ensure!(port.abs_diff(dropped) > around, "{port}, near {dropped}");
    let leg = again.process.event("connected", PATIENCE).await?;
    let local = leg.json["path"]["hops"][0]["local"].to_string();
    ensure!(local.contains(&format!(":{port}\"")), "{}", leg.line);
    again.dial("again", &both.b.id).await?.is("direct")?;
    both.a = again;
    both.verify_sockets().await
}

async fn one_port() -> Result<()> {
    let single = Single::new().await?;
    let node = single
        .args()
        .run_on(&single.host, "node")?
        .reserves(&single.host)
        .await?;
    let crowd = single.lab.public_host("crowd").await?;
    let mut dials = Vec::new();
    for i in 0..PEERS {
        let first = 41000 + 10 * i;
        let transport = Transport::ALL[usize::from(i % 2)];
        let args = NodeArgs::new(&single.relay, &crowd, &[transport]).range(first..=first + 9);
        let dial = args.dial(&format!("dial-{i}"), &node.id)?;
        let dial = dial.args(["--count", "1000"]).on(&crowd)?;
        // Twenty processes that start at once are too much for a small machine.
        dial.event("connected", PATIENCE).await?;
        dials.push((transport, dial));
    }
    for (transport, dial) in &dials {
        let direct = |event: &Event| event.connects(&node.id, "direct");
        let path = dial.first("a direct connection", 0, direct).await?;
        path.has(&json!({"path": {"hops": [{"transport": transport.name()}]}}))?;
    }
    // All at once: each still pings after the last one came.
    for (_, dial) in &dials {
        let seen = dial.events().len();
        let ping = dial.event_after(seen, "ping", PATIENCE).await?;
        ping.has(&json!({"kind": "direct"}))?;
    }
    single.capture.keeps(&single.host, &ONE_PORT).await?;
    let sent = single.capture.sent_by(&single.host.addresses);
    for protocol in ["tcp", "udp"] {
        let of = sent
            .iter()
            .filter(|packet| packet.protocol.name() == protocol);
        let remotes: BTreeSet<_> = of.map(|packet| packet.destination).collect();
        let to = |ips: &[IpAddr]| remotes.iter().filter(|to| ips.contains(&to.ip())).count();
        let (relay, peers) = (to(&single.relay.host.addresses), to(&crowd.addresses));
        ensure!(
            relay > 0 && peers >= usize::from(PEERS / 2),
            "{protocol}: {remotes:?}"
        );
    }
    Ok(())
}

async fn taken_for_a_dial() -> Result<()> {
    let single = Single::new().await?;
    let _held = hold(&single.host, ONE_PORT)?;
    let dial = single.args().dial("dial", &single.relay.id)?;
    let dial = dial.on(&single.host)?.ended().await?;
    dial.is("unreachable")?;
    let exhausted = |line: &&str| line.contains("port range 40000-40000 exhausted");
    let line = dial
        .log
        .lines()
        .find(exhausted)
        .with_context(|| dial.log.clone())?;
    let holder = std::process::id().to_string();
    ensure!(
        line.contains(&holder),
        "process {holder} holds the port: {line}"
    );
    Ok(())
}

async fn taken_for_a_node() -> Result<()> {
    let single = Single::new().await?;
    let held = hold(&single.host, ONE_PORT)?;
    let mut node = single
        .args()
        .run_on(&single.host, "node")?
        .runs(&single.host)
        .await?;
    let unreachable = node.process.event("relay_unreachable", PATIENCE).await?;
    let reason = unreachable.text("/reason");
    ensure!(
        reason.contains("port range 40000-40000 exhausted"),
        "{reason}"
    );
    ensure!(node.process.is_alive()?, "the node ended");
    drop(held);
    node.process.event("reserved", PATIENCE).await?;
    single.capture.keeps(&single.host, &ONE_PORT).await
}

/// Dials over the same relay again and again, each time as a new process with the same key: so every connection is closed
/// by the node, whose kernel keeps it in TIME_WAIT, and the next one wants the same port. With timestamps none may fail. Without
/// them a port is free again only after TIME_WAIT: as many must succeed as the free half of the range has ports, and all others must
/// say that it is exhausted.
async fn reconnect(timestamps: bool) -> Result<()> {
    let single = Single::new().await?;
    if !timestamps {
        single.host.sysctl("net/ipv4/tcp_timestamps", "0")?;
    }
    let half = RANGE.start() + (RANGE.end() - RANGE.start()) / 2;
    let _held = hold(&single.host, *RANGE.start()..=half)?;
    let free = half + 1..=*RANGE.end();
    let other = single.lab.public_host("other").await?;
    let target = single
        .relay
        .node("target", &other, &[Transport::Tcp])
        .await?;
    let key = single.lab.artifacts().file("dial.key");
    let mut connected = 0;
    for i in 0..RECONNECTS {
        let dial = single
            .relay
            .dial("dial", &single.host, &[Transport::Tcp], &target.id)?;
        let dial = dial.args(["--until", "connected", "--key"]).arg(&key);
        let dial = dial.on(&single.host)?.ended().await?;
        let is_exhausted = dial.log.contains("port range 40000-40050 exhausted");
        match dial.code {
            0 => connected += 1,
            4 if !timestamps && is_exhausted => {}
            _ => anyhow::bail!("connection {i}: {dial:?}"),
        }
    }
    let least = if timestamps {
        RECONNECTS
    } else {
        free.clone().count()
    };
    ensure!(
        connected >= least,
        "{connected} of {RECONNECTS} were connected, not {least}"
    );
    single.capture.keeps(&single.host, &free).await?;
    let sent = single.capture.sent_by(&single.host.addresses);
    let opens = |protocol| matches!(protocol, Protocol::Tcp { opens: true, .. });
    let opened = sent.iter().filter(|packet| opens(packet.protocol)).count();
    ensure!(
        opened >= connected,
        "{opened} SYNs for {connected} connections"
    );
    Ok(())
}
