//! Size of the binaries, memory of an idle node, time from start to ready.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use p2pnode_tests::{bins::Bins, usage};

use crate::{
    cargo::{self, Build},
    child::{Node, Relay},
};

const MB: f64 = 1_000_000.0;

/// How long a node is left alone before its memory counts: the handshakes and identify are over by then.
const SETTLE: Duration = Duration::from_secs(2);

/// A figure and what it should be at most.
struct Figure {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    goal: f64,
}

/// Measures and prints; a goal that is missed is printed, not an error: machines differ.
pub(crate) fn run(runs: u16) -> Result<ExitCode> {
    let bins = cargo::bins(Build::Release)?;
    let (ready, memory) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(nodes(&bins, runs))?;
    let figures = [
        Figure {
            name: "p2pnode, stripped",
            unit: "MB",
            values: vec![size(&bins.p2pnode)?],
            goal: 15.0,
        },
        Figure {
            name: "relay-node, stripped",
            unit: "MB",
            values: vec![size(&bins.relay_node)?],
            goal: 15.0,
        },
        Figure {
            name: "p2pnode run, start to ready",
            unit: "ms",
            values: ready,
            goal: 150.0,
        },
        Figure {
            name: "p2pnode run, idle, RSS",
            unit: "MB",
            values: memory,
            goal: 15.0,
        },
    ];
    println!(
        "\n{:30} {:>8} {:>8} {:>8} {:>8}  {:4}",
        "", "median", "least", "most", "goal", "unit"
    );
    for figure in figures {
        figure.print();
    }
    println!(
        "\nready: from the start of the process until it holds a reservation on a relay on loopback; {runs} runs"
    );
    Ok(ExitCode::SUCCESS)
}

/// Starts a node `runs` times; milliseconds to its reservation and megabytes of its memory.
async fn nodes(bins: &Bins, runs: u16) -> Result<(Vec<f64>, Vec<f64>)> {
    let directory = tempfile::tempdir().context("no directory for keys")?;
    let relay = Relay::start(bins, directory.path()).await?;
    let (mut ready, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        let node = Node::start(bins, directory.path(), &relay).await?;
        ready.push(start.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(SETTLE).await;
        memory.push(usage::memory(node.pid()?)? as f64 * 1024.0 / MB);
    }
    Ok((ready, memory))
}

fn size(binary: &Path) -> Result<f64> {
    let metadata = fs::metadata(binary).with_context(|| binary.display().to_string())?;
    Ok(metadata.len() as f64 / MB)
}

impl Figure {
    fn print(mut self) {
        self.values.sort_by(f64::total_cmp);
        let middle = self.values.len() / 2;
        let median = if self.values.len() % 2 == 1 {
            self.values[middle]
        } else {
            f64::midpoint(self.values[middle - 1], self.values[middle])
        };
        let (least, most) = (self.values[0], self.values[self.values.len() - 1]);
        let verdict = if median <= self.goal { "" } else { "  missed" };
        println!(
            "{:30} {median:8.1} {least:8.1} {most:8.1} {:8.1}  {:4}{verdict}",
            self.name, self.goal, self.unit
        );
    }
}
