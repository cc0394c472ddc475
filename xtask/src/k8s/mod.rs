//! `cargo xtask test k8s`: what `k8s/` renders to, against Kubernetes' schemas, the binaries that it runs, and itself.

mod bench;
mod mutations;
mod operator;
mod pods;
mod prometheus;
mod tools;

use std::{fs, process::ExitCode};

use anyhow::{Result, ensure};
use p2pnode_tests::k8s::{self, differences, documents, faults};
use serde_json::Value;

use bench::{Bench, CASES, Case};

pub(crate) use pods::in_lab;

/// Whether pods are played, and which binaries are in their images.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pods<'a> {
    /// None.
    No,
    /// Those of this profile of Cargo's, or those that are shipped.
    Of(Option<&'a str>),
}

/// Provides the tools and the binaries, and runs every check; all faults are told.
pub(crate) fn run(pods: Pods<'_>) -> Result<ExitCode> {
    if let Pods::Of(_) = pods {
        // Before anything that takes long.
        pods::provide()?;
    }
    let bench = Bench::provide()?;
    let mut told = Vec::new();
    for case in CASES {
        println!("{}", case.name);
        told.extend(
            bench
                .case(case)?
                .into_iter()
                .map(|fault| format!("{}: {fault}", case.name)),
        );
    }
    println!("examples");
    told.extend(bench.examples()?);
    println!("broken values");
    told.extend(mutations::uncaught(&bench)?);
    println!("alerts and dashboard");
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

/// Values beside those of the cases, which the binaries have to take.
const OTHER_VALUES: [(&str, &str); 8] = [
    ("p2pnode", "probes=exec"),
    ("p2pnode", "publicIp.from=value,publicIp.value=198.51.100.7"),
    ("p2pnode", "publicIp.from=value,publicIp.value=2001:db8::7"),
    ("relay-node", "probes=exec"),
    ("relay-node", "externalHost=2001:db8::7"),
    ("relay-node", "externalHost=198.51.100.7"),
    ("relay-node", "families={ip4,ip6}"),
    ("relay-node", "drainSeconds=0"),
];

impl Bench {
    /// Both renderings of a case: each by itself, and against the other.
    fn case(&self, case: &Case) -> Result<Vec<String>> {
        let kustomize = self.kustomize(case)?;
        let chart = self.helm(case.chart, case.values, case.set)?;
        let mut told = Vec::new();
        for (way, manifests) in [("kustomize", &kustomize), ("helm", &chart)] {
            ensure!(
                !manifests.is_empty(),
                "{}: {way} renders nothing",
                case.name
            );
            let mut found = self.invalid(&format!("{}-{way}", case.name), manifests)?;
            found.extend(faults(manifests, &self.bins));
            told.extend(found.into_iter().map(|fault| format!("{way}: {fault}")));
        }
        let differ = differences(&kustomize, &chart).into_iter();
        told.extend(differ.map(|found| format!("kustomize and helm differ: {found}")));
        Ok(told)
    }

    fn examples(&self) -> Result<Vec<String>> {
        let job = fs::read_to_string(k8s::folder().join("examples/app-job.yaml"))?;
        let job = documents(&job)?;
        let mut told = self.invalid("app-job", &job)?;
        told.extend(faults(&job, &self.bins));
        let identities = self.identities(&["p2pnode-0", "p2pnode-1"])?;
        told.extend(self.invalid("identity-secret", &[identities.secret])?);
        let dial = self.helm(
            "p2pnode",
            "p2pnode-values.yaml",
            &["test.peer=12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8"],
        )?;
        let is_test = |manifest: &&Value| manifest["kind"] == "Pod";
        ensure!(
            dial.iter().filter(is_test).count() == 1,
            "`helm test` has no pod"
        );
        told.extend(self.invalid("helm-test", &dial)?);
        told.extend(faults(&dial, &self.bins));
        for (chart, set) in OTHER_VALUES {
            let found = faults(
                &self.helm(chart, &format!("{chart}-values.yaml"), &[set])?,
                &self.bins,
            );
            told.extend(
                found
                    .into_iter()
                    .map(|fault| format!("{chart} {set}: {fault}")),
            );
        }
        Ok(told)
    }
}
