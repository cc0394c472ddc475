//! The tools of `test k8s`: taken from the machine where it has them, else fetched into `target/k8s/tools`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::sandbox::has_tool;

use crate::tools;

const KUBERNETES: &str = "1.32";

pub(super) struct Tools {
    directory: PathBuf,
}

impl Tools {
    pub(super) fn provide(directory: &Path) -> Result<Self> {
        let mut fetch = Command::new("sh");
        fetch
            .args(["-c", include_str!("tools.sh"), "tools.sh"])
            .arg(directory);
        let status = fetch.status().context("sh")?;
        ensure!(
            status.success(),
            "the tools of Kubernetes are not to be had ({status})"
        );
        if !has_tool("promtool") {
            tools::install("the tests of alert rules", &[("promtool", "prometheus")])?;
        }
        let directory = directory.to_owned();
        Ok(Self { directory })
    }

    pub(super) fn command(&self, tool: &str) -> Command {
        let fetched = self.directory.join("bin").join(tool);
        let mut command = match fetched.is_file() {
            true => Command::new(fetched),
            false => Command::new(tool),
        };
        // Helm keeps what it fetches there.
        command.env("HOME", self.directory.join("home"));
        command.env_remove("KUBECONFIG");
        command
    }

    pub(super) fn kubernetes_validate(&self) -> Command {
        let mut validate = self.command("kubernetes-validate");
        validate.args(["--strict", "-k", KUBERNETES]);
        validate
    }
}
