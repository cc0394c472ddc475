//! What the checks work with: renders kustomizations and charts, and holds manifests to Kubernetes' schemas.

use std::{fmt::Debug, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    bins::{self, Bins},
    k8s::{self, documents, title},
};
use serde::Deserialize;
use serde_json::Value;

use super::tools::Tools;
use crate::cargo::{self, Build};

/// What our own schemas are: Kubernetes has none of them, they come with the Prometheus Operator.
const OPERATOR: &str = "monitoring.coreos.com/v1";

pub(super) struct Bench {
    pub(super) tools: Tools,
    pub(super) bins: Bins,
    pub(super) directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(super) struct Case {
    pub(super) name: String,
    /// Below `k8s/kustomize`.
    overlay: String,
    /// Below `k8s`.
    components: Vec<String>,
    chart: String,
    set: Vec<String>,
}

pub(super) fn cases() -> Result<Vec<Case>> {
    let mut cases = documents(include_str!("cases.yaml"))?;
    Ok(serde_json::from_value(cases[0].take())?)
}

impl Bench {
    pub(super) fn provide() -> Result<Self> {
        let directory = bins::target_dir()?.join("k8s");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self {
            tools: Tools::provide(&directory.join("tools"))?,
            bins: cargo::bins(Build::Dev)?,
            directory,
        })
    }

    pub(super) fn rendered(&self, case: &Case) -> Result<[Vec<Value>; 2]> {
        Ok([self.kustomize(case)?, self.helm(&case.chart, &case.set)?])
    }

    fn kustomize(&self, case: &Case) -> Result<Vec<Value>> {
        // Kustomize takes nothing from outside a root but other roots, by relative paths; so this one stands beside them.
        let root = tempfile::Builder::new()
            .prefix(".test-")
            .tempdir_in(k8s::folder())?;
        let components: Vec<_> = case
            .components
            .iter()
            .map(|one| format!("../{one}"))
            .collect();
        let (overlay, components) = (&case.overlay, components.join(", "));
        let text = format!("resources: [../kustomize/{overlay}]\ncomponents: [{components}]\n");
        fs::write(root.path().join("kustomization.yaml"), text)?;
        rendered(
            self.tools
                .command("kubectl")
                .arg("kustomize")
                .arg(root.path()),
        )?
        .with_context(|| format!("{}: kustomize", case.name))
    }

    pub(super) fn helm<S: AsRef<str> + Debug>(&self, chart: &str, set: &[S]) -> Result<Vec<Value>> {
        self.try_helm(chart, set)?
            .with_context(|| format!("{chart} {set:?}"))
    }

    /// The same; the inner error is that of Helm, which refuses the values.
    pub(super) fn try_helm<S: AsRef<str>>(
        &self,
        chart: &str,
        set: &[S],
    ) -> Result<Result<Vec<Value>>> {
        let folder = k8s::folder();
        let mut helm = self.tools.command("helm");
        // The release is named as the manifests of kustomize are.
        helm.args(["template", chart])
            .arg(folder.join("charts").join(chart))
            .arg("--values")
            .arg(folder.join(format!("examples/{chart}-values.yaml")));
        for value in set {
            helm.args(["--set", value.as_ref()]);
        }
        rendered(&mut helm)
    }

    /// What Kubernetes' own schemas say against `manifests`. Those of the Prometheus Operator are not among them: its rules are
    /// checked by promtool, and its monitors by what they select.
    pub(super) fn invalid(&self, name: &str, manifests: &[Value]) -> Result<Vec<String>> {
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

/// The manifests that a command prints; the inner error is its own.
pub(super) fn rendered(command: &mut Command) -> Result<Result<Vec<Value>>> {
    let output = command
        .output()
        .with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    let read = || {
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", error.trim());
        documents(&String::from_utf8_lossy(&output.stdout))
    };
    Ok(read())
}
