//! What the scenes share: nodes of clusters, pods on them, and what can be seen of them from outside.

use std::{
    fs,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use p2pnode_tests::{
    args::{PATIENCE, strays},
    k8s::{
        IMAGE_USER,
        kubelet::{Answer, Node},
        play::{Played, Probe},
        podman::Podman,
    },
    lab::{Host, Lab},
    pair::Peer,
};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{directory, images};
use crate::k8s::Bench;

/// Between two looks at what changes without saying so.
const PAUSE: Duration = Duration::from_millis(20);

/// `NET_BIND_SERVICE` as a set of capabilities.
pub(super) const NET_BIND_SERVICE: u64 = 1 << 10;

/// A node with one pod on it.
pub(super) struct Stage {
    pub(super) node: Arc<Node>,
    pub(super) pod: Arc<Played>,
}

impl Stage {
    /// A node on `host` and pod 0 of `manifests`, which is made with its Secrets but not started.
    pub(super) async fn set(
        bench: &Bench,
        lab: &Lab,
        host: &Host,
        manifests: &[Value],
        secrets: &[&Value],
    ) -> Result<Self> {
        let name = format!("{}-{}", lab_name(lab), host.device.name());
        let podman = Podman::new(directory(bench).join(name), Some(images(bench).as_ref()))?;
        let node = Node::new(host.clone(), podman)?;
        let pod = Played::of(manifests, 0, &node.secrets())?;
        for secret in secrets {
            node.write_secret(&pod, secret)?;
        }
        node.create(&pod).await?;
        Ok(Self {
            node: Arc::new(node),
            pod: Arc::new(pod),
        })
    }

    /// Starts the pod and waits until it is ready.
    pub(super) async fn ready(&self) -> Result<()> {
        self.node.start(&self.pod).await?;
        self.until_ready(true).await.map(drop)
    }

    /// Waits until the readiness probe is answered so.
    pub(super) async fn until_ready(&self, yes: bool) -> Result<Answer> {
        let what = if yes {
            "to be ready"
        } else {
            "not to be ready"
        };
        self.until(&self.pod.readiness, what, |answer| answer.yes == yes)
            .await
    }

    /// Waits until a probe is answered as `look` wants it; with the pod's log if it is not.
    pub(super) async fn until(
        &self,
        probe: &Probe,
        what: &str,
        look: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.node.ask(&self.pod, probe).await?;
            if look(&answer) {
                return Ok(answer);
            }
            if Instant::now() > until {
                let log = self.node.log(&self.pod).await?;
                bail!(
                    "{}: waited for {what}, and is {answer:?}; its log: {log}",
                    self.pod.name
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Runs a command of the image in the pod; its exit code and what it printed.
    pub(super) async fn exec(&self, command: &[&str]) -> Result<(Option<i32>, String)> {
        let output = self.node.exec(&self.pod, command).await?;
        let told = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&told).into_owned(),
        ))
    }

    /// What `p2pnode status --json` says in the pod.
    pub(super) async fn status(&self) -> Result<Value> {
        let (_, told) = self.exec(&["p2pnode", "status", "--json"]).await?;
        serde_json::from_str(&told).context(told)
    }

    /// `p2pnode dial` in the pod, which has to end direct; its result.
    pub(super) async fn dial(&self, peer: &str) -> Result<Value> {
        let command = ["p2pnode", "dial", peer, "--json", "--count", "3"];
        let (code, told) = self.exec(&command).await?;
        let events = told
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let result = events.into_iter().find(|event| event["event"] == "result");
        let result = result.filter(|result| code == Some(0) && result["outcome"] == "direct");
        result.with_context(|| format!("the dial ended with {code:?}: {told}"))
    }

    /// Asks the pod to end, and its container has to end by itself with exit code 0.
    pub(super) async fn stops(&self) -> Result<()> {
        let code = self.node.stop(&self.pod).await?;
        if code != 0 {
            let log = self.node.log(&self.pod).await?;
            bail!("{} ended with {code}; its log: {log}", self.pod.name);
        }
        Ok(())
    }

    /// The pod's process is that of an ordinary user that can gain nothing, has these capabilities and no file to write but in its
    /// volumes.
    pub(super) async fn confined(&self, capabilities: u64) -> Result<()> {
        let pid = self.node.inspect(&self.pod, "{{.State.Pid}}").await?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let user = format!("{IMAGE_USER}\t{IMAGE_USER}\t{IMAGE_USER}\t{IMAGE_USER}");
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
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let told = line.map(|rest| rest.trim_start_matches(':').trim());
            ensure!(
                told == Some(value),
                "{}: {key} is {told:?}, not {value}",
                self.pod.name
            );
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        // The place is the fifth word, and the options of the mount are the sixth.
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words.get(4) == Some(&"/"));
        let options = root.as_ref().and_then(|words| words.get(5));
        ensure!(
            options.is_some_and(|options| options.split(',').any(|option| option == "ro")),
            "{}: the root file system is mounted {options:?}",
            self.pod.name
        );
        Ok(())
    }
}

/// The last part of the directory of its artifacts.
fn lab_name(lab: &Lab) -> String {
    let name = lab.artifacts().dir().file_name().unwrap_or_default();
    name.display().to_string()
}

/// Every packet of the peer's node left from a port of `range`, among them some of the path that the result of a dial names.
pub(super) async fn only_from(
    peer: &Peer,
    range: &RangeInclusive<u16>,
    result: &Value,
) -> Result<usize> {
    peer.settle().await?;
    let strays = strays(peer.home(), &peer.host, range);
    ensure!(strays.is_empty(), "from outside {range:?}: {strays:?}");
    let hop = &result["path"]["hops"][0];
    let socket = |end: &str| -> Result<std::net::SocketAddr> {
        let text = hop[end].as_str().unwrap_or("unknown");
        text.parse().with_context(|| format!("{end}: {hop}"))
    };
    let (local, remote) = (socket("local")?, socket("remote")?);
    let sent = peer.home().sent_by(&peer.host.addresses);
    ensure!(
        sent.iter()
            .any(|packet| packet.source.port() == local.port() && packet.destination == remote),
        "no packet went from port {} to {remote}, as the dial says",
        local.port()
    );
    Ok(sent.len())
}

/// Asks a liveness probe all the while.
pub(super) struct Vigil {
    asked: Arc<AtomicUsize>,
    task: JoinHandle<Result<()>>,
}

impl Vigil {
    pub(super) fn over(stage: &Stage) -> Self {
        let (node, pod) = (Arc::clone(&stage.node), Arc::clone(&stage.pod));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let probe: Probe = pod.liveness.clone();
            loop {
                let answer = node.ask(&pod, &probe).await?;
                ensure!(answer.yes, "{}: not alive: {}", pod.name, answer.told);
                count.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
        });
        Self { asked, task }
    }

    /// How often it has been answered, each time with a yes.
    pub(super) async fn ends(self) -> Result<usize> {
        self.task.abort();
        match self.task.await {
            Ok(failed) => failed?,
            Err(ended) => ensure!(ended.is_cancelled(), "the vigil has ended: {ended}"),
        }
        let asked = self.asked.load(Ordering::Relaxed);
        ensure!(asked > 0, "the liveness probe was never asked");
        Ok(asked)
    }
}
