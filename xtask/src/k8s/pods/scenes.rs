//! What played pods have to show.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{args::PATIENCE, lab::Lab, nat::NatKind, pair::Peer};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    operator::RelayKey,
    stage::{NET_BIND_SERVICE, Stage, Vigil, only_from},
};
use crate::k8s::Bench;

/// The part of the range that pod 0 has in the shipped manifests.
const PART: std::ops::RangeInclusive<u16> = 40000..=40009;
/// How often a start is timed.
const STARTS: usize = 7;
/// What a start next to the relay is to take at most.
const START_GOAL: Duration = Duration::from_secs(1);

/// Plays all of them, one after the other.
pub(super) async fn play(bench: &Bench) -> Result<()> {
    direct(bench).await.context("pods behind two NATs")?;
    pod_network(bench).await.context("pods in pod networks")?;
    life(bench).await.context("the life of a pod")?;
    without_capability(bench)
        .await
        .context("port 443 without the capability")
}

/// Pods with their nodes' networks, of the chart and of the kustomization, behind two NATs, of which one lets out the range alone.
/// Identities and join tokens come from Secrets.
async fn direct(bench: &Bench) -> Result<()> {
    println!("pods behind two NATs");
    let lab = Lab::new("pods-direct").await?;
    let host = lab.public_host("relay").await?;
    let key = bench.relay_key(host.ip(false)?, lab.artifacts().dir())?;
    let chart = bench.relay_chart(&key, &["network=hostNetwork", "tokens.enabled=true"])?;
    let relay = Stage::set(bench, &lab, &host, &chart, &[&key.secret]).await?;
    relay.ready().await?;
    relay.confined(NET_BIND_SERVICE).await?;
    let external = key.addresses().map(|address| format!("external {address}"));
    let log = relay.node.log(&relay.pod).await?;
    for line in &external {
        ensure!(
            log.lines().any(|told| told == line),
            "no line {line:?}: {log}"
        );
    }
    refused_without_token(bench, &lab, &key).await?;

    let a = Peer::new(&lab, "a", NatKind::RangeFirewall).await?;
    let b = Peer::new(&lab, "b", NatKind::EimApdfRewrite).await?;
    let a_identity = bench.identities(&["p2pnode-0", "p2pnode-1"])?;
    let b_identity = bench.identities(&["p2pnode-0"])?;
    let ids = [a_identity.ids[0].clone(), b_identity.ids[0].clone()];
    let join = bench.join_secret(&key, &ids, lab.artifacts().dir())?;
    let chart = bench.node_chart(
        &key,
        &[
            "network=host",
            "probes=exec",
            "identity.from=secret",
            "identity.secretName=p2pnode-identity",
            "join.secretName=p2pnode-join",
        ],
    )?;
    let kustomized = bench.kustomized(
        &key,
        "p2pnode/overlays/host-network",
        &[
            "p2pnode/components/identity-secret",
            "p2pnode/components/join-token",
        ],
        "p2pnode/base/p2pnode.yaml",
    )?;
    let a_pod = Stage::set(bench, &lab, &a.host, &chart, &[&a_identity.secret, &join]).await?;
    let b_pod = Stage::set(
        bench,
        &lab,
        &b.host,
        &kustomized,
        &[&b_identity.secret, &join],
    )
    .await?;
    for pod in [&a_pod, &b_pod] {
        pod.ready().await?;
        pod.confined(0).await?;
    }
    // What a person sees, and then the same for the test.
    let (code, told) = a_pod
        .exec(&["p2pnode", "dial", &ids[1], "--count", "3"])
        .await?;
    println!("{}", told.trim_end());
    ensure!(
        code == Some(0) && told.contains("\ndirect after "),
        "{code:?}: {told}"
    );
    let result = a_pod.dial(&ids[1]).await?;
    // B knows the dialer by the identity of A's pod: the dial was the pod's own node's.
    let seen = b_pod.status().await?;
    ensure!(
        peers(&seen).any(|peer| peer == ids[0]),
        "B has no peer {}: {seen}",
        ids[0]
    );
    for (name, peer) in [("a", &a), ("b", &b)] {
        let result = if name == "a" {
            &result
        } else {
            &mirrored(&seen, &ids[0])?
        };
        let sent = only_from(peer, &PART, result).await?;
        println!(
            "  {name} ({}): {sent} packets, all from {PART:?}",
            peer.site.kind
        );
    }
    println!("  direct: {}", result["path"]["hops"][0]);
    for stage in [&a_pod, &b_pod, &relay] {
        stage.stops().await?;
        stage.node.delete(&stage.pod).await?;
    }
    lab.succeeded();
    Ok(())
}

