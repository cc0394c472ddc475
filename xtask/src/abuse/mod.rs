//! `cargo xtask test abuse`: attacks that last, on release binaries, while honest peers work alongside.
//!
//! Each attack has a lab of its own ([`rig`]): a relay, a node, honest peers, and hosts of the attacker, who runs `stranger attack`
//! of `tests/peers`. The honest peers work before the attack and during it, and both are compared. [`attacks`] lists the attacks
//! with what each may cost, from `docs/threat-model.md`.

mod attacks;
mod honest;
mod measured;
mod rig;
mod scene;
mod seen;
mod table;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::bins;

use crate::{
    cargo::{self, Build},
    tools,
};
use measured::Row;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// abuse: only these attacks, or those whose names contain one of these words
    #[arg(requires = "suite")]
    pub(crate) names: Vec<String>,
    /// abuse: how long each attack lasts
    #[arg(long, requires = "suite", default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub(crate) seconds: u64,
    /// abuse: JSON, one line for each attack, instead of the table
    #[arg(long, requires = "suite")]
    pub(crate) json: bool,
    /// abuse: only the names of the attacks
    #[arg(long, requires = "suite")]
    pub(crate) list: bool,
}

/// Runs the attacks, prints the table and fails if a budget was exceeded.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let chosen: Vec<_> = attacks::all()
        .into_iter()
        .filter(|attack| {
            let exact = |name: &str| attacks::all().iter().any(|attack| attack.name == name);
            let named = |name: &String| match exact(name) {
                true => attack.name == name,
                false => attack.name.contains(name.as_str()),
            };
            args.names.is_empty() || args.names.iter().any(named)
        })
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no attack is named so: see `cargo xtask test abuse --list`"
    );
    if args.list {
        for attack in chosen {
            println!("{:32} {}", attack.name, attack.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    tools::provide()?;
    let bins = cargo::bins(Build::Release)?;
    let stranger = match env::var_os("STRANGER_BIN") {
        Some(stranger) => stranger.into(),
        None => bins::build_plain_libp2p(true)?.with_file_name("stranger"),
    };
    let directory = tempfile::tempdir().context("no directory for the report")?;
    let mut rows = Vec::new();
    for (number, attack) in chosen.iter().enumerate() {
        eprintln!("{}/{} {}", number + 1, chosen.len(), attack.name);
        let report = directory.path().join(attack.name);
        let row = one(attack.name, args.seconds, &report, &bins, &stranger)
            .unwrap_or_else(|error| Row::failed(attack, &format!("{error:#}")));
        eprintln!("    {}", row.verdict());
        if args.json {
            println!("{}", serde_json::to_string(&row)?);
        }
        rows.push(row);
    }
    if !args.json {
        println!("{}", table::markdown(&rows));
    }
    let failed = rows.iter().filter(|row| !row.passed()).count();
    eprintln!("{failed} of {} attacks exceeded a budget", rows.len());
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A process for each: it enters the lab's sandbox, and what it leaves behind ends with it.
fn one(
    name: &str,
    seconds: u64,
    report: &Path,
    bins: &bins::Bins,
    stranger: &PathBuf,
) -> Result<Row> {
    let this = env::current_exe().context("path of this executable")?;
    let status = Command::new(this)
        .arg("abuse-in-lab")
        .args([name, &seconds.to_string()])
        .arg(report)
        .env("P2PNODE_BIN", &bins.p2pnode)
        .env("RELAY_NODE_BIN", &bins.relay_node)
        .env("STRANGER_BIN", stranger)
        .status()
        .context("the lab cannot be started")?;
    ensure!(status.success(), "the lab has failed ({status})");
    let text = fs::read_to_string(report).context("the report from the lab")?;
    serde_json::from_str(&text).context("the report from the lab")
}

/// The process that [`one`] starts, after it has entered the sandbox.
pub(crate) fn in_lab(name: &str, seconds: u64, report: &Path) -> Result<ExitCode> {
    let attack = attacks::all()
        .into_iter()
        .find(|attack| attack.name == name);
    let attack = attack.with_context(|| format!("no attack {name}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let row = runtime.block_on(rig::run(&attack, seconds))?;
    fs::write(report, serde_json::to_string(&row)?).context("the report")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_attack_has_a_name_of_its_own_and_somebody_who_attacks() {
        let all = attacks::all();
        let names: BTreeSet<_> = all.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(
            all.iter()
                .all(|attack| !attack.strangers.is_empty() || attack.evil.is_some())
        );
    }
}
