//! The manifests in `k8s/` and the binaries: what needs no tool of Kubernetes. `cargo xtask test k8s` has the rest.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN},
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::bins,
    k8s::{
        self, documents, faults,
        play::{Edit, Played, Probe, why},
    },
    lab::Lab,
    nat::NatKind,
    node::{Launch, output},
    pair::Peer,
    relay::Relay,
};
use serde_json::{Value, json};

p2pnode_tests::lab_tests!();

/// No peer: a dial to it is refused by the relay for lack of a reservation.
const NOBODY: &str = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";

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
        ("p2pnode", p2pnode()?),
        ("relay-node", relay_node()?),
        ("the job", job),
    ] {
        let faults = faults(&manifests, &bins);
        ensure!(faults.is_empty(), "{what}: {faults:#?}");
    }
    Ok(())
}

/// A wrong manifest: which, what is put where, and what has to be told.
struct Wrong {
    manifests: fn() -> Result<Vec<Value>>,
    at: &'static str,
    to: fn() -> Value,
    told: &'static str,
}

/// The place of the pods in [`p2pnode`] and [`relay_node`]: the second manifest.
const POD: &str = "/1/spec/template/spec";

#[test]
fn what_is_wrong_with_a_manifest_is_told() -> Result<()> {
    let config = "/0/data/p2pnode.yaml";
    let relay_config = "/0/data/relay-node.yaml";
    let container = format!("{POD}/containers/0");
    let place = |rest: &str| -> &'static str { format!("{container}{rest}").leak() };
    let wrongs = [
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { port_range: 40050-40000 }"),
            told: "the last port is below the first",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dail: { port_range: 40000 }"),
            told: "dail: is not a key",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("relays: [/dns/r.example.net/udp/443/quic-v1]"),
            told: "names no peer id",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { port_range: 40000-40009, ports_per_ordinal: 10 }"),
            told: "1 has no ports",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { port_range: 40000-40049 }"),
            told: "p2pnode-0 and p2pnode-1: both have the source ports 40000-40049",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { port_range: 40000-40059, ports_per_ordinal: 10 }"),
            told: "net.ipv4.ip_local_reserved_ports is \"40000-40049\" and dial.port_range 40000-40059",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { ports_per_ordinal: 10 }\nadmin: { listen: 0.0.0.0:9000 }"),
            told: "admin.listen has port 9000",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { ports_per_ordinal: 10 }\nidentity: { key_file: /key }"),
            told: "identity.key_file /key is on no volume",
        },
        Wrong {
            manifests: p2pnode,
            at: "/1/spec/volumeClaimTemplates",
            to: || json!([]),
            told: "mounts state, and the pod has no such volume",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/args"),
            to: || json!(["run", "--ports", "40000"]),
            told: "unexpected argument '--ports'",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/env"),
            to: || json!([{ "name": "P2PNODE_CONFIG", "value": "/etc/p2pnode/node.yaml" }]),
            told: "has no node.yaml",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/env"),
            to: || json!([{ "name": "P2PNODE_PUNCH_ADVERTISE", "value": "/ip4/$(HOST_IP)/udp/{port}/quic-v1" }]),
            told: "needs HOST_IP",
        },
        Wrong {
            manifests: p2pnode,
            at: config,
            to: || json!("dial: { ports_per_ordinal: 10 }\njoin: { token_file: /etc/tokens }"),
            told: "join.token_file /etc/tokens is in no directory of a volume",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/livenessProbe"),
            to: || json!({ "exec": { "command": ["p2pnode", "healthcheck", "--alive"] } }),
            told: "unexpected argument '--alive'",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/livenessProbe"),
            to: || json!({ "exec": { "command": ["sh", "-c", "true"] } }),
            told: "a probe runs \"sh\"",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/readinessProbe/httpGet/port"),
            to: || json!("http"),
            told: "readinessProbe asks port \"http\"",
        },
        Wrong {
            manifests: p2pnode,
            at: place("/securityContext/readOnlyRootFilesystem"),
            to: || json!(false),
            told: "readOnlyRootFilesystem is false",
        },
        Wrong {
            manifests: p2pnode,
            at: "/1/spec/template/metadata/labels",
            to: || json!({}),
            told: "its selector selects no pod",
        },
        Wrong {
            manifests: relay_node,
            at: "/1/spec/template/spec/terminationGracePeriodSeconds",
            to: || json!(25),
            told: "the relay drains for 25s",
        },
        Wrong {
            manifests: relay_node,
            at: relay_config,
            to: || json!("listen: [/ip4/0.0.0.0/udp/4003/quic-v1]"),
            told: "declares no UDP port 4003",
        },
        Wrong {
            manifests: relay_node,
            at: relay_config,
            to: || json!("listen: [/ip4/0.0.0.0/udp/4001/quic-v1]"),
            told: "external is empty",
        },
        Wrong {
            manifests: relay_node,
            at: relay_config,
            to: || json!("limits: { reservations: many }"),
            told: "limits.reservations",
        },
        Wrong {
            manifests: relay_node,
            at: place("/securityContext/capabilities/add"),
            to: || json!(["NET_ADMIN"]),
            told: "capabilities.add is [\"NET_ADMIN\"]",
        },
    ];
    let bins = bins()?;
    for wrong in wrongs {
        let mut manifests = Value::Array((wrong.manifests)()?);
        let (parent, key) = wrong.at.rsplit_once('/').context("a place")?;
        let parent = manifests
            .pointer_mut(parent)
            .with_context(|| wrong.at.to_owned())?;
        parent[key] = (wrong.to)();
        let manifests = manifests.as_array().cloned().unwrap_or_default();
        let faults = faults(&manifests, &bins);
        ensure!(
            faults.iter().any(|fault| fault.contains(wrong.told)),
            "{} = {}: {:?} is not told: {faults:#?}",
            wrong.at,
            (wrong.to)(),
            wrong.told
        );
    }
    Ok(())
}

