//! A pod of the manifests as `podman kube play` takes it: what a cluster's controllers make of the template, and the few places
//! in which podman (4.3) cannot do what the kubelet does.
//!
//! Each change is an [`Edit`] with its reason; [`Played::template`] takes them back, so a test can show that there are no others.
//! What podman is relieved of is done by whoever plays the pod, from the same manifests: [`Probe`]s are asked, Secrets are written
//! with their modes, and the grace period is given when it is stopped.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    container::{Container, Pod, expand, pods},
    find, list, text,
};

/// Why podman is given another text than a cluster.
pub mod why {
    /// The controller of the StatefulSet does it.
    pub const CLAIM: &str = "the controller makes a volume of each claim";
    /// podman runs probes with a shell or curl of the image, which has neither.
    pub const PROBE: &str = "the player asks the probes, as podman would need a shell in the image";
    /// podman would publish each of them on the node.
    pub const PORT: &str = "a port without hostPort is information, and podman would publish it";
    /// podman neither decodes `data` nor keeps `defaultMode`.
    pub const SECRET: &str =
        "the player writes the Secret's files, as podman neither decodes them nor keeps their mode";
    /// podman knows no `subPathExpr`.
    pub const SUB_PATH: &str =
        "the player mounts the one file of the Secret, as podman knows no subPathExpr";
    /// podman refuses values of more than 63 characters, which Kubernetes limits in labels alone.
    pub const ANNOTATION: &str = "an annotation is for others, and podman takes no long ones";
    /// podman gives all pods with an emptyDir of one name the same one.
    pub const EMPTY_DIR: &str =
        "an emptyDir is the pod's own, and podman's of one name is everybody's";
}

