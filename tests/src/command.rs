//! System tools, run in the network of the calling thread.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{prctl, signal::Signal};
use patchbay::Router;

use crate::sandbox::tool;

pub(crate) fn run(program: &str, args: &[&str]) -> Result<String> {
    feed(program, args, "")
}

pub(crate) fn load_rules(router: &Router, rules: String) -> Result<()> {
    let loaded = router.run_sync(move || {
        feed("nft", &["-f", "-"], &rules).with_context(|| format!("the rules:\n{rules}"))
    });
    loaded.map(drop).with_context(|| router.name().to_owned())
}

pub(crate) fn feed(program: &str, args: &[&str], input: &str) -> Result<String> {
    let what = format!("{program} {}", args.join(" "));
    let mut child = Command::new(tool(program))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program}: cannot be started"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that does not read says why on its stderr.
        let _written = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| what.clone())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lets a command end with the thread that starts it, which ends with the lab: also a test that is killed leaves no process
/// behind.
pub(crate) fn end_with_lab(command: &mut tokio::process::Command) {
    #[allow(
        unsafe_code,
        reason = "prctl is the only way to tie a child's life to its parent's, and it is async-signal-safe"
    )]
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}
