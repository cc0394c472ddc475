//! The deployment that all this is for: two clusters, each with a relay of its own that is public and has a second address
//! inside; pods that know only that address, listen inside on 443, may send only from the range, and know the public address of
//! their cluster from their configuration.

use std::net::IpAddr;

use p2pnode_tests::{capture::Capture, prelude::*};

lab_tests! {
    a_pod_of_one_cluster_finds_and_punches_one_of_another_over_quic: seed(&[Transport::Quic]);
    a_pod_of_one_cluster_finds_and_punches_one_of_another_over_tcp: seed(&[Transport::Tcp]);
    a_pod_of_one_cluster_finds_and_punches_one_of_another_over_the_one_that_works: seed(&Transport::ALL);
}

struct Cluster {
    outside: IpAddr,
    capture: Capture,
    pod: Host,
    relay: Relay,
    inside: IpAddr,
    _site: Site,
}

impl Cluster {
    async fn new(lab: &Lab, name: &str, known: &[&Relay]) -> Result<Self> {
        let site = lab.site(name, NatKind::RangeFirewall).await?;
        let relay_name = format!("relay-{name}");
        let (host, inside) = lab.public_host_in(&relay_name, &site).await?;
        Ok(Self {
            outside: site
                .outside_ip4()
                .context("the cluster has no public address")?,
            pod: lab.host(&format!("pod-{name}"), &site).await?,
            // A capture knows the hosts that are there.
            capture: lab.capture(&site).await?,
            relay: Relay::start_on(&relay_name, host, &[], known).await?,
            inside,
            _site: site,
        })
    }

    async fn start(&self, transports: &[Transport]) -> Result<Node> {
        let relays = self.relay.addresses_at(self.inside, transports);
        let advertised = |transport: &Transport| transport.addr(self.outside, "{port}");
        let advertised: Vec<_> = transports.iter().map(advertised).collect();
        let args = NodeArgs::with_relays(relays, transports);
        let mut launch = args.run_on(&self.pod, self.pod.device.name())?;
        launch = launch.env("P2PNODE_PUNCH_ADVERTISE", advertised.join(","));
        for transport in transports {
            launch = launch.args(["--listen", &transport.addr("0.0.0.0", 443)]);
        }
        launch.reserves(&self.pod).await
    }
}

async fn seed(transports: &[Transport]) -> Result<()> {
    let lab = Lab::of_test().await?;
    let mut first = Cluster::new(&lab, "one", &[]).await?;
    let second = Cluster::new(&lab, "two", &[&first.relay]).await?;
    first.relay.process.kill().await?;
    first.relay.knows(&[&second.relay]);
    first.relay.restart().await?;

    let a = first.start(transports).await?;
    let b = second.start(transports).await?;
    let dial = a.dial("dial", &b.id).await?;
    let result = dial.is("direct").with_context(|| a.process.log())?;
    // Found, relayed, direct: the record of B names the public address of its relay, which B itself has never dialed.
    result.has(&json!({"found_by": "registered"}))?;
    let relayed = dial
        .all("connected")
        .next()
        .context("nothing was connected")?;
    let near = format!("{}:443", second.relay.host.ip(false)?);
    let path = json!({"kind": "relayed", "relay": second.relay.id, "hops": [{"remote": near}]});
    relayed.has(&json!({"path": path}))?;
    let remote = result.text("/path/hops/0/remote");
    ensure!(
        remote.starts_with(&format!("{}:", second.outside)),
        "{}",
        result.line
    );

    for cluster in [&first, &second] {
        // Not from 443, on which they listen, and from no other port.
        cluster.capture.keeps(&cluster.pod, &RANGE).await?;
        let sent = cluster.capture.sent_by(&cluster.pod.addresses);
        let to = |ip: IpAddr| sent.iter().any(|packet| packet.destination.ip() == ip);
        ensure!(to(cluster.inside), "a pod has sent nothing to its relay");
        let public = cluster.relay.host.ip(false)?;
        ensure!(!to(public), "a pod knows its relay by its public address");
        // B knows nothing of A's relay and sends it nothing.
        let far = first.relay.host.ip(false)?;
        ensure!(!to(far), "a pod has sent to the relay of the other cluster");
    }
    Ok(())
}
