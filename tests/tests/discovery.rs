//! Finding a peer by its id alone: two clusters, each with a relay of its own, whose relays know one another.

use p2pnode_tests::prelude::*;

lab_tests! {
    a_pod_of_another_cluster_that_cannot_be_punched_stays_relayed_over_its_relay: relayed();
    a_relay_that_comes_back_knows_what_the_other_keeps_and_a_pod_that_left_is_not_found: comes_back();
}

/// Two relays, and in the cluster of each a pod that knows only that one. B runs, A will dial it.
struct Clusters {
    a: Peer,
    b: Peer,
    b_node: Node,
    relay_a: Relay,
    relay_b: Relay,
    _lab: Lab,
}

impl Clusters {
    async fn start(nat: NatKind) -> Result<Self> {
        let lab = Lab::of_test().await?;
        let debug = [("RELAY_NODE_LOG_LEVEL", "debug")];
        let mut relay_a = Relay::start_with(&lab, "relay-a", &debug).await?;
        let b_host = lab.public_host("relay-b").await?;
        let relay_b = Relay::start_on("relay-b", b_host, &[], &[&relay_a]).await?;
        relay_a.process.kill().await?;
        relay_a.knows(&[&relay_b]);
        relay_a.restart().await?;
        let a = Peer::new(&lab, "a", nat).await?;
        let b = Peer::new(&lab, "b", nat).await?;
        Ok(Self {
            b_node: relay_b.node("b", &b.host, &Transport::ALL).await?,
            a,
            b,
            relay_a,
            relay_b,
            _lab: lab,
        })
    }

    async fn dial(&self, name: &str) -> Result<Dial> {
        let args = NodeArgs::new(&self.relay_a, &self.a.host, &Transport::ALL);
        let dial = args.dial(name, &self.b_node.id)?;
        let dial = dial.on(&self.a.host)?.ended().await?;
        self.a.keeps_range().await?;
        self.b.keeps_range().await?;
        Ok(dial)
    }

    /// The first connection went through the relay of B, which only B's record names.
    fn found(&self, dial: &Dial) -> Result<()> {
        let first = dial
            .all("connected")
            .next()
            .context("nothing was connected")?;
        let path = json!({"kind": "relayed", "relay": self.relay_b.id});
        first.has(&json!({"path": path, "found_by": "registered"}))?;
        let remote = first.text("/path/hops/0/remote");
        let mut ips = self.relay_b.host.addresses.iter().map(ToString::to_string);
        ensure!(
            ips.any(|ip| remote.contains(&ip)),
            "the near hop leads to {remote}"
        );
        Ok(())
    }
}

async fn relayed() -> Result<()> {
    let clusters = Clusters::start(NatKind::Symmetric).await?;
    let dial = clusters.dial("a").await?;
    let path = json!({"relay": clusters.relay_b.id, "hops": [{}, {"reported_by": "relay"}]});
    dial.is("relayed")?
        .has(&json!({"path": path, "found_by": "registered"}))?;
    clusters.found(&dial)
}

async fn comes_back() -> Result<()> {
    let mut clusters = Clusters::start(NatKind::EimApdf).await?;
    clusters.relay_a.process.kill().await?;
    clusters.relay_a.restart().await?;
    let dial = clusters.dial("a-after-restart").await?;
    dial.is("direct")?;
    clusters.found(&dial)?;

    clusters.b_node.process.terminate()?;
    clusters.b_node.process.exit(PATIENCE).await?;
    clusters
        .relay_a
        .process
        .logged("withdraws=true", PATIENCE)
        .await?;
    let dial = clusters.dial("a-after-end").await?;
    let result = dial.is("unreachable")?;
    // What it withdrew leads nobody to its relay, which would have answered that it holds no reservation.
    let reason = result.text("/reason");
    ensure!(!reason.contains(&clusters.relay_b.id), "{reason}");
    Ok(())
}
