//! The manifests in `k8s/` and the binaries: what needs no tool of Kubernetes. `cargo xtask test k8s` has the rest.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    bins::bins,
    k8s::{
        self, documents, faults,
        pod::{PodRun, Probe},
    },
};
use serde_json::{Value, json};

fn read(path: &str) -> Result<String> {
    let path = k8s::folder().join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The manifests of a kustomize base, with the ConfigMap that kustomize makes of its configuration.
fn base(name: &str, resources: &[&str]) -> Result<Vec<Value>> {
    let folder = format!("kustomize/{name}/base");
    let file = format!("{name}.yaml");
    let config = read(&format!("{folder}/{file}"))?;
    let mut manifests = vec![
        json!({ "kind": "ConfigMap", "metadata": { "name": name }, "data": { file: config } }),
    ];
    for resource in resources {
        manifests.append(&mut documents(&read(&format!("{folder}/{resource}"))?)?);
    }
    Ok(manifests)
}

fn p2pnode() -> Result<Vec<Value>> {
    let resources = [
        "statefulset.yaml",
        "service.yaml",
        "poddisruptionbudget.yaml",
        "networkpolicy.yaml",
    ];
    base("p2pnode", &resources)
}

/// With the DaemonSet that keeps the range ahead of the cluster's masquerade.
fn preserved() -> Result<Vec<Value>> {
    let daemon = read("kustomize/p2pnode/components/preserve-range/preserve-range.yaml")?;
    Ok([p2pnode()?, documents(&daemon)?].concat())
}

fn relay_node() -> Result<Vec<Value>> {
    base(
        "relay-node",
        &[
            "deployment.yaml",
            "service-internal.yaml",
            "networkpolicy.yaml",
        ],
    )
}

#[test]
fn the_binaries_take_every_command_line_and_configuration_that_is_shipped() -> Result<()> {
    let bins = bins()?;
    let job = documents(&read("examples/app-job.yaml")?)?;
    for (what, manifests) in [
        ("p2pnode with its range preserved", preserved()?),
        ("p2pnode", p2pnode()?),
        ("relay-node", relay_node()?),
        ("the job", job),
    ] {
        let faults = faults(&manifests, &bins);
        ensure!(faults.is_empty(), "{what}: {faults:#?}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_a_manifest_is_told() -> Result<()> {
    let bins = bins()?;
    let wrongs = documents(include_str!("../src/k8s/wrong.yaml"))?;
    for wrong in wrongs[0].as_array().context("a list")? {
        let [part, at, told] = [0, 1, 3].map(|index| wrong[index].as_str().unwrap_or_default());
        let manifests = match part {
            "p2pnode" => p2pnode()?,
            "preserve-range" => preserved()?,
            _ => relay_node()?,
        };
        let pods = if part == "preserve-range" {
            manifests.len() - 1
        } else {
            1
        };
        let at = match at.strip_prefix("container") {
            Some(rest) => format!("/{pods}/spec/template/spec/containers/0{rest}"),
            None if part == "preserve-range" => format!("/{pods}{at}"),
            None => at.replace("config", &format!("/0/data/{part}.yaml")),
        };
        let mut manifests = Value::Array(manifests);
        let (parent, key) = at.rsplit_once('/').context("a place")?;
        manifests.pointer_mut(parent).with_context(|| at.clone())?[key] = wrong[2].clone();
        let faults = faults(manifests.as_array().context("a list")?, &bins);
        let is_told = faults.iter().any(|fault| fault.contains(told));
        ensure!(is_told, "{wrong}: not told, but {faults:#?}");
    }
    Ok(())
}

#[test]
fn podman_is_given_the_confinement_the_files_and_the_probes_of_the_manifest() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pod = PodRun::of(&p2pnode()?, &[], directory.path())?;
    let line = pod.args.join(" ");
    let config = directory.path().join("p2pnode");
    for part in [
        "--user=65532:65532 --read-only --read-only-tmpfs=false --security-opt=no-new-privileges --cap-drop=ALL",
        "--env P2PNODE_DIAL_ORDINAL=0",
        "--volume p2pnode-0-state:/var/lib/p2pnode:U",
        &format!("--volume {}:/etc/p2pnode:ro", config.display()),
    ] {
        ensure!(line.contains(part), "{part}: {line}");
    }
    let shipped = read("kustomize/p2pnode/base/p2pnode.yaml")?;
    ensure!(fs::read_to_string(config.join("p2pnode.yaml"))? == shipped);
    let http = |path: &str| Probe::Http(9464, path.to_owned());
    ensure!(pod.liveness == http("/livez") && pod.readiness == http("/readyz"));
    let without_secret = PodRun::of(&relay_node()?, &[], directory.path());
    ensure!(without_secret.is_err_and(|error| error.to_string().contains("relay-node-identity")));
    Ok(())
}

#[test]
fn the_pod_that_preserves_the_range_has_net_admin_on_its_nodes_network_and_nothing_else()
-> Result<()> {
    let manifests = preserved()?;
    let daemon = manifests.last().context("a DaemonSet")?;
    let (pod, labels) = (
        &daemon["spec"]["template"]["spec"],
        &daemon["spec"]["template"]["metadata"]["labels"],
    );
    let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
    ensure!(
        *capabilities == json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }),
        "{capabilities}"
    );
    ensure!(pod["hostNetwork"] == true && pod["automountServiceAccountToken"] == false);
    ensure!(
        pod["volumes"]
            .as_array()
            .is_some_and(|volumes| volumes.len() == 1)
    );
    // No Service, budget or policy of the node's pods has it among its own.
    let of_pods = &manifests[1]["spec"]["template"]["metadata"]["labels"];
    ensure!(labels["app.kubernetes.io/name"] != of_pods["app.kubernetes.io/name"]);
    Ok(())
}

