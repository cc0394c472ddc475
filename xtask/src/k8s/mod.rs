//! `cargo xtask test k8s`: what `k8s/` renders to, against Kubernetes' schemas, the binaries that it runs, and itself.

mod bench;
mod database;
mod mutations;
mod operator;
mod pods;
mod prometheus;
mod tools;

use std::{fs, process::ExitCode};

use anyhow::{Result, ensure};
use p2pnode_tests::k8s::{self, differences, documents, faults};
use serde_json::Value;

use bench::{Bench, Case};

pub(crate) use pods::in_lab;

/// Whether pods are played, and which binaries are in their images.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pods<'a> {
    No,
    /// Those of this profile of Cargo's, or those that are shipped.
    Of(Option<&'a str>),
}

pub(crate) fn run(pods: Pods<'_>) -> Result<ExitCode> {
    if let Pods::Of(_) = pods {
        // Before anything that takes long.
        pods::provide()?;
    }
    let bench = Bench::provide()?;
    let mut told = Vec::new();
    for case in bench::cases()? {
        println!("{}", case.name);
        told.extend(both_ways(&bench, &case)?);
    }
    println!("examples");
    told.extend(examples(&bench)?);
    println!("broken values");
    told.extend(mutations::uncaught(&bench)?);
    println!("alerts");
    told.extend(prometheus::faults(&bench)?);
    for fault in &told {
        println!("fault: {fault}");
    }
    ensure!(told.is_empty(), "{} faults in k8s/", told.len());
    if let Pods::Of(profile) = pods {
        pods::run(&bench, profile)?;
    }
    println!("k8s/ is as it should be; that its metrics exist is shown by `cargo test --test k8s`");
    Ok(ExitCode::SUCCESS)
}

/// Values beside those of the cases, which the binaries have to take, and what the configuration then has.
const OTHER_VALUES: [(&str, &str, &str); 12] = [
    ("p2pnode", "probes=exec", ""),
    (
        "p2pnode",
        "publicIp.from=value,publicIp.value=198.51.100.7",
        "/ip4/198.51.100.7/udp/{port}/quic-v1",
    ),
    (
        "p2pnode",
        "publicIp.from=value,publicIp.value=2001:db8::7",
        "/ip6/2001:db8::7/tcp/{port}",
    ),
    (
        "p2pnode",
        "services.db.target=tcp://postgres.default.svc:5432,services.db.allow={any},services.db.identity=proxy-v2",
        "target: tcp://postgres.default.svc:5432",
    ),
    (
        "p2pnode",
        "mappings.mode=auto,mappings.publish.dns.server=192.0.2.53:53,mappings.publish.dns.zone=p2p.example.net",
        "zone: p2p.example.net",
    ),
    (
        "p2pnode",
        "mappings.mode=hold,expose.web.protocol=tcp,expose.web.target=tcp://web.default.svc:8080,expose.web.identity=proxy-v2",
        "target: tcp://web.default.svc:8080",
    ),
    (
        "p2pnode",
        "config.socks.listen=127.0.0.1:1080",
        "listen: 127.0.0.1:1080",
    ),
    ("relay-node", "probes=exec", ""),
    ("relay-node", "externalHost=2001:db8::7", "2001:db8::7"),
    ("relay-node", "externalHost=198.51.100.7", "198.51.100.7"),
    ("relay-node", "families={ip4,ip6}", ""),
    ("relay-node", "drainSeconds=0", ""),
];

fn both_ways(bench: &Bench, case: &Case) -> Result<Vec<String>> {
    let (name, [kustomize, helm]) = (&case.name, bench.rendered(case)?);
    let mut told = wrong(bench, &format!("{name}-kustomize"), &kustomize)?;
    told.extend(wrong(bench, &format!("{name}-helm"), &helm)?);
    let differ = differences(&kustomize, &helm).into_iter();
    told.extend(differ.map(|found| format!("{name}: kustomize and helm differ: {found}")));
    Ok(told)
}

fn examples(bench: &Bench) -> Result<Vec<String>> {
    let job = fs::read_to_string(k8s::folder().join("examples/app-job.yaml"))?;
    let mut told = wrong(bench, "app-job", &documents(&job)?)?;
    let identities = bench.identities(&["p2pnode-0", "p2pnode-1"])?;
    told.extend(wrong(bench, "identity-secret", &[identities.secret])?);
    let peer = "test.peer=12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
    let dial = bench.helm("p2pnode", &[peer])?;
    let tests = dial.iter().filter(|manifest| manifest["kind"] == "Pod");
    ensure!(tests.count() == 1, "`helm test` has no pod");
    told.extend(wrong(bench, "helm-test", &dial)?);
    for (index, (chart, set, has)) in OTHER_VALUES.iter().enumerate() {
        let manifests = bench.helm(chart, &[set])?;
        let texts = manifests
            .iter()
            .filter(|manifest| manifest["kind"] == "ConfigMap")
            .map(|manifest| manifest["data"].to_string());
        if !texts.into_iter().any(|text| text.contains(has)) {
            told.push(format!("{chart} {set}: its configuration has no {has}"));
        }
        let found = wrong(bench, &format!("other-{index}"), &manifests)?.into_iter();
        told.extend(found.map(|fault| format!("{chart} {set}: {fault}")));
    }
    Ok(told)
}

fn wrong(bench: &Bench, name: &str, manifests: &[Value]) -> Result<Vec<String>> {
    ensure!(!manifests.is_empty(), "{name}: nothing is rendered");
    let mut found = bench.invalid(name, manifests)?;
    found.extend(faults(manifests, &bench.bins));
    Ok(found
        .into_iter()
        .map(|fault| format!("{name}: {fault}"))
        .collect())
}
