//! The manifests in `k8s/`, checked with the binaries that they run: every fault is reported before a cluster is
//! asked.
//!
//! [`faults`] looks at manifests as they are applied, however they were rendered; [`differences`] compares two renderings;
//! [`pod`] makes of a manifest what [`podman`] runs.

mod agree;
mod config;
mod container;
mod memory;
pub mod pod;
pub mod podman;
mod rules;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use multibase::Base;
use serde::Deserialize as _;
use serde_json::Value;

pub use agree::differences;
pub use rules::faults;

/// The environment of the images: where a program keeps what it is not told where to keep.
pub const IMAGE_ENV: [(&str, &str); 3] = [
    // For `kubectl exec POD -- p2pnode ...` and probes.
    ("PATH", "/usr/bin"),
    ("XDG_RUNTIME_DIR", "/run"),
    ("XDG_STATE_HOME", "/var/lib"),
];

/// The user and group of the images, which has no name there.
pub const IMAGE_USER: u32 = 65532;

pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s"))
}

pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("no YAML")?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// Its kind and name, as in `StatefulSet p2pnode`.
pub fn title(manifest: &Value) -> String {
    format!(
        "{} {}",
        text(manifest, "/kind"),
        text(manifest, "/metadata/name")
    )
}

pub fn secret_files(manifest: &Value) -> Result<Vec<(&str, Vec<u8>)>> {
    let data = manifest["data"].as_object();
    let data = data.filter(|_| manifest["kind"] == "Secret");
    let data = data.with_context(|| format!("no Secret with data: {manifest}"))?;
    let decode = |(name, content): (&'_ String, &Value)| {
        let content = content.as_str().unwrap_or_default();
        let decoded = Base::Base64Pad.decode(content);
        decoded.with_context(|| format!("{name} is no base64"))
    };
    data.iter()
        .map(|entry| Ok((entry.0.as_str(), decode(entry)?)))
        .collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn named<'a>(items: &'a [Value], name: &str) -> Option<&'a Value> {
    items.iter().find(|item| item["name"] == name)
}

fn find<'a>(manifests: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    manifests
        .iter()
        .find(|manifest| manifest["kind"] == kind && text(manifest, "/metadata/name") == name)
}

/// Whether labels hold all that a selector asks for; an empty selector asks for nothing and selects nothing here.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(name, value)| labels[name] == *value)
    })
}
