//! The alerts, by promtool.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::k8s::{self, documents};
use serde_json::Value;

use super::bench::Bench;

pub(super) fn faults(bench: &Bench) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for part in ["p2pnode", "relay-node"] {
        let source = k8s::folder().join("monitoring").join(part);
        let rules = fs::read_to_string(source.join("prometheusrule.yaml"))?;
        let rules = documents(&rules)?;
        ensure!(
            rules.len() == 1,
            "{part}: {} documents instead of one rule",
            rules.len()
        );
        // A PrometheusRule holds what a file of rules is.
        let directory = bench.directory.join(format!("rules-{part}"));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("rules.yaml"), rules[0]["spec"].to_string())?;
        let tests = fs::read_to_string(source.join("rules.test.yaml"))?;
        fs::write(directory.join("rules.test.yaml"), &tests)?;
        for args in [
            ["check", "rules", "rules.yaml"],
            ["test", "rules", "rules.test.yaml"],
        ] {
            let output = bench
                .tools
                .command("promtool")
                .args(args)
                .current_dir(&directory)
                .output()
                .context("promtool")?;
            if !output.status.success() {
                let said = [output.stdout, output.stderr].concat();
                told.push(format!(
                    "{part}: promtool {}: {}",
                    args.join(" "),
                    String::from_utf8_lossy(&said)
                ));
            }
        }
        told.extend(
            untested(&rules[0], &tests).map(|alert| format!("{part}: no test makes {alert} fire")),
        );
    }
    Ok(told)
}

fn untested<'a>(rules: &'a Value, tests: &str) -> impl Iterator<Item = &'a str> {
    let tests = documents(tests).unwrap_or_default();
    let mut fired = BTreeSet::new();
    for test in tests.iter().flat_map(|tests| items(tests, "/tests")) {
        for expected in items(test, "/alert_rule_test") {
            if !items(expected, "/exp_alerts").is_empty() {
                fired.insert(
                    expected["alertname"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
        }
    }
    items(rules, "/spec/groups")
        .iter()
        .flat_map(|group| items(group, "/rules"))
        .filter_map(|rule| rule["alert"].as_str())
        .filter(move |alert| !fired.contains(*alert))
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}
