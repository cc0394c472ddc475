//! A podman of a test's own, which plays the pods of one node.
//!
//! podman runs as root and keeps everything below one directory, so that nothing of it meets the podman of whoever runs the test. The
//! network of the node is the one in which podman is started: a pod with `hostNetwork` has it, and for any other podman makes a bridge
//! and a masquerade in it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};

use crate::sandbox;

/// What podman needs beside itself, with the Debian package that has it. Of the runtimes one suffices.
const TOOLS: [(&str, &str); 4] = [
    ("podman", "podman"),
    // What every pod begins with.
    ("catatonit", "catatonit"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];
const RUNTIMES: [&str; 2] = ["crun", "runc"];

/// The tools for playing pods that are not installed, each with its Debian package.
#[must_use]
pub fn missing_tools() -> Vec<(&'static str, &'static str)> {
    let mut missing = TOOLS.to_vec();
    missing.retain(|(tool, _)| !sandbox::has_tool(tool));
    if runtime().is_none() {
        missing.push(("runc", "runc"));
    }
    missing
}

fn runtime() -> Option<&'static str> {
    RUNTIMES
        .into_iter()
        .find(|runtime| sandbox::has_tool(runtime))
}

/// A podman that keeps everything in one directory.
#[derive(Clone, Debug)]
pub struct Podman {
    directory: PathBuf,
    /// The variables that tell it so.
    env: [(&'static str, PathBuf); 2],
}

impl Podman {
    /// In `directory`, which is emptied. Images are also taken from that of another podman.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made.
    pub fn new(directory: PathBuf, images: Option<&Path>) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let at = |name: &str| format!("{:?}", directory.join(name).display().to_string());
        let runtime = runtime().context("neither crun nor runc is installed")?;
        let limits = limits()?;
        let (network, log) = (at("net"), "k8s-file");
        // Without systemd, and without the right to raise limits.
        let containers = format!(
            "[containers]\ndefault_ulimits = [{limits}]\nlog_driver = \"{log}\"\n\
             [engine]\nruntime = \"{runtime}\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             static_dir = {}\ntmp_dir = {}\nvolume_path = {}\n\
             [network]\nnetwork_config_dir = {network}\n",
            at("static"),
            at("tmp"),
            at("volumes"),
        );
        let mut storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {}\nrunroot = {}\n",
            at("root"),
            at("run")
        );
        if let Some(images) = images {
            let store = images.join("root").display().to_string();
            writeln!(
                storage,
                "[storage.options]\nadditionalimagestores = [{store:?}]"
            )?;
        }
        let files = [
            ("CONTAINERS_CONF", "containers.conf", containers),
            ("CONTAINERS_STORAGE_CONF", "storage.conf", storage),
        ];
        let mut env = Vec::new();
        for (variable, name, content) in files {
            let file = directory.join(name);
            fs::write(&file, content).with_context(|| file.display().to_string())?;
            env.push((variable, file));
        }
        let env = <[_; 2]>::try_from(env).map_err(|_| anyhow::anyhow!("two variables"))?;
        Ok(Self { directory, env })
    }

    /// Where it keeps everything.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The variables with which `podman` is this one.
    #[must_use]
    pub fn env(&self) -> &[(&'static str, PathBuf)] {
        &self.env
    }
}

/// Limits of containers: podman asks for more than a process may have that cannot raise its own.
fn limits() -> Result<String> {
    let limits = [
        ("nofile", Resource::RLIMIT_NOFILE, 1_048_576),
        ("nproc", Resource::RLIMIT_NPROC, 4_194_304),
    ];
    let mut told = Vec::new();
    for (name, resource, most) in limits {
        let (_, hard) = getrlimit(resource).with_context(|| name.to_owned())?;
        let hard = hard.min(most);
        told.push(format!("\"{name}={hard}:{hard}\""));
    }
    Ok(told.join(", "))
}
