//! A pod of the manifests as `podman run` takes it.
//!
//! Each property of the template that podman knows becomes its flag, and each volume a directory or a volume of podman's. Probes are
//! not among them, as podman would need a shell in the image: the test that runs the pod asks them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    container::{Container, expand, pods},
    find, list, named, secret_files, text,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP request to the pod's address, this port and path; the status 200 to 399 is a yes.
    Http(u16, String),
    /// A command in the container; the exit code 0 is a yes.
    Exec(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct PodRun {
    pub name: String,
    pub args: Vec<String>,
    pub host_network: bool,
    /// How long it may take to end, in seconds.
    pub grace: u64,
    pub liveness: Probe,
    pub readiness: Probe,
}

impl PodRun {
    /// The first pod of the one StatefulSet or Deployment in `manifests`. Its ConfigMaps and Secrets are written below `directory`,
    /// each file with its mode and the group `fsGroup`, as the kubelet does.
    pub fn of(manifests: &[Value], secrets: &[&Value], directory: &Path) -> Result<Self> {
        let owners = ["StatefulSet", "Deployment"];
        let owned = |manifest: &&Value| owners.contains(&text(manifest, "/kind"));
        let owner = manifests
            .iter()
            .find(owned)
            .context("no StatefulSet and no Deployment")?;
        let all = pods(owner);
        let pod = all.first().context("no pod")?;
        let mut containers = pod.containers();
        let container = containers.next().context("no container")?;
        ensure!(
            containers.next().is_none(),
            "{}: containers beside the one",
            pod.name
        );
        let host_network = pod.has_host_network();
        let mut args = confinement(&container)?;
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--name", pod.name.clone());
        let network = if host_network { "host" } else { "bridge" };
        flag("--network", network.to_owned());
        for port in list(container.spec, "/ports") {
            if let (Some(host), false) = (port["hostPort"].as_u64(), host_network) {
                let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
                flag(
                    "--publish",
                    format!("{host}:{}/{protocol}", port["containerPort"]),
                );
            }
        }
        let environment = container.environment().map_err(anyhow::Error::msg)?;
        for (name, value) in &environment {
            flag("--env", format!("{name}={value}"));
        }
        for mount in list(container.spec, "/volumeMounts") {
            let name = text(mount, "/name");
            let files = |kind: &str, key: &str| {
                named(list(pod.spec, "/volumes"), name)?.pointer(&format!("/{kind}/{key}"))
            };
            let from = if let Some(map) = files("configMap", "name") {
                config_map(manifests, map.as_str().unwrap_or_default(), directory)?
            } else if let Some(secret) = files("secret", "secretName") {
                let mode = files("secret", "defaultMode").and_then(Value::as_u64);
                let group = pod.spec["securityContext"]["fsGroup"].as_u64();
                let found = secrets
                    .iter()
                    .find(|manifest| manifest["metadata"]["name"] == *secret);
                let found = found.with_context(|| format!("there is no Secret {secret}"))?;
                secret_in(found, directory, mode.unwrap_or(0o644), group.unwrap_or(0))?
            } else {
                // A claim's or an emptyDir's: the user's, as a fsGroup makes it.
                flag(
                    "--volume",
                    format!("{}-{name}:{}:U", pod.name, text(mount, "/mountPath")),
                );
                continue;
            };
            let file = expand(text(mount, "/subPathExpr"), &environment);
            let file = file.map_err(|missing| anyhow::anyhow!("subPathExpr: no {missing}"))?;
            let from = format!("{from}/{file}");
            let from = from.trim_end_matches('/');
            flag(
                "--volume",
                format!("{from}:{}:ro", text(mount, "/mountPath")),
            );
        }
        args.push(text(container.spec, "/image").to_owned());
        args.extend(container.args().into_iter().map(str::to_owned));
        let grace = pod.spec["terminationGracePeriodSeconds"].as_u64();
        Ok(Self {
            name: pod.name.clone(),
            args,
            host_network,
            grace: grace.unwrap_or(30),
            liveness: probe(container.spec, "livenessProbe")?,
            readiness: probe(container.spec, "readinessProbe")?,
        })
    }
}

fn confinement(container: &Container<'_>) -> Result<Vec<String>> {
    let (pod, own) = (
        &container.pod.spec["securityContext"],
        &container.spec["securityContext"],
    );
    let user = pod["runAsUser"].as_u64().context("no runAsUser")?;
    let mut flags = vec![format!("--user={user}:{user}")];
    if own["readOnlyRootFilesystem"] == true {
        flags.extend(["--read-only", "--read-only-tmpfs=false"].map(str::to_owned));
    }
    if own["allowPrivilegeEscalation"] == false {
        flags.push("--security-opt=no-new-privileges".to_owned());
    }
    for change in ["drop", "add"] {
        let capabilities = list(own, &format!("/capabilities/{change}")).iter();
        let names = capabilities.filter_map(Value::as_str);
        flags.extend(names.map(|name| format!("--cap-{change}={name}")));
    }
    Ok(flags)
}

fn config_map(manifests: &[Value], name: &str, directory: &Path) -> Result<String> {
    let map = find(manifests, "ConfigMap", name).with_context(|| format!("no ConfigMap {name}"))?;
    let directory = directory.join(name);
    fs::create_dir_all(&directory)?;
    for (file, content) in map["data"].as_object().into_iter().flatten() {
        fs::write(directory.join(file), content.as_str().unwrap_or_default())?;
    }
    Ok(directory.display().to_string())
}

fn secret_in(manifest: &Value, directory: &Path, mode: u64, group: u64) -> Result<String> {
    let directory = directory.join(text(manifest, "/metadata/name"));
    fs::create_dir_all(&directory)?;
    let (mode, group) = (u32::try_from(mode)?, u32::try_from(group)?);
    for (file, content) in secret_files(manifest)? {
        let path = directory.join(file);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        chown(&path, Some(0), Some(group))?;
        // The group that the pod has is given what the owner may read.
        fs::set_permissions(&path, Permissions::from_mode(mode | (mode >> 3 & 0o040)))?;
    }
    Ok(directory.display().to_string())
}

fn probe(container: &Value, kind: &str) -> Result<Probe> {
    let probe = &container[kind];
    let command = list(probe, "/exec/command");
    if !command.is_empty() {
        let words = command.iter().filter_map(Value::as_str);
        return Ok(Probe::Exec(words.map(str::to_owned).collect()));
    }
    let name = text(probe, "/httpGet/port");
    let port =
        named(list(container, "/ports"), name).and_then(|port| port["containerPort"].as_u64());
    let Some(port) = port else {
        bail!("{kind} asks port {name:?}, which has no number");
    };
    Ok(Probe::Http(
        u16::try_from(port)?,
        text(probe, "/httpGet/path").to_owned(),
    ))
}