/// The places in which a pod for podman may differ from the template.
fn may_differ(edit: &Edit) -> bool {
    let words: Vec<_> = edit.at.split('/').skip(1).collect();
    match (words.as_slice(), edit.why) {
        (["metadata", "annotations", _], why::ANNOTATION) => edit.is.is_null(),
        (["spec", "containers", _, probe], why::PROBE) => {
            probe.ends_with("Probe") && edit.is.is_null()
        }
        (["spec", "containers", _, "ports"], why::PORT) => edit
            .is
            .as_array()
            .into_iter()
            .flatten()
            .all(|port| port.get("hostPort").is_some()),
        (["spec", "volumes", _, "secret" | "hostPath"], why::SECRET | why::SUB_PATH) => true,
        (["spec", "containers", _, "volumeMounts", _, "subPathExpr"], why::SUB_PATH) => {
            edit.is.is_null()
        }
        (["spec", "volumes", _, "name"], why::EMPTY_DIR)
        | (["spec", "containers", _, "volumeMounts", _, "name"], why::EMPTY_DIR) => true,
        (["spec", "volumes", _], why::CLAIM) => {
            edit.was.is_null() && edit.is.get("persistentVolumeClaim").is_some()
        }
        _ => false,
    }
}

#[test]
fn what_podman_is_given_is_the_pod_of_the_manifest_but_for_what_it_cannot_do() -> Result<()> {
    // As Helm writes the checksum of a configuration.
    let checksum = |mut manifests: Vec<Value>| {
        manifests[1]["spec"]["template"]["metadata"]["annotations"]["checksum/config"] =
            json!("0".repeat(64));
        manifests
    };
    for (manifests, name, edits) in [
        (checksum(p2pnode()?), "p2pnode-1", 7),
        (relay_node()?, "relay-node", 7),
    ] {
        let ordinal = usize::from(name == "p2pnode-1");
        let played = Played::of(&manifests, ordinal, "/secrets")?;
        ensure!(played.name == name && played.pod["metadata"]["name"] == name);
        let template = manifests[1]["spec"]["template"]["spec"].clone();
        ensure!(
            played.template()? == template,
            "{name}: taken back, the edits leave {}",
            played.template()?
        );
        ensure!(played.edits.len() == edits, "{name}: {:#?}", played.edits);
        for edit in &played.edits {
            ensure!(may_differ(edit), "{name}: {edit:?}");
        }
        // What is left out is done by the player, from the same manifest.
        let http = |path: &str| Probe::Http {
            port: 9464,
            path: path.to_owned(),
        };
        ensure!(played.liveness == http("/livez") && played.readiness == http("/readyz"));
        ensure!(played.config_maps == manifests[..1]);
    }
    let played = Played::of(&p2pnode()?, 1, "/secrets")?;
    let labels = &played.pod["metadata"]["labels"];
    ensure!(labels["apps.kubernetes.io/pod-index"] == "1", "{labels}");
    ensure!(played.claims[0]["metadata"]["name"] == "state-p2pnode-1");
    ensure!(played.own_volumes == ["p2pnode-1-run"]);
    let played = Played::of(&relay_node()?, 0, "/secrets")?;
    let secret = &played.secrets[0];
    ensure!(
        secret.directory == "/secrets/relay-node-identity",
        "{secret:?}"
    );
    ensure!((secret.mode, secret.group) == (0o440, 65532), "{secret:?}");
    ensure!(played.grace == 40 && !played.host_network);
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

/// The names of the metrics on which dashboards and alerts rest.
fn named_metrics() -> Result<BTreeSet<String>> {
    let dashboard: Value = serde_json::from_str(&read("monitoring/p2pnode/dashboard.json")?)?;
    let mut names = k8s::metrics::named_in(&dashboard);
    ensure!(names.len() > 10, "the dashboard names {names:?}");
    for rules in ["monitoring/p2pnode", "monitoring/relay-node"] {
        for rules in documents(&read(&format!("{rules}/prometheusrule.yaml"))?)? {
            let named = k8s::metrics::named_in(&rules);
            ensure!(!named.is_empty(), "{rules} names no metric");
            names.extend(named);
        }
    }
    Ok(names)
}

#[tokio::test]
async fn every_metric_that_dashboard_and_alerts_name_is_in_a_scrape() -> Result<()> {
    let bins = bins()?;
    let lab = Lab::new("k8s-metrics").await?;
    let relay =
        Relay::start_with(&lab, &bins, "relay", &[("RELAY_NODE_ADMIN_LISTEN", ADMIN)]).await?;
    let a = Peer::new(&lab, "a", NatKind::EimApdf).await?;
    let b = Peer::new(&lab, "b", NatKind::EimApdf).await?;
    let mut nodes = Vec::new();
    for (name, peer) in [("a", &a), ("b", &b)] {
        let launch = NodeArgs::new(&relay, &peer.host, &[Transport::Quic])
            .run(&lab, &bins, name)
            .env(ADMIN_LISTEN, ADMIN);
        let node = launch.start(&peer.host.device, lab.artifacts())?;
        let id = reserved(&node).await?;
        nodes.push((node, id));
    }
    // What is counted only when it happens: a punch that is direct, and a circuit that is refused.
    for (name, peer, code) in [("to-b", nodes[1].1.as_str(), 0), ("to-nobody", NOBODY, 4)] {
        let socket = p2pnode_tests::node::control_socket(lab.artifacts(), "a");
        let dial =
            Launch::new(name, &bins.p2pnode).args(["dial", peer, "--json", "--timeout", "10s"]);
        let dial = dial.env(p2pnode_tests::node::CONTROL_SOCKET, socket);
        let mut dial = dial.start(&a.host.device, lab.artifacts())?;
        let status = dial.exit(PATIENCE).await?;
        ensure!(
            status.code() == Some(code),
            "{name}: {status}: {}",
            dial.log()
        );
    }
    // The circuit of the direct dial closes in its own time, and is timed then.
    let closed = |read: &admin::Exposition| {
        (read.sum("relay_circuit_seconds_count", &[]) >= 1.0).then_some(())
    };
    admin::until(&relay.host, "a circuit that has closed", closed).await?;
    let mut known = BTreeSet::new();
    for host in [&a.host, &b.host, &relay.host] {
        let read = admin::metrics(host).await?;
        known.extend(read.samples.into_iter().map(|sample| sample.name));
    }
    let missing: Vec<_> = named_metrics()?
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    ensure!(
        missing.is_empty(),
        "{missing:?} are in no scrape; there are {known:?}"
    );

    // The same hosts, by probes that run a command.
    for (host, program, env) in [
        (&a.host, &bins.p2pnode, ADMIN_LISTEN),
        (&relay.host, &bins.relay_node, "RELAY_NODE_ADMIN_LISTEN"),
    ] {
        let variable = format!("{env}={ADMIN}");
        let program = program.display().to_string();
        for (probe, answer) in [("--live", "alive\n"), ("--ready", "ready\n")] {
            let args = [variable.as_str(), &program, "healthcheck", probe];
            let told = output(&host.device, Path::new("/usr/bin/env"), &args, PATIENCE).await?;
            ensure!(
                told.status.success() && told.stdout == answer.as_bytes(),
                "{args:?}: {told:?}"
            );
        }
    }
    lab.succeeded();
    Ok(())
}
