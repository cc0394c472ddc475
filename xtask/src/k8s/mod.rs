//! `cargo xtask test k8s`: what `k8s/` renders to, against Kubernetes' schemas, the binaries that it runs, and itself.

mod mutations;
mod pods;
mod prometheus;
mod render;
mod tools;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    bins::{self, Bins},
    k8s::{self, differences, documents, faults, title},
};
use serde_json::Value;

use crate::cargo::{self, Build};
use render::{CASES, Case};
use tools::Tools;

/// What our own schemas are: Kubernetes has none of them, they come with the Prometheus Operator.
const OPERATOR: &str = "monitoring.coreos.com/v1";

/// What the checks work with.
struct Bench {
    tools: Tools,
    bins: Bins,
    /// For what is rendered.
    directory: PathBuf,
}

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

impl Bench {
    fn provide() -> Result<Self> {
        let directory = bins::target_dir()?.join("k8s");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self {
            tools: Tools::provide(&directory.join("tools"))?,
            bins: cargo::bins(Build::Dev)?,
            directory,
        })
    }

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
        for set in [
            "probes=exec",
            "publicIp.from=value,publicIp.value=198.51.100.7",
            "publicIp.from=value,publicIp.value=2001:db8::7",
        ] {
            told.extend(faults(
                &self.helm("p2pnode", "p2pnode-values.yaml", &[set])?,
                &self.bins,
            ));
        }
        for set in [
            "probes=exec",
            "externalHost=2001:db8::7",
            "externalHost=198.51.100.7",
            "families={ip4,ip6}",
            "drainSeconds=0",
        ] {
            let found = faults(
                &self.helm("relay-node", "relay-node-values.yaml", &[set])?,
                &self.bins,
            );
            told.extend(
                found
                    .into_iter()
                    .map(|fault| format!("relay-node {set}: {fault}")),
            );
        }
        Ok(told)
    }

    /// What Kubernetes' own schemas say against `manifests`. Those of the Prometheus Operator are not among them: its rules are
    /// checked by promtool, and its monitors by what they select.
    fn invalid(&self, name: &str, manifests: &[Value]) -> Result<Vec<String>> {
        let file = self.directory.join(format!("{name}.json"));
        let known: Vec<_> = manifests
            .iter()
            .filter(|manifest| manifest["apiVersion"] != OPERATOR)
            .collect();
        let texts: Vec<_> = known.iter().map(|manifest| manifest.to_string()).collect();
        // JSON is YAML, and documents of YAML are separated so.
        fs::write(&file, texts.join("\n---\n"))?;
        let output = self
            .tools
            .kubernetes_validate()
            .arg(&file)
            .output()
            .context("kubernetes-validate")?;
        let said = [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        let passed = said
            .lines()
            .filter(|line| line.contains(" passed for resource "))
            .count();
        if output.status.success() && passed == known.len() {
            return Ok(Vec::new());
        }
        let mut told: Vec<_> = said
            .lines()
            .filter(|line| !line.contains(" passed for resource "))
            .map(str::to_owned)
            .collect();
        if told.is_empty() {
            let titles: Vec<_> = known.iter().map(|manifest| title(manifest)).collect();
            told.push(format!("kubernetes-validate passed {passed} of {titles:?}"));
        }
        Ok(told)
    }
}