/// A pod that has no token is told so by its readiness probe: the relay of the manifest asks for one.
async fn refused_without_token(bench: &Bench, lab: &Lab, key: &RelayKey) -> Result<()> {
    let host = lab.public_host("stranger").await?;
    let chart = bench.node_chart(key, &["network=host"])?;
    let pod = Stage::set(bench, lab, &host, &chart, &[]).await?;
    pod.node.start(&pod.pod).await?;
    pod.until(&pod.pod.readiness, "that a token is missing", |answer| {
        !answer.yes && answer.told.contains("no token")
    })
    .await?;
    pod.stops().await?;
    pod.node.delete(&pod.pod).await
}

/// Pods with networks of their own: the node translates, and then the NAT in front of it does. The relay's 443 is a port of its node.
async fn pod_network(bench: &Bench) -> Result<()> {
    println!("pods in pod networks");
    let lab = Lab::new("pods-pod-network").await?;
    let host = lab.public_host("relay").await?;
    let key = bench.relay_key(host.ip(false)?, lab.artifacts().dir())?;
    let kustomized = bench.kustomized(
        &key,
        "relay-node/overlays/host-port",
        &[],
        "relay-node/base/relay-node.yaml",
    )?;
    let relay = Stage::set(bench, &lab, &host, &kustomized, &[&key.secret]).await?;
    relay.ready().await?;
    relay.confined(0).await?;

    let a = Peer::new(&lab, "a", NatKind::RangeFirewall).await?;
    let b = Peer::new(&lab, "b", NatKind::RangeFirewall).await?;
    let chart = bench.node_chart(&key, &["network=pod"])?;
    let a_pod = Stage::set(bench, &lab, &a.host, &chart, &[]).await?;
    let b_pod = Stage::set(bench, &lab, &b.host, &chart, &[]).await?;
    for pod in [&a_pod, &b_pod] {
        pod.ready().await?;
        pod.confined(0).await?;
    }
    let b_id = b_pod.id().await?;
    let result = a_pod.dial(&b_id).await?;
    let seen = mirrored(&b_pod.status().await?, &a_pod.id().await?)?;
    for (name, peer, result) in [("a", &a, &result), ("b", &b, &seen)] {
        let sent = only_from(peer, &PART, result).await?;
        println!(
            "  {name} ({}): {sent} packets, all from {PART:?}",
            peer.site.kind
        );
    }
    println!("  direct: {}", result["path"]["hops"][0]);
    for stage in [&a_pod, &b_pod, &relay] {
        stage.stops().await?;
        stage.node.delete(&stage.pod).await?;
    }
    lab.succeeded();
    Ok(())
}

/// Not ready without a relay, ready with one, alive all the while, ended in time; and the same again with the same key and port.
async fn life(bench: &Bench) -> Result<()> {
    println!("the life of a pod");
    let lab = Lab::new("pods-life").await?;
    let host = lab.public_host("relay").await?;
    let key = bench.relay_key(host.ip(false)?, lab.artifacts().dir())?;
    let kustomized = bench.kustomized(
        &key,
        "relay-node/overlays/host-network",
        &[],
        "relay-node/overlays/host-network/relay-node.yaml",
    )?;
    let relay = Stage::set(bench, &lab, &host, &kustomized, &[&key.secret]).await?;
    let a = Peer::new(&lab, "a", NatKind::RangeFirewall).await?;
    let chart = bench.node_chart(&key, &["network=host"])?;
    let mut pod = Stage::set(bench, &lab, &a.host, &chart, &[]).await?;

    pod.node.start(&pod.pod).await?;
    pod.until(&pod.pod.liveness, "a sign of life", |answer| answer.yes)
        .await?;
    let vigil = Vigil::over(&pod);
    let answer = pod.until_ready(false).await?;
    println!("  without a relay: {}", answer.told.trim());
    ensure!(answer.told.contains("reservation"), "{answer:?}");
    relay.ready().await?;
    pod.until_ready(true).await?;
    let drain = Instant::now();
    relay.stops().await?;
    println!(
        "  the relay has drained in {:.1?} of {} s",
        drain.elapsed(),
        relay.pod.grace
    );
    let answer = pod.until_ready(false).await?;
    println!("  without the relay: {}", answer.told.trim());
    ensure!(answer.told.contains("reservation"), "{answer:?}");
    relay.ready().await?;
    pod.until_ready(true).await?;
    println!("  alive all the while: {} times", vigil.ends().await?);

    let before = (pod.id().await?, pod.punch_ports().await?);
    let end = Instant::now();
    pod.stops().await?;
    println!(
        "  the node has ended in {:.1?} of {} s",
        end.elapsed(),
        pod.pod.grace
    );
    // Another pod of the same name, with the volume of its claim.
    pod.node.delete(&pod.pod).await?;
    pod.node.create(&pod.pod).await?;
    pod.ready().await?;
    let after = (pod.id().await?, pod.punch_ports().await?);
    ensure!(
        before == after,
        "{before:?} before the restart, {after:?} after it"
    );
    // On the wire too: every datagram left from that port.
    a.settle().await?;
    let datagrams = a.home().sent_by(&a.host.addresses);
    let ports: BTreeSet<_> = datagrams
        .iter()
        .filter(|packet| packet.protocol.name() == "udp")
        .map(|packet| u64::from(packet.source.port()))
        .collect();
    let port = after.1["quic/ip4"].as_u64().context("no punch port")?;
    ensure!(
        ports == BTreeSet::from([port]),
        "datagrams left from {ports:?}, not from {port}"
    );
    println!(
        "  after a restart: {}, datagrams before and after from {port}",
        after.0
    );
    pod.stops().await?;

    starts(&mut pod).await?;
    for stage in [&pod, &relay] {
        stage.stops().await?;
        stage.node.delete(&stage.pod).await?;
    }
    lab.succeeded();
    Ok(())
}

