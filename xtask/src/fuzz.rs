//! `cargo xtask fuzz`: compiles the fuzz targets with libFuzzer and runs each for a while, beginning with its seeds.
//!
//! The coverage that libFuzzer reads and the address sanitizer are parts of the pinned compiler that it calls unstable.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo;

/// The longest that one input may take, in seconds: a remote's message takes microseconds.
const SLOWEST: u64 = 10;

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
    let all = targets(&fuzz)?;
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        bail!(
            "there is no fuzz target {unknown}; there are {}",
            all.join(", ")
        );
    }
    let is_wanted = |name: &&String| args.targets.is_empty() || args.targets.contains(name);
    let wanted: Vec<&String> = all.iter().filter(is_wanted).collect();
    let programs = build(&fuzz, &wanted)?;
    let mut found = Vec::new();
    for target in wanted {
        println!("=== {target}");
        let corpus = fuzz.join("corpus").join(target);
        let artifacts = fuzz.join("artifacts").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let ran = Command::new(programs.join(target))
            .args([&corpus, &fuzz.join("seeds").join(target)])
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-timeout={SLOWEST}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .status()
            .with_context(|| format!("cannot run the fuzz target {target}"))?;
        if !ran.success() {
            found.push(target.as_str());
        }
    }
    ensure!(
        found.is_empty(),
        "inputs in fuzz/artifacts break these targets: {}",
        found.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}

/// The names of all targets, sorted.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(fuzz.join("fuzz_targets"))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|ext| ext == "rs")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Compiles these targets. Returns the folder of their programs.
fn build(fuzz: &Path, targets: &[&String]) -> Result<PathBuf> {
    let version = Command::new("rustc").arg("-vV").output();
    let version = String::from_utf8(version.context("cannot run rustc")?.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV names no host")?;
    // The flags are others than the workspace's: in its folder each would compile everything again for the other.
    let folder = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| fuzz.join("target"), |of| PathBuf::from(of).join("fuzz"));
    let flags = [
        "--cfg=fuzzing",
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        "-Zsanitizer=address",
    ];
    let mut command = Command::new("cargo");
    command
        .args(["build", "--locked", "--target", host, "--target-dir"])
        .arg(&folder)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .current_dir(fuzz);
    for target in targets {
        command.args(["--bin", target]);
    }
    cargo::run(&mut command)?;
    Ok(folder.join(host).join("debug"))
}