/// A change of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The place, as a JSON pointer into the pod.
    pub at: String,
    /// What was there; null: nothing.
    pub was: Value,
    /// What is there now; null: nothing.
    pub is: Value,
    /// One of [`why`].
    pub why: &'static str,
}

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
        let mut owners = manifests.iter().filter(|manifest| {
            ["StatefulSet", "Deployment"].contains(&text(manifest, "/kind"))
        });
        let owner = owners.next().context("no StatefulSet and no Deployment")?;
        ensure!(owners.next().is_none(), "more than one owner of pods");
        let all = pods(owner);
        let source = all
            .get(ordinal)
            .with_context(|| format!("{} has no pod {ordinal}", super::title(owner)))?;
        let containers: Vec<_> = source.containers().collect();
        let [container] = containers.as_slice() else {
            bail!("{}: {} containers instead of one", source.name, containers.len());
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
                config_maps.push(found.with_context(|| format!("no ConfigMap {name}"))?.clone());
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
        all.map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
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

struct Editor {
    pod: Value,
    edits: Vec<Edit>,
}

/// The one container of the pod.
const CONTAINER: &str = "/spec/containers/0";

impl Editor {
    fn set(&mut self, at: String, is: Value, why: &'static str) -> Result<()> {
        let was = put(&mut self.pod, &at, is.clone())?;
        self.edits.push(Edit { at, was, is, why });
        Ok(())
    }

    fn drop_annotations(&mut self, source: &Pod<'_>) -> Result<()> {
        let annotations = source.metadata["annotations"].as_object();
        for (name, value) in annotations.into_iter().flatten() {
            if value.as_str().is_some_and(|value| value.len() > 63) {
                let name = name.replace('~', "~0").replace('/', "~1");
                self.set(format!("/metadata/annotations/{name}"), Value::Null, why::ANNOTATION)?;
            }
        }
        Ok(())
    }

    fn drop_probes(&mut self, container: &Value) -> Result<()> {
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if container.get(probe).is_some() {
                self.set(format!("{CONTAINER}/{probe}"), Value::Null, why::PROBE)?;
            }
        }
        Ok(())
    }

    fn drop_information(&mut self, container: &Value) -> Result<()> {
        let ports = list(container, "/ports");
        let published = ports.iter().filter(|port| port.get("hostPort").is_some());
        let published: Vec<_> = published.cloned().collect();
        if published.len() < ports.len() {
            let is = if published.is_empty() { Value::Null } else { json!(published) };
            self.set(format!("{CONTAINER}/ports"), is, why::PORT)?;
        }
        Ok(())
    }

    /// Turns Secrets into directories on the node.
    fn secrets(
        &mut self,
        source: &Pod<'_>,
        container: &Container<'_>,
        root: &str,
    ) -> Result<Vec<SecretFiles>> {
        let mut secrets = Vec::new();
        for (index, volume) in list(source.spec, "/volumes").iter().enumerate() {
            let Some(secret) = volume.get("secret") else {
                continue;
            };
            let (name, volume) = (text(secret, "/secretName"), text(volume, "/name"));
            let number = |value: &Value, default: u64| -> Result<u32> {
                Ok(u32::try_from(value.as_u64().unwrap_or(default))?)
            };
            let directory = format!("{root}/{name}");
            secrets.push(SecretFiles {
                name: name.to_owned(),
                mode: number(&secret["defaultMode"], 0o644)?,
                group: number(&source.spec["securityContext"]["fsGroup"], 0)?,
                directory: directory.clone(),
            });
            let file = self.sub_path(container, volume)?;
            let (path, kind) = match &file {
                Some(file) => (format!("{directory}/{file}"), "File"),
                None => (directory, "Directory"),
            };
            let why = if file.is_some() { why::SUB_PATH } else { why::SECRET };
            self.set(format!("/spec/volumes/{index}/secret"), Value::Null, why)?;
            let place = format!("/spec/volumes/{index}/hostPath");
            self.set(place, json!({ "path": path, "type": kind }), why)?;
        }
        Ok(secrets)
    }

    /// The one file of a volume that the container mounts, if it does not mount the whole.
    fn sub_path(&mut self, container: &Container<'_>, volume: &str) -> Result<Option<String>> {
        let mounts = list(container.spec, "/volumeMounts");
        let mut found = None;
        for (index, mount) in mounts.iter().enumerate() {
            let expression = text(mount, "/subPathExpr");
            if text(mount, "/name") != volume || expression.is_empty() {
                continue;
            }
            ensure!(found.is_none(), "{volume} is mounted twice");
            let environment = container.environment().map_err(anyhow::Error::msg)?;
            let file = expand(expression, &environment).map_err(|missing| {
                anyhow::anyhow!("subPathExpr {expression}: {missing} is not set")
            })?;
            found = Some(file);
            let place = format!("{CONTAINER}/volumeMounts/{index}/subPathExpr");
            self.set(place, Value::Null, why::SUB_PATH)?;
        }
        Ok(found)
    }

    /// Gives each emptyDir the pod's name; returns their names.
    fn empty_dirs(&mut self, pod: &str) -> Result<Vec<String>> {
        let mut own = Vec::new();
        let volumes = list(&self.pod, "/spec/volumes").to_vec();
        let mounts = list(&self.pod, &format!("{CONTAINER}/volumeMounts")).to_vec();
        for (index, volume) in volumes.iter().enumerate() {
            if volume.get("emptyDir").is_none() {
                continue;
            }
            let name = format!("{pod}-{}", text(volume, "/name"));
            self.set(format!("/spec/volumes/{index}/name"), json!(name), why::EMPTY_DIR)?;
            for (mount, _) in mounts
                .iter()
                .enumerate()
                .filter(|(_, mount)| mount["name"] == volume["name"])
            {
                let place = format!("{CONTAINER}/volumeMounts/{mount}/name");
                self.set(place, json!(name), why::EMPTY_DIR)?;
            }
            own.push(name);
        }
        Ok(own)
    }

    /// Adds a volume for each claim; returns the claims.
    fn claims(&mut self, source: &Pod<'_>) -> Result<Vec<Value>> {
        let mut claims = Vec::new();
        for claim in source.claims {
            let volume = text(claim, "/metadata/name");
            let name = format!("{volume}-{}", source.name);
            let index = list(&self.pod, "/spec/volumes").len();
            self.set(
                format!("/spec/volumes/{index}"),
                json!({ "name": volume, "persistentVolumeClaim": { "claimName": name } }),
                why::CLAIM,
            )?;
            claims.push(json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": { "name": name },
                "spec": claim["spec"],
            }));
        }
        Ok(claims)
    }
}

/// Puts `value` at a JSON pointer, and returns what was there. Null is nothing: it takes away, and lists grow and shrink at their end
/// alone.
fn put(root: &mut Value, at: &str, value: Value) -> Result<Value> {
    let (parent, key) = at.rsplit_once('/').context("no JSON pointer")?;
    let parent = root
        .pointer_mut(parent)
        .with_context(|| format!("{at}: there is no {parent}"))?;
    match parent {
        Value::Object(map) => {
            let key = &key.replace("~1", "/").replace("~0", "~");
            let was = match value {
                Value::Null => map.remove(key),
                value => map.insert(key.clone(), value),
            };
            Ok(was.unwrap_or_default())
        }
        Value::Array(items) => {
            let index: usize = key.parse().with_context(|| at.to_owned())?;
            if value.is_null() {
                ensure!(index + 1 == items.len(), "{at} is not the end of its list");
                return Ok(items.pop().unwrap_or_default());
            }
            match items.get_mut(index) {
                Some(item) => Ok(std::mem::replace(item, value)),
                None => {
                    ensure!(index == items.len(), "{at} is beyond the end of its list");
                    items.push(value);
                    Ok(Value::Null)
                }
            }
        }
        _ => bail!("{at}: {parent} holds nothing"),
    }
}
