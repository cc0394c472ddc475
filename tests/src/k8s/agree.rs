//! Whether two ways to render say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{documents, text, title};

/// What only one way to render adds: what it is, and what renews pods when their configuration changes.
const OWN_LABELS: [&str; 3] = [
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];
const OWN_ANNOTATIONS: [&str; 1] = ["checksum/config"];

/// Where `a` and `b` differ, one line each: the manifest, the place in it, and both values. Order counts only in lists of plain
/// values; the text of a file in a ConfigMap counts as what it says.
pub fn differences(a: &[Value], b: &[Value]) -> Vec<String> {
    let (a, b) = (plain(a), plain(b));
    let titles: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let mut found = Vec::new();
    for title in titles {
        match (a.get(title), b.get(title)) {
            (Some(a), Some(b)) => compare(title, a, b, &mut found),
            (Some(_), None) => found.push(format!("{title}: only in the first")),
            (None, _) => found.push(format!("{title}: only in the second")),
        }
    }
    found
}

fn compare(place: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let value = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&format!("{place}/{key}"), &value(a), &value(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{place}/{index}"), a, b, found);
            }
        }
        _ if a != b => found.push(format!("{place}: {a} and {b}")),
        _ => {}
    }
}

fn plain(manifests: &[Value]) -> BTreeMap<String, Value> {
    // Kustomize names a ConfigMap after its content.
    let hashed: Vec<(String, String)> = manifests
        .iter()
        .filter(|manifest| manifest["kind"] == "ConfigMap")
        .map(|manifest| text(manifest, "/metadata/name"))
        .filter_map(|name| {
            let (base, hash) = name.rsplit_once('-')?;
            (hash.len() == 10).then(|| (name.to_owned(), base.to_owned()))
        })
        .collect();
    manifests
        .iter()
        .map(|manifest| {
            let mut manifest = manifest.clone();
            simplify(&mut manifest, &hashed);
            (title(&manifest), manifest)
        })
        .collect()
}

fn simplify(value: &mut Value, hashed: &[(String, String)]) {
    match value {
        Value::Object(map) => {
            for (of, own) in [
                ("labels", &OWN_LABELS[..]),
                ("annotations", &OWN_ANNOTATIONS[..]),
            ] {
                if let Some(Value::Object(entries)) = map.get_mut(of) {
                    entries.retain(|name, _| !own.contains(&name.as_str()));
                }
                if map
                    .get(of)
                    .is_some_and(|entries| *entries == Value::Object(Map::new()))
                {
                    map.remove(of);
                }
            }
            if let Some(Value::Object(files)) = map.get_mut("data") {
                for text in files.values_mut() {
                    let read = text.as_str().and_then(|text| documents(text).ok());
                    if let Some(read) = read {
                        *text = Value::Array(read);
                    }
                }
            }
            map.values_mut().for_each(|value| simplify(value, hashed));
            // Lists of maps are sorted by their text.
            map.sort_keys();
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| simplify(item, hashed));
            // Two ports may have one name, or one number; the text of the rest settles it.
            items.sort_by_cached_key(|item| {
                let key = ["name", "mountPath"]
                    .map(|key| item[key].as_str().unwrap_or_default().to_owned());
                (
                    key,
                    if item.is_object() {
                        item.to_string()
                    } else {
                        String::new()
                    },
                )
            });
        }
        Value::String(text) => {
            if let Some((_, base)) = hashed.iter().find(|(name, _)| name == text) {
                text.clone_from(base);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const A: &str = "
kind: ConfigMap
metadata: { name: c-0123456789, labels: { a: b } }
data: { f.yaml: '{ x: 1, y: [1, 2] }' }
---
kind: Pod
metadata: { name: p }
spec: { volumes: [{ name: a }, { name: b, configMap: { name: c-0123456789 } }], n: 1, ports: [{ port: 1, to: 2 }, { port: 2 }] }
";
    const B: &str = "
kind: Pod
metadata: { name: p, annotations: { checksum/config: abc } }
spec: { volumes: [{ name: b, configMap: { name: c } }, { name: a }], ports: [{ to: 2, port: 1 }, { port: 2 }], n: 1 }
---
kind: ConfigMap
metadata: { name: c, labels: { a: b, helm.sh/chart: x } }
data: { f.yaml: \"y:\\n- 1\\n- 2\\nx: 1\\n\" }
";

    #[test]
    fn what_differs_is_named_with_its_place_and_another_wording_is_no_difference() {
        let a = documents(A).unwrap();
        let same = differences(&a, &documents(B).unwrap());
        assert_eq!(same, Vec::<String>::new());
        let b = documents(&B.replace("n: 1", "n: 2").replace("- 1\\n- 2", "- 2\\n- 1")).unwrap();
        let found = differences(&a, &b);
        for part in [
            "Pod p/spec/n: 1 and 2",
            "ConfigMap c/data/f.yaml/0/y/0: 1 and 2",
        ] {
            assert!(found.iter().any(|found| found == part), "{part}: {found:?}");
        }
        let found = differences(&a[..1], &a);
        assert_eq!(found, ["Pod p: only in the second"]);
    }
}
