//! The node of a cluster: a host of the lab, on which podman and this module do what a kubelet does.

use std::{
    fs::{self, File, Permissions},
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::{
    play::{Played, Probe},
    podman::Podman,
};
use crate::{admin, lab::Host, sandbox::tool};

/// For what podman does in a second; it bounds a broken one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node of a cluster: a host of the lab with a podman of its own.
#[derive(Debug)]
pub struct Node {
    /// The machine.
    pub host: Host,
    podman: Podman,
    // Its network, for as long as this is open.
    network: File,
}

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is a yes.
    pub yes: bool,
    /// What was told.
    pub told: String,
}

impl Node {
    /// `podman` plays pods on `host`.
    ///
    /// # Errors
    ///
    /// When the host's network cannot be opened.
    pub fn new(host: Host, podman: Podman) -> Result<Self> {
        let network = host.device.run_sync(|| {
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        })?;
        Ok(Self {
            host,
            podman,
            network,
        })
    }

    /// Runs podman on the node to its end.
    async fn podman(&self, args: &[&str]) -> Result<Output> {
        let network = format!(
            "--net=/proc/{}/fd/{}",
            std::process::id(),
            self.network.as_raw_fd()
        );
        let mut command = Command::new(tool("nsenter"));
        command
            .args([&network, "--", "podman"])
            .args(args)
            .envs(self.podman.env().iter().map(|(name, file)| (name, file)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let shown = format!("podman {}", args.join(" "));
        timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("`{shown}` did not end within {PATIENCE:?}"))?
            .with_context(|| format!("`{shown}` cannot be started"))
    }

    /// The same, to a good end; what it printed.
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

    /// Where the node keeps Secrets.
    #[must_use]
    pub fn secrets(&self) -> String {
        self.podman
            .directory()
            .join("secrets")
            .display()
            .to_string()
    }

    /// Writes the files of a Secret as the kubelet does for a pod with an `fsGroup`.
    ///
    /// # Errors
    ///
    /// When `manifest` is not the Secret, or a file cannot be written.
    pub fn write_secret(&self, pod: &Played, manifest: &Value) -> Result<()> {
        let name = super::text(manifest, "/metadata/name");
        let wanted = pod.secrets.iter().find(|secret| secret.name == name);
        let wanted = wanted.with_context(|| format!("{} mounts no Secret {name}", pod.name))?;
        let directory = Path::new(&wanted.directory);
        fs::create_dir_all(directory)?;
        for (file, content) in super::secret_files(manifest)? {
            let path = directory.join(file);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
            chown(&path, Some(0), Some(wanted.group))?;
            // The group that the pod has is given what the owner may read.
            let mode = wanted.mode | (wanted.mode >> 3 & 0o040);
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Makes the pod and its volumes; it is not started yet.
    ///
    /// # Errors
    ///
    /// With what podman says.
    pub async fn create(&self, pod: &Played) -> Result<()> {
        for claim in &pod.claims {
            let name = super::text(claim, "/metadata/name");
            if !self
                .podman(&["volume", "exists", name])
                .await?
                .status
                .success()
            {
                self.play(&pod.name, &claim.to_string(), &[]).await?;
            }
        }
        let network = if pod.host_network {
            &[][..]
        } else {
            &["--network", "bridge"]
        };
        self.play(
            &pod.name,
            &pod.documents(),
            &[&["--start=false"], network].concat(),
        )
        .await
    }

    async fn play(&self, name: &str, documents: &str, flags: &[&str]) -> Result<()> {
        let file = self.podman.directory().join(format!("{name}.yaml"));
        fs::write(&file, documents).with_context(|| file.display().to_string())?;
        let file = file.display().to_string();
        self.done(&[&["kube", "play"], flags, &[&file]].concat())
            .await
            .map(drop)
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// With what podman says.
    pub async fn start(&self, pod: &Played) -> Result<()> {
        self.done(&["pod", "start", &pod.name]).await.map(drop)
    }

    /// Asks it to end, waits as long as it may take, and returns the exit code of its container: 137 if it had to be killed.
    ///
    /// # Errors
    ///
    /// With what podman says.
    pub async fn stop(&self, pod: &Played) -> Result<i32> {
        let grace = pod.grace.to_string();
        self.done(&["pod", "stop", "--time", &grace, &pod.name])
            .await?;
        let code = self.inspect(pod, "{{.State.ExitCode}}").await?;
        code.parse()
            .with_context(|| format!("the exit code {code:?}"))
    }

    /// Removes it with the volumes that are its own; those of its claims stay.
    ///
    /// # Errors
    ///
    /// With what podman says.
    pub async fn delete(&self, pod: &Played) -> Result<()> {
        self.done(&["pod", "rm", "--force", "--time", "0", &pod.name])
            .await?;
        let maps = pod.config_maps.iter();
        let maps = maps.map(|map| super::text(map, "/metadata/name"));
        for volume in pod.own_volumes.iter().map(String::as_str).chain(maps) {
            self.done(&["volume", "rm", "--force", volume]).await?;
        }
        Ok(())
    }

    /// podman's name of the pod's container.
    #[must_use]
    pub fn container(pod: &Played) -> String {
        format!("{}-{}", pod.name, pod.container)
    }

    /// What `podman inspect` says of its container.
    ///
    /// # Errors
    ///
    /// With what podman says.
    pub async fn inspect(&self, pod: &Played, format: &str) -> Result<String> {
        self.done(&[
            "container",
            "inspect",
            "--format",
            format,
            &Self::container(pod),
        ])
        .await
    }

    /// Runs a command in its container, as `kubectl exec POD -- COMMAND` does.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn exec(&self, pod: &Played, command: &[&str]) -> Result<Output> {
        self.podman(&[&["exec", &Self::container(pod)], command].concat())
            .await
    }

    /// What it has written to stdout and stderr.
    ///
    /// # Errors
    ///
    /// When podman cannot be run.
    pub async fn log(&self, pod: &Played) -> Result<String> {
        let output = self.podman(&["logs", &Self::container(pod)]).await?;
        let texts = [output.stdout, output.stderr];
        Ok(texts
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat())
    }

    /// Asks as the kubelet does: over HTTP from the node, or with a command in the container. Nobody who answers is a no.
    ///
    /// # Errors
    ///
    /// When podman cannot be run.
    pub async fn ask(&self, pod: &Played, probe: &Probe) -> Result<Answer> {
        match probe {
            Probe::Exec(command) => {
                let words: Vec<_> = command.iter().map(String::as_str).collect();
                let output = self.exec(pod, &words).await?;
                let told = [output.stdout, output.stderr].concat();
                Ok(Answer {
                    yes: output.status.success(),
                    told: String::from_utf8_lossy(&told).into_owned(),
                })
            }
            Probe::Http { port, path } => {
                let at = (self.address(pod).await?, *port);
                Ok(match admin::get_at(&self.host, at.into(), path).await {
                    Ok(answer) => Answer {
                        yes: (200..400).contains(&answer.status),
                        told: answer.body,
                    },
                    Err(error) => Answer {
                        yes: false,
                        told: format!("{error:#}"),
                    },
                })
            }
        }
    }

    /// The pod's address: with `hostNetwork` the node's.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub async fn address(&self, pod: &Played) -> Result<std::net::IpAddr> {
        if pod.host_network {
            return self.host.ip(false);
        }
        let infra = self
            .done(&[
                "pod",
                "inspect",
                "--format",
                "{{.InfraContainerID}}",
                &pod.name,
            ])
            .await?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self
            .done(&["container", "inspect", "--format", format, &infra])
            .await?;
        address
            .parse()
            .with_context(|| format!("{} has the address {address:?}", pod.name))
    }
}