#[test]
fn the_network_policy_is_the_one_that_the_node_prints_for_its_configuration() -> Result<()> {
    let folder = k8s::folder().join("kustomize/p2pnode/base");
    let printed = Command::new(bins()?.p2pnode)
        .args(["firewall", "--format", "networkpolicy", "--config"])
        .arg(folder.join("p2pnode.yaml"))
        .output()?;
    ensure!(
        printed.status.success(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    let printed = documents(&String::from_utf8(printed.stdout)?)?;
    let shipped = documents(&fs::read_to_string(folder.join("networkpolicy.yaml"))?)?;
    for part in ["policyTypes", "ingress", "egress"] {
        let (printed, shipped) = (&printed[0]["spec"][part], &shipped[0]["spec"][part]);
        ensure!(
            printed == shipped,
            "{part}: {printed} is printed, {shipped} is shipped"
        );
    }
    Ok(())
}

#[test]
fn every_metric_that_dashboard_and_alerts_name_is_in_the_golden_files_or_the_reference()
-> Result<()> {
    let golden = [
        include_str!("golden/metrics-node.txt"),
        include_str!("golden/metrics-relay.txt"),
    ];
    let lines = golden.iter().flat_map(|file| file.lines());
    let scraped = lines.filter_map(|line| line.split(' ').next());
    // Made from the code, which a test of the program holds to it. The node of the golden files has no sessions.
    let reference = include_str!("../../docs/reference/metrics-p2pnode.md").split('`');
    let known: BTreeSet<_> = scraped.chain(reference).collect();
    for file in [
        "p2pnode/dashboard.json",
        "p2pnode/prometheusrule.yaml",
        "relay-node/prometheusrule.yaml",
    ] {
        let text = read(&format!("monitoring/{file}"))?;
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let is_ours = |word: &&str| word.starts_with("p2pnode_") || word.starts_with("relay_");
        let named: BTreeSet<_> = words.filter(is_ours).collect();
        ensure!(named.len() > 2, "{file} names {named:?}");
        let missing: Vec<_> = named.difference(&known).collect();
        ensure!(missing.is_empty(), "{file}: {missing:?} are in no scrape");
    }
    Ok(())
}
