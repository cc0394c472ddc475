//! The node of a cluster: a host of the lab with a podman of its own, which does what a kubelet does.
//!
//! podman runs as root and keeps everything below one directory, so that nothing of it meets the podman of whoever runs the test. The
//! network of the node is the one in which podman is started: a pod with `hostNetwork` has it, and for any other podman makes a bridge
//! and a masquerade in it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::IpAddr,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::pod::{PodRun, Probe};
use crate::{admin, host::Host, sandbox};

const PATIENCE: Duration = Duration::from_secs(60);

/// What podman needs beside itself, with the Debian package that has it. Of the runtimes one suffices.
const TOOLS: [(&str, &str); 4] = [
    ("podman", "podman"),
    // What every pod begins with.
    ("catatonit", "catatonit"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];
/// runc first: crun refuses hosts with both versions of cgroups.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

pub fn missing_tools() -> Vec<(&'static str, &'static str)> {
    let mut missing = TOOLS.to_vec();
    missing.retain(|(tool, _)| !sandbox::has_tool(tool));
    if runtime().is_none() {
        missing.push(("runc", "runc"));
    }
    missing
}

fn runtime() -> Option<&'static str> {
    RUNTIMES
        .into_iter()
        .find(|runtime| sandbox::has_tool(runtime))
}

#[derive(Clone, Debug)]
pub struct Podman {
    directory: PathBuf,
    pub env: Vec<(&'static str, PathBuf)>,
}

impl Podman {
    /// In `directory`, which is emptied. Images are also taken from that of another podman.
    pub fn new(directory: PathBuf, images: Option<&Path>) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let at = |name: &str| format!("{:?}", directory.join(name).display().to_string());
        let runtime = runtime().context("neither crun nor runc is installed")?;
        let limits = limits()?;
        let (network, log) = (at("net"), "k8s-file");
        // Without systemd, and without the right to raise limits.
        let containers = format!(
            "[containers]\ndefault_ulimits = [{limits}]\nlog_driver = \"{log}\"\n\
             [engine]\nruntime = \"{runtime}\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             static_dir = {}\ntmp_dir = {}\nvolume_path = {}\n\
             [network]\nnetwork_config_dir = {network}\n",
            at("static"),
            at("tmp"),
            at("volumes"),
        );
        let mut storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {}\nrunroot = {}\n",
            at("root"),
            at("run")
        );
        if let Some(images) = images {
            let store = images.join("root").display().to_string();
            writeln!(
                storage,
                "[storage.options]\nadditionalimagestores = [{store:?}]"
            )?;
        }
        let files = [
            ("CONTAINERS_CONF", "containers.conf", containers),
            ("CONTAINERS_STORAGE_CONF", "storage.conf", storage),
        ];
        let mut env = Vec::new();
        for (variable, name, content) in files {
            let file = directory.join(name);
            fs::write(&file, content).with_context(|| file.display().to_string())?;
            env.push((variable, file));
        }
        Ok(Self { directory, env })
    }
}

/// Limits of containers: podman asks for more than a process may have that cannot raise its own.
fn limits() -> Result<String> {
    let limits = [
        ("nofile", Resource::RLIMIT_NOFILE, 1_048_576),
        ("nproc", Resource::RLIMIT_NPROC, 4_194_304),
    ];
    let mut told = Vec::new();
    for (name, resource, most) in limits {
        let (_, hard) = getrlimit(resource).with_context(|| name.to_owned())?;
        let hard = hard.min(most);
        told.push(format!("\"{name}={hard}:{hard}\""));
    }
    Ok(told.join(", "))
}

/// A node of a cluster with one pod.
pub struct Node {
    host: Host,
    podman: Podman,
    // Its network, for as long as this is open.
    network: File,
    pub pod: PodRun,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub yes: bool,
    pub text: String,
}

