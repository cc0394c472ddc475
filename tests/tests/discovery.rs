//! Finding a peer by its id alone: two clusters, each with a relay of its own, whose relays know one another.

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::{DIAL_TIMEOUT, NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    events::Event,
    faults::Traffic,
    lab::Lab,
    nat::NatKind,
    node::Process,
    pair::Peer,
    relay::Relay,
};

p2pnode_tests::lab_tests!();

/// Two relays, and in the cluster of each a pod that knows only that one. B runs, A will dial it.
struct Clusters {
    a: Peer,
    b: Peer,
    b_id: String,
    b_process: Process,
    relay_a: Relay,
    relay_b: Relay,
    bins: Bins,
    lab: Lab,
}

impl Clusters {
    async fn start(name: &str, nat: NatKind) -> Result<Self> {
        let bins = bins()?;
        let lab = Lab::new(name).await?;
        let debug = [("RELAY_NODE_LOG_LEVEL", "debug")];
        let mut relay_a = Relay::start_with(&lab, &bins, "relay-a", &debug).await?;
        let relay_b = Relay::start_knowing(&lab, &bins, "relay-b", &[&relay_a]).await?;
        relay_a.process.kill().await?;
        relay_a.knows(&[&relay_b]);
        relay_a.restart(&lab, &bins).await?;
        let a = Peer::new(&lab, "a", nat).await?;
        let b = Peer::new(&lab, "b", nat).await?;
        let b_process = NodeArgs::new(&relay_b, &b.host, &Transport::ALL)
            .run(&lab, &bins, "b")
            .start(&b.host.device, lab.artifacts())?;
        Ok(Self {
            b_id: reserved(&b_process).await?,
            b_process,
            a,
            b,
            relay_a,
            relay_b,
            bins,
            lab,
        })
    }

    /// `p2pnode dial` from A to B with nothing but the relay of A, to its end: the exit code, and what it printed.
    async fn dial(&self, name: &str) -> Result<(i32, Vec<Event>)> {
        self.dial_within(name, DIAL_TIMEOUT).await
    }

    async fn dial_within(&self, name: &str, timeout: &str) -> Result<(i32, Vec<Event>)> {
        let args = NodeArgs::new(&self.relay_a, &self.a.host, &Transport::ALL);
        let mut dial = args
            .dial_within(&self.bins, name, &self.b_id, timeout)
            .start(&self.a.host.device, self.lab.artifacts())?;
        let status = dial.exit(PATIENCE * 2).await?;
        let code = status.code().context("the dial was ended")?;
        Ok((code, dial.events()))
    }

    /// The first connection went through the relay of B, which only B's record names.
    fn found(&self, events: &[Event]) -> Result<()> {
        let mut connected = events.iter().filter(|event| event.name() == "connected");
        let first = connected.next().context("nothing was connected")?;
        ensure!(
            first.path_kind() == "relayed"
                && first.text("/path/relay") == self.relay_b.id
                && first.text("/found_by") == "registered",
            "{}",
            first.line
        );
        let remote = first.text("/path/hops/0/remote");
        ensure!(
            self.relay_b
                .host
                .addresses
                .iter()
                .any(|ip| remote.contains(&ip.to_string())),
            "the near hop leads to {remote}"
        );
        Ok(())
    }

    async fn verify_range(&self) -> Result<()> {
        for (name, peer) in [("a", &self.a), ("b", &self.b)] {
            peer.settle().await?;
            let strays = peer.strays();
            ensure!(strays.is_empty(), "{name}: {strays:?}");
            let sent = peer.home().sent_by(&peer.host.addresses);
            ensure!(!sent.is_empty(), "the capture of {name} holds no packet");
        }
        Ok(())
    }
}

fn result(events: &[Event]) -> Result<&Event> {
    let result = events.iter().find(|event| event.name() == "result");
    result.context("there is no result")
}

#[tokio::test]
async fn a_pod_finds_one_of_another_cluster_by_its_id_and_ends_direct_from_its_range() -> Result<()>
{
    let clusters = Clusters::start("discovery-direct", NatKind::RangeFirewall).await?;
    let (code, events) = clusters.dial("a").await?;
    let result = result(&events)?;
    ensure!(
        code == 0 && result.text("/outcome") == "direct",
        "{}",
        result.line
    );
    ensure!(result.text("/found_by") == "registered", "{}", result.line);
    clusters.found(&events)?;
    clusters.verify_range().await?;
    // B knows nothing of A's relay and sends it nothing.
    let relay_a = &clusters.relay_a.host.addresses;
    let mut sent = clusters
        .b
        .home()
        .sent_by(&clusters.b.host.addresses)
        .into_iter();
    ensure!(
        !sent.any(|packet| relay_a.contains(&packet.destination.ip())),
        "B has sent to the relay of A"
    );
    clusters.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_pod_of_another_cluster_that_cannot_be_punched_stays_relayed_over_its_relay() -> Result<()>
{
    let clusters = Clusters::start("discovery-relayed", NatKind::Symmetric).await?;
    let (code, events) = clusters.dial("a").await?;
    let result = result(&events)?;
    ensure!(
        code == 3 && result.text("/outcome") == "relayed",
        "{}",
        result.line
    );
    ensure!(
        result.text("/path/relay") == clusters.relay_b.id
            && result.text("/found_by") == "registered"
            && result.text("/path/hops/1/reported_by") == "relay",
        "{}",
        result.line
    );
    clusters.found(&events)?;
    clusters.verify_range().await?;
    clusters.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_relay_that_comes_back_knows_what_the_other_keeps_and_a_pod_that_left_is_not_found()
-> Result<()> {
    let mut clusters = Clusters::start("discovery-restart", NatKind::EimApdf).await?;
    clusters.relay_a.process.kill().await?;
    clusters
        .relay_a
        .restart(&clusters.lab, &clusters.bins)
        .await?;
    let (code, events) = clusters.dial("a-after-restart").await?;
    ensure!(code == 0, "{}", result(&events)?.line);
    clusters.found(&events)?;

    clusters.b_process.terminate()?;
    clusters.b_process.exit(PATIENCE).await?;
    let relay = &clusters.relay_a.process;
    relay.logged("withdraws=true", PATIENCE).await?;
    let (code, events) = clusters.dial("a-after-end").await?;
    let result = result(&events)?;
    ensure!(
        code == 4 && result.text("/outcome") == "unreachable",
        "{}",
        result.line
    );
    // What it withdrew leads nobody to its relay, which would have answered that it holds no reservation.
    ensure!(
        !result.text("/reason").contains(&clusters.relay_b.id),
        "{}",
        result.line
    );
    clusters.verify_range().await?;
    clusters.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_pod_is_found_within_10_s_after_the_relay_of_its_cluster_has_vanished_and_is_back()
-> Result<()> {
    let mut clusters = Clusters::start("discovery-vanished", NatKind::EimApdf).await?;
    // Nobody hears it die: not the pod, and not through the pod's NAT.
    let relay = clusters.relay_b.host.addresses.clone();
    let relay: Vec<_> = relay.into_iter().map(Traffic::With).collect();
    clusters.b.site.cut(&relay).await?;
    clusters.relay_b.process.kill().await?;
    clusters.b.site.mend().await?;
    clusters
        .relay_b
        .restart(&clusters.lab, &clusters.bins)
        .await?;
    let (code, events) = clusters.dial_within("a", "10s").await?;
    ensure!(code == 0, "{}", result(&events)?.line);
    clusters.found(&events)?;
    clusters.verify_range().await?;
    clusters.lab.succeeded();
    Ok(())
}
