//! Size of the binaries, memory of an idle node, time from start to ready.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{bins::Bins, usage};

use super::{
    programs::Common,
    report::{Better, Figure, Goal, Report, Row},
};
use crate::{
    cargo::{self, Build},
    child::{Node, Relay},
    tools,
};

const MB: f64 = 1_000_000.0;
const RUNS: u16 = 9;

/// How long a node is left alone before its memory counts: the handshakes and identify are over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn measure(args: &Args) -> Result<Report> {
    let bins = cargo::bins(Build::Release)?;
    let runs = args.common.runs.unwrap_or(RUNS);
    let (ready, memory) = tools::runtime()?.block_on(nodes(&bins, runs))?;
    let ours = |values: Vec<f64>, goal| vec![Row::new("ours", values).goal(Goal::AtMost(goal))];
    let mut report = Report::new(
        "sizes",
        format!(
            "The stripped binaries, and a node that runs on loopback: from the start of the process until it holds a reservation, \
             and its memory {} s later; {runs} runs.",
            SETTLE.as_secs()
        ),
    );
    report.figures = vec![
        Figure::new("binary", "MB", Better::Less)
            .cell("p2pnode", ours(vec![size(&bins.p2pnode)?], 15.0))
            .cell("relay-node", ours(vec![size(&bins.relay_node)?], 15.0)),
        Figure::new("start to ready", "ms", Better::Less).cell("p2pnode run", ours(ready, 150.0)),
        Figure::new("RSS", "MB", Better::Less).cell("p2pnode run, idle", ours(memory, 15.0)),
    ];
    Ok(report)
}

/// Starts a node `runs` times; milliseconds to its reservation and megabytes of its memory.
async fn nodes(bins: &Bins, runs: u16) -> Result<(Vec<f64>, Vec<f64>)> {
    let directory = tempfile::tempdir().context("no directory for keys")?;
    let relay = Relay::start(bins, directory.path(), &[]).await?;
    let (mut ready, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        let node = Node::start(bins, directory.path(), &relay).await?;
        ready.push(start.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(SETTLE).await;
        memory.push(usage::memory(node.child.pid()?)? as f64 * 1024.0 / MB);
    }
    Ok((ready, memory))
}

fn size(binary: &Path) -> Result<f64> {
    let metadata = fs::metadata(binary).with_context(|| binary.display().to_string())?;
    Ok(metadata.len() as f64 / MB)
}