impl Node {
    pub async fn new(
        host: Host,
        podman: Podman,
        manifests: &[Value],
        secrets: &[&Value],
    ) -> Result<Self> {
        let open = || File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net");
        let network = host.device.run_sync(open)?;
        let pod = PodRun::of(manifests, secrets, &podman.directory.join("files"))?;
        let node = Self {
            host,
            podman,
            network,
            pod,
        };
        node.create().await?;
        Ok(node)
    }

    async fn podman(&self, args: &[&str]) -> Result<Output> {
        let network = format!(
            "--net=/proc/{}/fd/{}",
            std::process::id(),
            self.network.as_raw_fd()
        );
        let mut command = Command::new(sandbox::tool("nsenter"));
        command
            .args([&network, "--", "podman"])
            .args(args)
            .envs(self.podman.env.iter().map(|(name, file)| (name, file)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let shown = format!("podman {}", args.join(" "));
        timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("`{shown}` did not end within {PATIENCE:?}"))?
            .with_context(|| format!("`{shown}` cannot be started"))
    }

    async fn done(&self, args: &[&str]) -> Result<String> {
        let output = self.podman(args).await?;
        ensure!(
            output.status.success(),
            "`podman {}` failed ({}): {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    async fn create(&self) -> Result<()> {
        let args: Vec<_> = self.pod.args.iter().map(String::as_str).collect();
        self.done(&[&["create"], args.as_slice()].concat())
            .await
            .map(drop)
    }

    pub async fn start(&self) -> Result<()> {
        self.done(&["start", &self.pod.name]).await.map(drop)
    }

    /// Asks it to end; it has to end by itself within its grace period, with exit code 0.
    pub async fn stop(&self) -> Result<()> {
        let name = &self.pod.name;
        self.done(&["stop", "--time", &self.pod.grace.to_string(), name])
            .await?;
        let code = self.inspect("{{.State.ExitCode}}").await?;
        ensure!(
            code == "0",
            "{name} ended with {code}; its log: {}",
            self.log().await?
        );
        Ok(())
    }

    /// Puts another pod of the same name in its place, with the volumes of its claims.
    pub async fn renew(&self) -> Result<()> {
        self.done(&["rm", &self.pod.name]).await?;
        self.create().await
    }

    pub async fn inspect(&self, format: &str) -> Result<String> {
        self.done(&["container", "inspect", "--format", format, &self.pod.name])
            .await
    }

    pub async fn exec(&self, command: &[&str]) -> Result<(Option<i32>, String)> {
        let output = self
            .podman(&[&["exec", &self.pod.name], command].concat())
            .await?;
        Ok((output.status.code(), printed(&output)))
    }

    pub async fn log(&self) -> Result<String> {
        Ok(printed(&self.podman(&["logs", &self.pod.name]).await?))
    }

    /// Asks as the kubelet does: over HTTP from the node, or with a command in the container. No answer is a no.
    pub async fn ask(&self, probe: &Probe) -> Result<Answer> {
        Ok(match probe {
            Probe::Exec(command) => {
                let words: Vec<_> = command.iter().map(String::as_str).collect();
                let (code, text) = self.exec(&words).await?;
                let yes = code == Some(0);
                Answer { yes, text }
            }
            Probe::Http(port, path) => {
                let at = (self.address().await?, *port);
                match admin::get_at(&self.host, at.into(), path).await {
                    Ok(answer) => Answer {
                        yes: (200..400).contains(&answer.status),
                        text: answer.body,
                    },
                    Err(error) => Answer {
                        yes: false,
                        text: format!("{error:#}"),
                    },
                }
            }
        })
    }

    async fn address(&self) -> Result<IpAddr> {
        if self.pod.host_network {
            return self.host.ip(false);
        }
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.inspect(format).await?;
        address
            .parse()
            .with_context(|| format!("{} has the address {address:?}", self.pod.name))
    }
}

fn printed(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr];
    texts
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .concat()
}
