//! The bill of materials of both programs: [CycloneDX 1.5](https://cyclonedx.org/docs/1.5/json/), from the lock file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cargo::{self, output, workspace};

/// What both programs are linked from for a target; `created` is the time of the source, in seconds since 1970.
pub(crate) fn cyclonedx(created: u64, target: &str) -> Result<String> {
    let mut command = cargo::cargo();
    command.args(["metadata", "--locked", "--format-version=1"]);
    command.args(["--filter-platform", target]);
    let metadata: Value = serde_json::from_str(&output(&mut command)?)?;
    let linked = linked(&metadata)?;
    let checksums = checksums()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let components: Vec<_> = packages
        .iter()
        .filter(|package| linked.contains(text(package, "id")))
        .map(|package| component(package, &checksums))
        .collect();
    let time = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(created),
    );
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.to_string(),
            "component": { "type": "application", "name": "p2pnode", "version": env!("CARGO_PKG_VERSION") },
        },
        "components": components,
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(package, "name"), text(package, "version"));
    let mut component = json!({
        "type": "library",
        "name": name,
        "version": version,
        "purl": format!("pkg:cargo/{name}@{version}"),
    });
    if let Some(license) = package["license"].as_str() {
        // The slash is an old form of OR.
        let expression = license.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// The ids of what the programs consist of, without what only builds or tests them.
fn linked(metadata: &Value) -> Result<BTreeSet<&str>> {
    let nodes = metadata["resolve"]["nodes"]
        .as_array()
        .context("no resolved dependencies")?;
    let by_id: BTreeMap<_, _> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let packages = metadata["packages"].as_array().context("no packages")?;
    let is_program = |package: &&Value| ["p2pnode", "relay-node"].contains(&text(package, "name"));
    let mut left: Vec<_> = packages
        .iter()
        .filter(is_program)
        .map(|package| text(package, "id"))
        .collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = left.pop() {
        let Some(node) = by_id.get(id).filter(|_| linked.insert(id)) else {
            continue;
        };
        let dependencies = node["deps"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| {
            let kinds = dependency["dep_kinds"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        });
        left.extend(normal.map(|dependency| text(dependency, "pkg")));
    }
    Ok(linked)
}

/// The sums of the packages by name and version, from `Cargo.lock`.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).context("Cargo.lock")?;
    let packages = lock.split("[[package]]").skip(1);
    let value = |package: &str, key: &str| {
        let line = package
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.map(|value| value.trim_end_matches('"').to_owned())
    };
    let sum = |package| {
        let key = (value(package, "name")?, value(package, "version")?);
        Some((key, value(package, "checksum")?))
    };
    Ok(packages.filter_map(sum).collect())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_bill_names_what_is_linked_and_not_what_only_tests_it() {
        let target = "x86_64-unknown-linux-gnu";
        let bill: Value = serde_json::from_str(&cyclonedx(0, target).unwrap()).unwrap();
        let components = bill["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|part| text(part, "name") == name);
        assert_eq!(text(&bill["metadata"], "timestamp"), "1970-01-01T00:00:00Z");
        let libp2p = named("libp2p").unwrap();
        assert_eq!(text(&libp2p["hashes"][0], "content").len(), 64);
        assert!(named("relay-node").is_some());
        for other in ["proptest", "xtask", "p2pnode-tests", "windows-sys"] {
            assert!(named(other).is_none(), "{other}");
        }
    }
}
