//! A pod of the manifests as `podman kube play` takes it: what a cluster's controllers make of the template, and the few places
//! in which podman (4.3) cannot do what the kubelet does.
//!
//! Each change is an [`Edit`] with its reason; [`Played::template`] takes them back, so a test can show that there are no others.
//! What podman is relieved of is done by whoever plays the pod, from the same manifests: [`Probe`]s are asked, Secrets are written
//! with their modes, and the grace period is given when it is stopped.

mod edit;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use edit::{Editor, put};

pub use edit::{Edit, why};

use super::{
    container::{Pod, pods},
    find, list, text,
};

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP request to the pod's address; the status 200 to 399 is a yes.
    Http {
        /// The port's number.
        port: u16,
        /// The path.
        path: String,
    },
    /// A command in the container; the exit code 0 is a yes.
    Exec(Vec<String>),
}

/// Files of a Secret that the pod expects on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFiles {
    /// The Secret's name.
    pub name: String,
    /// Permission bits of each file, which belong to root and to the group `fsGroup`.
    pub mode: u32,
    /// `fsGroup`.
    pub group: u32,
    /// The directory on the node.
    pub directory: String,
}

/// A pod for podman.
#[derive(Clone, Debug)]
pub struct Played {
    /// The pod's name.
    pub name: String,
    /// Its only container.
    pub container: String,
    /// The pod itself.
    pub pod: Value,
    /// The ConfigMaps that it mounts, as they are.
    pub config_maps: Vec<Value>,
    /// The claims of its volumes, which outlive it.
    pub claims: Vec<Value>,
    /// The volumes that end with it, by podman's names.
    pub own_volumes: Vec<String>,
    /// The Secrets that it mounts.
    pub secrets: Vec<SecretFiles>,
    /// What differs from the template.
    pub edits: Vec<Edit>,
    /// Whether it has its node's network.
    pub host_network: bool,
    /// How long it may take to end, in seconds.
    pub grace: u64,
    /// Whether it is to be restarted.
    pub liveness: Probe,
    /// Whether it is to be used.
    pub readiness: Probe,
}

impl Played {
    /// The pod with that ordinal of the one StatefulSet or Deployment in `manifests`. Secrets are looked for in `secrets/NAME` on
    /// the node.
    ///
    /// # Errors
    ///
    /// When there is no such pod, or it has what is not foreseen here.
    pub fn of(manifests: &[Value], ordinal: usize, secrets: &str) -> Result<Self> {
        let mut owners = manifests
            .iter()
            .filter(|manifest| ["StatefulSet", "Deployment"].contains(&text(manifest, "/kind")));
        let owner = owners.next().context("no StatefulSet and no Deployment")?;
        ensure!(owners.next().is_none(), "more than one owner of pods");
        let all = pods(owner);
        let source = all
            .get(ordinal)
            .with_context(|| format!("{} has no pod {ordinal}", super::title(owner)))?;
        let containers: Vec<_> = source.containers().collect();
        let [container] = containers.as_slice() else {
            bail!(
                "{}: {} containers instead of one",
                source.name,
                containers.len()
            );
        };
        let mut editor = Editor {
            pod: json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata(source),
                "spec": source.spec,
            }),
            edits: Vec::new(),
        };
        let (liveness, readiness) = (
            probe(container.spec, "livenessProbe")?,
            probe(container.spec, "readinessProbe")?,
        );
        editor.drop_annotations(source)?;
        editor.drop_probes(container.spec)?;
        editor.drop_information(container.spec)?;
        let secrets = editor.secrets(source, container, secrets)?;
        let own_volumes = editor.empty_dirs(&source.name)?;
        let claims = editor.claims(source)?;
        let mut config_maps = Vec::new();
        for volume in list(source.spec, "/volumes") {
            let name = text(volume, "/configMap/name");
            if !name.is_empty() {
                let found = find(manifests, "ConfigMap", name);
                config_maps.push(
                    found
                        .with_context(|| format!("no ConfigMap {name}"))?
                        .clone(),
                );
            }
        }
        Ok(Self {
            name: source.name.clone(),
            container: text(container.spec, "/name").to_owned(),
            host_network: source.has_host_network(),
            grace: source.spec["terminationGracePeriodSeconds"]
                .as_u64()
                .unwrap_or(30),
            pod: editor.pod,
            edits: editor.edits,
            config_maps,
            claims,
            own_volumes,
            secrets,
            liveness,
            readiness,
        })
    }

    /// What podman is given: everything that the pod needs, and the pod.
    #[must_use]
    pub fn documents(&self) -> String {
        let all = self.config_maps.iter().chain([&self.pod]);
        // JSON is YAML, and documents of YAML are separated so.
        all.map(Value::to_string)
            .collect::<Vec<_>>()
            .join("\n---\n")
    }

    /// The pod's specification with every edit taken back: that of the template.
    ///
    /// # Errors
    ///
    /// When an edit was not what it says.
    pub fn template(&self) -> Result<Value> {
        let mut pod = self.pod.clone();
        for edit in self.edits.iter().rev() {
            let replaced = put(&mut pod, &edit.at, edit.was.clone())?;
            ensure!(
                replaced == edit.is,
                "{}: {replaced} instead of {}",
                edit.at,
                edit.is
            );
        }
        Ok(pod["spec"].take())
    }
}

/// The template's metadata with what a controller adds.
fn metadata(source: &Pod<'_>) -> Value {
    let mut metadata = source.metadata.clone();
    metadata["name"] = json!(source.name);
    if let Some(ordinal) = source.ordinal {
        metadata["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        metadata["labels"]["statefulset.kubernetes.io/pod-name"] = json!(source.name);
    }
    metadata
}

fn probe(container: &Value, kind: &str) -> Result<Probe> {
    let probe = &container[kind];
    let command = list(probe, "/exec/command");
    if !command.is_empty() {
        let words = command.iter().filter_map(Value::as_str);
        return Ok(Probe::Exec(words.map(str::to_owned).collect()));
    }
    let name = text(probe, "/httpGet/port");
    let port = super::named(list(container, "/ports"), name)
        .and_then(|port| port["containerPort"].as_u64())
        .and_then(|port| u16::try_from(port).ok());
    Ok(Probe::Http {
        port: port.with_context(|| format!("{kind} asks port {name:?}, which has no number"))?,
        path: text(probe, "/httpGet/path").to_owned(),
    })
}
