//! A container that runs one of our programs: its environment as the cluster makes it, and its volumes.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{list, named, text};
use crate::bins::Bins;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    P2pnode,
    RelayNode,
}

impl Program {
    fn of_image(image: &str) -> Option<Self> {
        let name = image.rsplit('/').next()?.split([':', '@']).next()?;
        [Self::P2pnode, Self::RelayNode]
            .into_iter()
            .find(|program| program.name() == name)
    }

    pub(super) fn binary(self, bins: &Bins) -> &Path {
        match self {
            Self::P2pnode => &bins.p2pnode,
            Self::RelayNode => &bins.relay_node,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::P2pnode => "p2pnode",
            Self::RelayNode => "relay-node",
        }
    }

    pub(super) fn config_variable(self) -> String {
        format!("{}_CONFIG", self.name().to_uppercase().replace('-', "_"))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pod<'a> {
    pub(super) title: String,
    pub(super) name: String,
    pub(super) ordinal: Option<u64>,
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
    /// Volumes that each pod of a StatefulSet has for itself.
    pub(super) claims: &'a [Value],
}

pub(super) fn pods(manifest: &Value) -> Vec<Pod<'_>> {
    let owner = text(manifest, "/metadata/name");
    let (metadata, spec) = match text(manifest, "/kind") {
        "Pod" => ("/metadata", "/spec"),
        "StatefulSet" | "Deployment" | "DaemonSet" | "Job" => {
            ("/spec/template/metadata", "/spec/template/spec")
        }
        _ => return Vec::new(),
    };
    let pod = |ordinal: Option<u64>| Pod {
        title: super::title(manifest),
        name: ordinal.map_or_else(|| owner.to_owned(), |ordinal| format!("{owner}-{ordinal}")),
        ordinal,
        metadata: manifest.pointer(metadata).unwrap_or(&Value::Null),
        spec: manifest.pointer(spec).unwrap_or(&Value::Null),
        claims: list(manifest, "/spec/volumeClaimTemplates"),
    };
    if manifest["kind"] == "StatefulSet" {
        let replicas = manifest["spec"]["replicas"].as_u64().unwrap_or(1);
        (0..replicas.max(1))
            .map(|ordinal| pod(Some(ordinal)))
            .collect()
    } else {
        vec![pod(None)]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volume<'a> {
    ConfigMap(&'a str),
    Secret,
    Writable,
}

#[derive(Clone, Debug)]
pub(super) struct Container<'a> {
    pub(super) pod: &'a Pod<'a>,
    pub(super) spec: &'a Value,
    pub(super) program: Program,
}

impl<'a> Pod<'a> {
    /// Its containers that run our programs, sidecars too.
    pub(super) fn containers(&'a self) -> impl Iterator<Item = Container<'a>> {
        let all = ["/initContainers", "/containers"];
        all.into_iter()
            .flat_map(|kind| list(self.spec, kind))
            .filter_map(|spec| {
                let program = Program::of_image(text(spec, "/image"))?;
                Some(Container {
                    pod: self,
                    spec,
                    program,
                })
            })
    }

    /// Whether it keeps a rule in its node's firewall.
    pub(super) fn is_keeper(&self) -> bool {
        self.containers()
            .any(|container| container.args().contains(&"--keep"))
    }

    pub(super) fn has_host_network(&self) -> bool {
        self.spec["hostNetwork"] == true
    }

    fn volume(&self, name: &str) -> Option<Volume<'a>> {
        if self
            .claims
            .iter()
            .any(|claim| text(claim, "/metadata/name") == name)
        {
            return Some(Volume::Writable);
        }
        let volume = named(list(self.spec, "/volumes"), name)?;
        let has = |kind: &str| volume.get(kind).is_some();
        if has("configMap") {
            Some(Volume::ConfigMap(text(volume, "/configMap/name")))
        } else if has("secret") {
            Some(Volume::Secret)
        } else if has("emptyDir") || has("persistentVolumeClaim") {
            Some(Volume::Writable)
        } else {
            None
        }
    }
}

impl<'a> Container<'a> {
    pub(super) fn args(&self) -> Vec<&'a str> {
        list(self.spec, "/args")
            .iter()
            .filter_map(Value::as_str)
            .collect()
    }

    pub(super) fn environment(&self) -> Result<BTreeMap<String, String>, String> {
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        for variable in list(self.spec, "/env") {
            let name = text(variable, "/name");
            let value = match variable.pointer("/valueFrom/fieldRef/fieldPath") {
                Some(field) => self.field(field.as_str().unwrap_or_default(), name)?,
                None => expand(text(variable, "/value"), &environment).map_err(|missing| {
                    format!("env {name} needs {missing}, which is not set before it")
                })?,
            };
            environment.insert(name.to_owned(), value);
        }
        Ok(environment)
    }

    fn field(&self, field: &str, variable: &str) -> Result<String, String> {
        let value = match field {
            "metadata.name" => Some(self.pod.name.clone()),
            // The controller sets it on the pods of a StatefulSet alone.
            "metadata.labels['apps.kubernetes.io/pod-index']" => {
                self.pod.ordinal.map(|ordinal| ordinal.to_string())
            }
            // An address for documentation (RFC 5737).
            "status.hostIP" => Some("192.0.2.10".to_owned()),
            _ => None,
        };
        value.ok_or_else(|| format!("env {variable}: this pod has no {field}"))
    }

    /// The mount that holds `path`, what its volume is, and the rest of the path below the mount.
    pub(super) fn mount<'p>(&self, path: &'p str) -> Option<(Volume<'a>, &'p str)> {
        let mounts = list(self.spec, "/volumeMounts").iter();
        let holding = mounts.filter_map(|mount| {
            let at = text(mount, "/mountPath");
            let rest = path.strip_prefix(at)?;
            let is_below = rest.is_empty() || rest.starts_with('/');
            is_below.then_some((at.len(), mount, rest.trim_start_matches('/')))
        });
        let (_, mount, rest) = holding.max_by_key(|(length, _, _)| *length)?;
        Some((self.pod.volume(text(mount, "/name"))?, rest))
    }

    pub(super) fn dangling_mounts(&self) -> impl Iterator<Item = &'a str> {
        list(self.spec, "/volumeMounts")
            .iter()
            .map(|mount| text(mount, "/name"))
            .filter(|name| self.pod.volume(name).is_none())
    }
}

/// `value` with `$(NAME)` replaced, as Kubernetes does it; or the name that is not known.
pub(super) fn expand(value: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("$(") {
        let (name, after) = after.split_once(')').ok_or_else(|| after.to_owned())?;
        expanded += before;
        expanded += known.get(name).ok_or_else(|| name.to_owned())?;
        rest = after;
    }
    Ok(expanded + rest)
}
