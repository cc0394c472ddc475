//! The shipped pods behind the lab's NATs, played by podman.
//!
//! Everything runs in PID and mount namespaces of its own, with catatonit as their first process: when the command ends, however it
//! does, no container and no mount is left.

use std::{
    collections::BTreeSet,
    env, fs,
    ops::RangeInclusive,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use p2pnode_tests::{
    args::PATIENCE,
    host::Host,
    k8s::{
        IMAGE_USER,
        pod::Probe,
        podman::{self, Answer, Node, Podman},
    },
    lab::Lab,
    nat::NatKind,
    peer::{Peer, sockets},
    sandbox::{self, tool},
    services,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{bench::Bench, database, operator::RelayKey};
use crate::{
    cargo,
    image::{self, Engine, ImageArgs},
    tools,
};

/// What podman and its network plugins keep outside of the directories that they are given. Each is an empty one of this command.
const RUNTIME_DIRECTORIES: [&str; 3] = ["/run", "/dev/shm", "/var/lib/cni"];
const PAUSE: Duration = Duration::from_millis(20);
const NET_BIND_SERVICE: u64 = 1 << 10;

/// The part of the range that pod 0 has in the shipped manifests.
const PART: RangeInclusive<u16> = 40000..=40009;

pub(super) fn provide() -> Result<()> {
    ensure!(
        sandbox::is_root(),
        "playing pods needs root, since podman gives each pod a user of its own: run this with sudo, or with --without-pods"
    );
    let missing = [
        sandbox::missing_tools(),
        podman::missing_tools(),
        services::missing_tools(),
    ]
    .concat();
    if !missing.is_empty() {
        tools::install("playing pods", &missing)?;
    }
    Ok(())
}

pub(super) fn run(bench: &Bench, profile: Option<&str>) -> Result<()> {
    let images = Podman::new(bench.directory.join("podman/images"), None)?;
    image::make(
        &Engine::podman(&images.env),
        &ImageArgs::of_manifests(profile),
    )?;
    let mut lab = Command::new(tool("unshare"));
    lab.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--", "catatonit", "--"])
        .arg(env::current_exe().context("path of this executable")?)
        .arg("pods-in-lab")
        .env("P2PNODE_BIN", &bench.bins.p2pnode)
        .env("RELAY_NODE_BIN", &bench.bins.relay_node);
    let status = lab.status().context("unshare")?;
    ensure!(
        status.success(),
        "the pods are not as they should be ({status})"
    );
    Ok(())
}

pub(crate) fn in_lab() -> Result<ExitCode> {
    sandbox::stay_root()?;
    for directory in RUNTIME_DIRECTORIES {
        fs::create_dir_all(directory).with_context(|| directory.to_owned())?;
        let mut mount = Command::new(tool("mount"));
        cargo::run(mount.args(["-t", "tmpfs", "tmpfs", directory]))?;
    }
    let bench = Bench::provide()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        host_network(&bench)
            .await
            .context("pods with their nodes' networks")?;
        pod_network(&bench)
            .await
            .context("pods with networks of their own")?;
        life(&bench).await.context("the life of a pod")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Pods of the chart and of the kustomization behind two NATs, of which one lets out the range alone. Identities and join tokens come
/// from Secrets.
async fn host_network(bench: &Bench) -> Result<()> {
    println!("pods with their nodes' networks");
    let scene = Scene::new(bench, "pods-host-network").await?;
    let key = &scene.key;
    let chart = bench.relay_chart(key, &["network=hostNetwork", "tokens.enabled=true"])?;
    let relay = scene.pod(&scene.relay, &chart, &[&key.secret]).await?;
    relay.ready().await?;
    relay.confined(NET_BIND_SERVICE).await?;

    // A pod without a token is not ready, and says so: this relay asks for one.
    let host = scene.lab.public_host("stranger").await?;
    let chart = bench.node_chart(key, &["network=host"])?;
    let stranger = scene.pod(&host, &chart, &[]).await?;
    stranger.0.start().await?;
    let refused = |answer: &Answer| !answer.yes && answer.text.contains("no token");
    stranger.until(&stranger.0.pod.readiness, refused).await?;

    let a = Peer::new(&scene.lab, "a", NatKind::RangeFirewall).await?;
    let b = Peer::new(&scene.lab, "b", NatKind::EimApdfRewrite).await?;
    let a_identity = bench.identities(&["p2pnode-0", "p2pnode-1"])?;
    let b_identity = bench.identities(&["p2pnode-0"])?;
    let ids = [a_identity.ids[0].clone(), b_identity.ids[0].clone()];
    let join = bench.join_secret(key, &ids, scene.lab.artifacts().dir())?;
    let values = [
        "network=host",
        "probes=exec",
        "identity.from=secret",
        "identity.secretName=p2pnode-identity",
        "join.secretName=p2pnode-join",
    ];
    let components = [
        "p2pnode/components/identity-secret",
        "p2pnode/components/join-token",
    ];
    let (overlay, config) = ("p2pnode/overlays/host-network", "p2pnode/base/p2pnode.yaml");
    let chart = bench.node_chart(key, &values)?;
    let kustomized = bench.kustomized(key, overlay, &components, config)?;
    let a_pod = scene
        .pod(&a.host, &chart, &[&a_identity.secret, &join])
        .await?;
    let b_pod = scene
        .pod(&b.host, &kustomized, &[&b_identity.secret, &join])
        .await?;
    direct((&a, &a_pod), (&b, &b_pod)).await?;
    // The dial was that of the pod's own node.
    ensure!(
        ids == [a_pod.id().await?, b_pod.id().await?],
        "not the identities of the Secret"
    );
    scene.over([relay, stranger, a_pod, b_pod]).await
}

/// The node of a pod translates, and then the NAT in front of it does. The relay's 443 is a port of its node.
async fn pod_network(bench: &Bench) -> Result<()> {
    println!("pods with networks of their own");
    let scene = Scene::new(bench, "pods-pod-network").await?;
    let (overlay, config) = (
        "relay-node/overlays/host-port",
        "relay-node/base/relay-node.yaml",
    );
    let kustomized = bench.kustomized(&scene.key, overlay, &[], config)?;
    let relay = scene
        .pod(&scene.relay, &kustomized, &[&scene.key.secret])
        .await?;
    relay.ready().await?;
    relay.confined(0).await?;
    let a = Peer::new(&scene.lab, "a", NatKind::RangeFirewall).await?;
    let b = Peer::new(&scene.lab, "b", NatKind::RangeFirewall).await?;
    // B's cluster has a database, and A's has a forward to it.
    let identity = bench.identities(&["p2pnode-0"])?;
    let target = format!("services.db.target=tcp://{}:5432", b.host.ip(false)?);
    let values = [
        "network=pod",
        "services.db.allow=any",
        &target,
        "identity.from=secret",
        "identity.secretName=p2pnode-identity",
    ];
    let chart = bench.node_chart(&scene.key, &values)?;
    let b_pod = scene.pod(&b.host, &chart, &[&identity.secret]).await?;
    let west = format!("config.peers.west.id={}", identity.ids[0]);
    let values = [
        "network=pod",
        "forwards[0].name=db",
        "forwards[0].namespace=west",
        "forwards[0].port=5432",
        "forwards[0].to={db@west}",
        &west,
    ];
    let chart = bench.node_chart(&scene.key, &values)?;
    let a_pod = scene.pod(&a.host, &chart, &[]).await?;
    direct((&a, &a_pod), (&b, &b_pod)).await?;
    database::queried(&a.host, &a_pod.ip().await?, &b.host).await?;
    for peer in [&a, &b] {
        ensure_only_from_part(peer).await?;
    }
    scene.over([relay, a_pod, b_pod]).await
}

/// Not ready without a relay, ready with one, alive all the while, ended in time; and the same again with the same key and port.
async fn life(bench: &Bench) -> Result<()> {
    println!("the life of a pod");
    let scene = Scene::new(bench, "pods-life").await?;
    let overlay = "relay-node/overlays/host-network";
    let config = "relay-node/overlays/host-network/relay-node.yaml";
    let kustomized = bench.kustomized(&scene.key, overlay, &[], config)?;
    let relay = scene
        .pod(&scene.relay, &kustomized, &[&scene.key.secret])
        .await?;
    let a = Peer::new(&scene.lab, "a", NatKind::RangeFirewall).await?;
    let chart = bench.node_chart(&scene.key, &["network=host"])?;
    let pod = scene.pod(&a.host, &chart, &[]).await?;
    pod.0.start().await?;
    pod.until(&pod.0.pod.liveness, |answer| answer.yes).await?;
    for _ in 0..2 {
        let without = |answer: &Answer| !answer.yes && answer.text.contains("reservation");
        let answer = pod.until(&pod.0.pod.readiness, without).await?;
        println!("  without a relay: {}", answer.text.trim());
        relay.ready().await?;
        pod.until(&pod.0.pod.readiness, |answer| answer.yes).await?;
        let drain = Instant::now();
        relay.0.stop().await?;
        println!(
            "  the relay has drained in {:.1?} of {} s",
            drain.elapsed(),
            relay.0.pod.grace
        );
        ensure!(
            pod.0.ask(&pod.0.pod.liveness).await?.yes,
            "not alive without the relay"
        );
    }
    relay.ready().await?;
    pod.until(&pod.0.pod.readiness, |answer| answer.yes).await?;
    let before = (pod.id().await?, pod.status().await?["punch_ports"].clone());
    pod.0.stop().await?;
    // Another pod of the same name, with the volume of its claim.
    pod.0.renew().await?;
    pod.ready().await?;
    let after = (pod.id().await?, pod.status().await?["punch_ports"].clone());
    ensure!(
        before == after,
        "{before:?} before the restart, {after:?} after it"
    );
    // On the wire too: every datagram left from that port.
    a.settle().await?;
    let sent = a.home.sent_by(&a.host.addresses);
    let datagrams = sent.iter().filter(|packet| packet.protocol.name() == "udp");
    let ports: BTreeSet<_> = datagrams
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
    scene.over([relay, pod]).await
}

/// A dial from one pod to the other ends direct, and every packet of both left from their part of the range.
async fn direct((a, a_pod): (&Peer, &Pod), (b, b_pod): (&Peer, &Pod)) -> Result<()> {
    for pod in [a_pod, b_pod] {
        pod.ready().await?;
        pod.confined(0).await?;
    }
    let peer = b_pod.id().await?;
    let (code, text) = a_pod
        .0
        .exec(&["p2pnode", "dial", &peer, "--json", "--count", "3"])
        .await?;
    let mut events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let result = events.find(|event| event["event"] == "result");
    let result = result.filter(|result| code == Some(0) && result["outcome"] == "direct");
    let result = result.with_context(|| format!("the dial ended with {code:?}: {text}"))?;
    // B knows the dialer by the identity of A's pod.
    let (status, dialer) = (b_pod.status().await?, a_pod.id().await?);
    let mut peers = status["peers"].as_array().into_iter().flatten();
    let seen = peers.find(|entry| entry["peer"] == dialer && entry["path"]["kind"] == "direct");
    let seen = seen.with_context(|| format!("no direct path to {dialer}: {status}"))?;
    for (peer, result) in [(a, &result), (b, seen)] {
        let (sent, hop) = (
            only_from_part(peer, result).await?,
            &result["path"]["hops"][0],
        );
        println!(
            "  {}: {sent} packets, all from {PART:?}; direct: {hop}",
            peer.site.kind
        );
    }
    Ok(())
}

async fn ensure_only_from_part(peer: &Peer) -> Result<()> {
    peer.settle().await?;
    let strays = peer.home.strays(&peer.host, &PART);
    ensure!(strays.is_empty(), "from outside {PART:?}: {strays:?}");
    Ok(())
}

/// Every packet of the peer's node left from a port of its part, among them some of the path in `result`.
async fn only_from_part(peer: &Peer, result: &Value) -> Result<usize> {
    ensure_only_from_part(peer).await?;
    let (local, remote) = sockets(&result["path"])?;
    let sent = peer.home.sent_by(&peer.host.addresses);
    let of_path = sent.iter().filter(|packet| packet.destination == remote);
    ensure!(
        of_path
            .map(|packet| packet.source.port())
            .any(|port| port == local.port()),
        "no packet went from port {} to {remote}, as the dial says",
        local.port()
    );
    Ok(sent.len())
}

struct Scene<'a> {
    bench: &'a Bench,
    name: &'static str,
    lab: Lab,
    relay: Host,
    key: RelayKey,
}

impl<'a> Scene<'a> {
    async fn new(bench: &'a Bench, name: &'static str) -> Result<Self> {
        let lab = Lab::new(name).await?;
        let relay = lab.public_host("relay").await?;
        let key = bench.relay_key(relay.ip(false)?, lab.artifacts().dir())?;
        Ok(Self {
            bench,
            name,
            lab,
            relay,
            key,
        })
    }

    async fn pod(&self, host: &Host, manifests: &[Value], secrets: &[&Value]) -> Result<Pod> {
        let all = self.bench.directory.join("podman");
        let own = all.join(format!("{}-{}", self.name, host.device.name()));
        let podman = Podman::new(own, Some(&all.join("images")))?;
        Node::new(host.clone(), podman, manifests, secrets)
            .await
            .map(Pod)
    }

    async fn over(self, pods: impl IntoIterator<Item = Pod>) -> Result<()> {
        for pod in pods {
            pod.0.stop().await?;
        }
        self.lab.succeeded();
        Ok(())
    }
}

struct Pod(Node);

impl Pod {
    async fn ready(&self) -> Result<()> {
        self.0.start().await?;
        self.until(&self.0.pod.readiness, |answer| answer.yes)
            .await
            .map(drop)
    }

    async fn until(&self, probe: &Probe, look: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.0.ask(probe).await?;
            if look(&answer) {
                return Ok(answer);
            }
            if Instant::now() > until {
                let (name, log) = (&self.0.pod.name, self.0.log().await?);
                bail!("{name}: {probe:?} is still {answer:?}; its log: {log}");
            }
            sleep(PAUSE).await;
        }
    }

    /// Its address in the pod network.
    async fn ip(&self) -> Result<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        Ok(self.0.inspect(format).await?.trim().to_owned())
    }

    async fn id(&self) -> Result<String> {
        let (code, text) = self.0.exec(&["p2pnode", "id"]).await?;
        ensure!(code == Some(0), "p2pnode id: {code:?}: {text}");
        Ok(text.trim().to_owned())
    }

    async fn status(&self) -> Result<Value> {
        let (_, text) = self.0.exec(&["p2pnode", "status", "--json"]).await?;
        serde_json::from_str(&text).context(text)
    }

    /// The pod's process is that of an ordinary user that can gain nothing, has these capabilities and no file to write but in its
    /// volumes.
    async fn confined(&self, capabilities: u64) -> Result<()> {
        let (name, pid) = (&self.0.pod.name, self.0.inspect("{{.State.Pid}}").await?);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let user = vec![IMAGE_USER.to_string(); 4].join("\t");
        let held = format!("{capabilities:016x}");
        for (key, value) in [
            ("Uid", user.as_str()),
            ("Gid", &user),
            ("CapEff", &held),
            ("CapPrm", &held),
            ("CapBnd", &held),
            ("NoNewPrivs", "1"),
            // A filter.
            ("Seccomp", "2"),
        ] {
            let line = format!("{key}:\t{value}");
            ensure!(
                status.lines().any(|told| told == line),
                "{name}: no {line:?} in {status}"
            );
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        // The place is the fifth word, and the options of the mount are the sixth.
        let mut words = mounts
            .lines()
            .map(|line| line.split(' ').skip(4).take(2).collect::<Vec<_>>());
        let root = words
            .find(|words| words[0] == "/")
            .with_context(|| mounts.clone())?;
        ensure!(
            root[1].split(',').any(|option| option == "ro"),
            "{name}: its root is {root:?}"
        );
        Ok(())
    }
}