/// Prints how long the pod takes from its start until it is ready, which it is left.
async fn starts(pod: &mut Stage) -> Result<()> {
    let (mut asked, mut ran) = (Vec::new(), Vec::new());
    for start in 0..STARTS {
        if start > 0 {
            pod.stops().await?;
        }
        let before = Instant::now();
        pod.ready().await?;
        asked.push(before.elapsed());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let started = pod.node.inspect(&pod.pod, "{{.State.StartedAt.UnixMilli}}");
        let started: u64 = started.await?.parse().context("the time of the start")?;
        ran.push(now.saturating_sub(Duration::from_millis(started)));
    }
    for (what, mut times) in [
        ("from `podman pod start`", asked),
        ("from the start of the container", ran),
    ] {
        times.sort_unstable();
        let ms: Vec<_> = times
            .iter()
            .map(|time| time.as_millis().to_string())
            .collect();
        println!(
            "  ready {what}: median {} ms of {} (goal {} ms)",
            ms[ms.len() / 2],
            ms.join(" "),
            START_GOAL.as_millis()
        );
    }
    Ok(())
}

/// The relay of the manifest for port 443 of its node, without the capability that the manifest adds.
async fn without_capability(bench: &Bench) -> Result<()> {
    println!("port 443 without the capability");
    let lab = Lab::new("pods-capability").await?;
    let host = lab.public_host("relay").await?;
    let key: RelayKey = bench.relay_key(host.ip(false)?, lab.artifacts().dir())?;
    let mut chart = bench.relay_chart(&key, &["network=hostNetwork"])?;
    let capabilities = chart.iter_mut().find_map(|manifest| {
        manifest.pointer_mut("/spec/template/spec/containers/0/securityContext/capabilities")
    });
    let capabilities = capabilities.context("no capabilities")?;
    let with = capabilities.take();
    ensure!(
        with == json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }),
        "{with}"
    );
    *capabilities = json!({ "drop": ["ALL"] });
    let relay = Stage::set(bench, &lab, &host, &chart, &[&key.secret]).await?;
    relay.node.start(&relay.pod).await?;
    let until = Instant::now() + PATIENCE;
    let told = loop {
        let log = relay.node.log(&relay.pod).await?;
        if let Some(line) = log.lines().find(|line| line.starts_with("error: ")) {
            break line.to_owned();
        }
        ensure!(Instant::now() < until, "the relay says nothing: {log}");
        sleep(Duration::from_millis(50)).await;
    };
    println!("  {told}");
    for part in ["443", "privilege", "NET_BIND_SERVICE"] {
        ensure!(told.contains(part), "{part} is not told: {told}");
    }
    relay.node.delete(&relay.pod).await?;
    lab.succeeded();
    Ok(())
}

impl Stage {
    /// The peer id of its node, as `p2pnode id` says it in the pod.
    async fn id(&self) -> Result<String> {
        let (code, told) = self.exec(&["p2pnode", "id"]).await?;
        ensure!(code == Some(0), "p2pnode id: {code:?}: {told}");
        Ok(told.trim().to_owned())
    }

    async fn punch_ports(&self) -> Result<Value> {
        Ok(self.status().await?["punch_ports"].clone())
    }
}

/// The peers that a status names.
fn peers(status: &Value) -> impl Iterator<Item = &str> {
    let peers = status["peers"].as_array().into_iter().flatten();
    peers.filter_map(|peer| peer["peer"].as_str())
}

/// The path to `peer` in a status, in the form of a dial's result.
fn mirrored(status: &Value, peer: &str) -> Result<Value> {
    let peers = status["peers"].as_array().into_iter().flatten();
    let found = peers.into_iter().find(|entry| entry["peer"] == peer);
    let path = found.map(|entry| entry["path"].clone());
    let path = path.filter(|path| path["kind"] == "direct");
    let path = path.with_context(|| format!("no direct path to {peer}: {status}"))?;
    Ok(json!({ "path": path }))
}
