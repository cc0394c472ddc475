//! The deployment that all this is for: two clusters, each with a relay of its own that is public and has a second address
//! inside; pods that know only that address, listen inside on 443, may send only from the range, and know the public address of
//! their cluster because they are told.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{NodeArgs, PATIENCE, Transport, reserved, strays},
    bins::{Bins, bins},
    capture::Capture,
    events::Event,
    lab::{Host, Lab, Site},
    nat::{NatKind, RANGE},
    relay::Relay,
    running::Node,
};

p2pnode_tests::lab_tests!();

struct Cluster {
    name: &'static str,
    site: Site,
    capture: Capture,
    pod: Host,
    relay: Relay,
    /// Where the relay is inside.
    inside: IpAddr,
}

impl Cluster {
    async fn new(lab: &Lab, bins: &Bins, name: &'static str, known: &[&Relay]) -> Result<Self> {
        let site = lab.site(name, NatKind::RangeFirewall).await?;
        let relay_name = format!("relay-{name}");
        let (host, inside) = lab.public_host_in(&relay_name, &site).await?;
        let pod = lab.host(&format!("pod-{name}"), &site).await?;
        Ok(Self {
            name,
            capture: lab.capture(&site).await?,
            site,
            relay: Relay::start_on(lab, bins, &relay_name, host, &[], known).await?,
            inside,
            pod,
        })
    }

    /// A pod that runs with a reservation on its own relay.
    async fn start(&self, lab: &Lab, bins: &Bins, transports: &[Transport]) -> Result<Node> {
        let outside = self
            .site
            .outside_ip4()
            .context("the cluster has no public address")?;
        let at = |host: &str, port: &str, transport: &Transport| match transport {
            Transport::Quic => format!("/ip4/{host}/udp/{port}/quic-v1"),
            Transport::Tcp => format!("/ip4/{host}/tcp/{port}"),
        };
        let advertised: Vec<_> = transports
            .iter()
            .map(|transport| at(&outside.to_string(), "{port}", transport))
            .collect();
        let args = NodeArgs {
            relays: self.relay.addresses_at(self.inside, transports),
            transports: transports.to_vec(),
            range: RANGE,
        };
        let mut launch = args
            .run(lab, bins, &format!("pod-{}", self.name))
            .env("P2PNODE_PUNCH_ADVERTISE", advertised.join(","));
        for transport in transports {
            launch = launch.args(["--listen", &at("0.0.0.0", "443", transport)]);
        }
        let node = Node::start(lab, bins, &self.pod, launch).await?;
        reserved(&node.process).await?;
        Ok(node)
    }
}

async fn seed(name: &str, transports: &[Transport]) -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new(name).await?;
    let mut first = Cluster::new(&lab, &bins, "one", &[]).await?;
    let second = Cluster::new(&lab, &bins, "two", &[&first.relay]).await?;
    first.relay.process.kill().await?;
    first.relay.knows(&[&second.relay]);
    first.relay.restart(&lab, &bins).await?;

    let a = first.start(&lab, &bins, transports).await?;
    let b = second.start(&lab, &bins, transports).await?;
    let mut dial = a
        .control
        .dial("dial", &b.id)
        .start(&a.host.device, lab.artifacts())?;
    let status = dial.exit(PATIENCE * 2).await?;
    let events = dial.events();
    let result = events.iter().find(|event| event.name() == "result");
    let result = result.context("there is no result")?;
    ensure!(
        status.code() == Some(0) && result.text("/outcome") == "direct",
        "{status}: {}; {}",
        result.line,
        a.process.log()
    );

    // Found, relayed, direct: the record of B names the public address of its relay, which B itself has never dialed.
    ensure!(result.text("/found_by") == "registered", "{}", result.line);
    let connected = |events: &[Event]| -> Vec<Event> {
        let connected = events.iter().filter(|event| event.name() == "connected");
        connected.cloned().collect()
    };
    let paths = connected(&events);
    let relayed = paths.first().context("nothing was connected")?;
    ensure!(
        relayed.path_kind() == "relayed" && relayed.text("/path/relay") == second.relay.id,
        "{}",
        relayed.line
    );
    let near = relayed.text("/path/hops/0/remote");
    let public = second.relay.host.ip(false)?;
    ensure!(
        near == format!("{public}:443"),
        "the near hop leads to {near}"
    );
    ensure!(
        result.text("/path/hops/0/remote").starts_with(&format!(
            "{}:",
            second.site.outside_ip4().context("no address")?
        )),
        "{}",
        result.line
    );

    for cluster in [&first, &second] {
        cluster.capture.settle().await?;
        // Not from 443, on which they listen, and from no other port.
        let strays = strays(&cluster.capture, &cluster.pod, &RANGE);
        ensure!(strays.is_empty(), "{}: {strays:?}", cluster.name);
        let sent = cluster.capture.sent_by(&cluster.pod.addresses);
        let to_relay = |ip: IpAddr| sent.iter().any(|packet| packet.destination.ip() == ip);
        ensure!(
            to_relay(cluster.inside),
            "{} has not spoken to its relay",
            cluster.name
        );
        let own_relay = cluster.relay.host.ip(false)?;
        ensure!(
            !to_relay(own_relay),
            "{} knows its relay by its public address",
            cluster.name
        );
    }
    lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_pod_of_one_cluster_finds_and_punches_one_of_another_over_quic() -> Result<()> {
    seed("seed-quic", &[Transport::Quic]).await
}

#[tokio::test]
async fn a_pod_of_one_cluster_finds_and_punches_one_of_another_over_tcp() -> Result<()> {
    seed("seed-tcp", &[Transport::Tcp]).await
}

#[tokio::test]
async fn a_pod_of_one_cluster_finds_and_punches_one_of_another_over_whichever_works() -> Result<()>
{
    seed("seed-both", &Transport::ALL).await
}
