//! The changes that a pod needs for podman, each with its reason.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    super::{
        container::{Container, Pod, expand},
        list, text,
    },
    SecretFiles,
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

/// Changes a pod, and notes each change.
pub(super) struct Editor {
    pub(super) pod: Value,
    pub(super) edits: Vec<Edit>,
}

/// The one container of the pod.
const CONTAINER: &str = "/spec/containers/0";

impl Editor {
    fn set(&mut self, at: String, is: Value, why: &'static str) -> Result<()> {
        let was = put(&mut self.pod, &at, is.clone())?;
        self.edits.push(Edit { at, was, is, why });
        Ok(())
    }

    pub(super) fn drop_annotations(&mut self, source: &Pod<'_>) -> Result<()> {
        let annotations = source.metadata["annotations"].as_object();
        for (name, value) in annotations.into_iter().flatten() {
            if value.as_str().is_some_and(|value| value.len() > 63) {
                let name = name.replace('~', "~0").replace('/', "~1");
                self.set(
                    format!("/metadata/annotations/{name}"),
                    Value::Null,
                    why::ANNOTATION,
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn drop_probes(&mut self, container: &Value) -> Result<()> {
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if container.get(probe).is_some() {
                self.set(format!("{CONTAINER}/{probe}"), Value::Null, why::PROBE)?;
            }
        }
        Ok(())
    }

    pub(super) fn drop_information(&mut self, container: &Value) -> Result<()> {
        let ports = list(container, "/ports");
        let published = ports.iter().filter(|port| port.get("hostPort").is_some());
        let published: Vec<_> = published.cloned().collect();
        if published.len() < ports.len() {
            let is = if published.is_empty() {
                Value::Null
            } else {
                json!(published)
            };
            self.set(format!("{CONTAINER}/ports"), is, why::PORT)?;
        }
        Ok(())
    }

    /// Turns Secrets into directories on the node.
    pub(super) fn secrets(
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
            let why = if file.is_some() {
                why::SUB_PATH
            } else {
                why::SECRET
            };
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
    pub(super) fn empty_dirs(&mut self, pod: &str) -> Result<Vec<String>> {
        let mut own = Vec::new();
        let volumes = list(&self.pod, "/spec/volumes").to_vec();
        let mounts = list(&self.pod, &format!("{CONTAINER}/volumeMounts")).to_vec();
        for (index, volume) in volumes.iter().enumerate() {
            if volume.get("emptyDir").is_none() {
                continue;
            }
            let name = format!("{pod}-{}", text(volume, "/name"));
            self.set(
                format!("/spec/volumes/{index}/name"),
                json!(name),
                why::EMPTY_DIR,
            )?;
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
    pub(super) fn claims(&mut self, source: &Pod<'_>) -> Result<Vec<Value>> {
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
pub(super) fn put(root: &mut Value, at: &str, value: Value) -> Result<Value> {
    let (parent, key) = at.rsplit_once('/').context("no JSON pointer")?;
    let parent = root
        .pointer_mut(parent)
        .with_context(|| format!("{at}: there is no {parent}"))?;
    match parent {
        Value::Object(map) => {
            let key = &key.replace("~1", "/").replace("~0", "~");
            let was = if value.is_null() {
                map.remove(key)
            } else {
                map.insert(key.clone(), value)
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
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            bail!("{at}: {parent} holds nothing")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn what_is_put_at_a_place_is_there_and_what_was_there_is_told() {
        let mut root = json!({ "a": { "b/c": 1 }, "l": [1, 2] });
        for (at, is, was) in [
            ("/a/b~1c", Value::Null, json!(1)),
            ("/a/b~1c", json!(2), Value::Null),
            ("/a/b~1c", json!(3), json!(2)),
            ("/l/0", json!(9), json!(1)),
            ("/l/2", json!(3), Value::Null),
            ("/l/2", Value::Null, json!(3)),
        ] {
            assert_eq!(put(&mut root, at, is).unwrap(), was, "{at}");
        }
        assert_eq!(root, json!({ "a": { "b/c": 3 }, "l": [9, 2] }));
        for (at, is) in [
            ("/x/y", json!(1)),
            ("/l/0", Value::Null),
            ("/l/4", json!(1)),
            ("/l/z", json!(1)),
            ("/l/0/x", json!(1)),
        ] {
            assert!(put(&mut root, at, is).is_err(), "{at}");
        }
    }
}
