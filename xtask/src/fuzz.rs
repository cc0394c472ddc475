//! `cargo xtask fuzz`: runs each fuzz target for a while, beginning with its seeds.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these targets; all if none is given.
    targets: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask is a folder of the workspace")?;
    let fuzz = root.join("fuzz");
    let cargo_fuzz = |words: &[&str]| {
        let mut command = Command::new("cargo");
        // The toolchain of the one who runs this is pinned, and its variables would win over `+nightly`.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        command.args(["+nightly", "fuzz"]).args(words);
        command.current_dir(root);
        command
    };
    let listed = cargo_fuzz(&["list"]).stderr(Stdio::inherit()).output();
    let listed = listed.ok().filter(|listed| listed.status.success());
    let listed = listed.context(
        "needs a nightly toolchain and cargo-fuzz: `rustup toolchain install nightly`, `cargo install --locked cargo-fuzz`",
    )?;
    let listed = String::from_utf8(listed.stdout)?;
    let all: Vec<&str> = listed.lines().collect();
    if let Some(unknown) = args
        .targets
        .iter()
        .find(|name| !all.contains(&name.as_str()))
    {
        bail!(
            "there is no fuzz target {unknown}; there are {}",
            all.join(", ")
        );
    }
    let mut found = Vec::new();
    for target in all {
        if !args.targets.is_empty() && !args.targets.iter().any(|name| name == target) {
            continue;
        }
        let corpus = fuzz.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let (corpus, seeds) = (corpus.to_string_lossy(), fuzz.join("seeds").join(target));
        let seeds = seeds.to_string_lossy();
        let time = format!("-max_total_time={}", args.seconds);
        println!("=== {target}");
        let ran = cargo_fuzz(&["run", target, &corpus, &seeds, "--", &time]).status()?;
        if !ran.success() {
            found.push(target);
        }
    }
    ensure!(
        found.is_empty(),
        "these targets do not compile, or have found inputs that break them: {}",
        found.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}
