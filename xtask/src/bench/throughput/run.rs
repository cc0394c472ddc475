//! One cell: every program in turn.

use anyhow::Result;
use p2pnode_tests::transfer::{Engine, Moved};

use super::{Args, Contest, Peer, RUNS};
use crate::bench::path::{Path, without_iperf3};

/// What was measured in one cell: for each program its transfers.
pub(super) struct Measured {
    pub(super) label: String,
    pub(super) programs: Vec<(String, Option<f64>, Vec<Option<Moved>>)>,
    /// Why a peer failed, if one did.
    pub(super) failures: Vec<String>,
}

/// Measures one cell.
pub(super) async fn measure(
    contest: Contest,
    args: &Args,
    path: &Path,
    label: String,
    streams: u16,
) -> Result<Measured> {
    let seconds = f64::from(args.seconds);
    let mut engines = vec![(Engine::Ours, None)];
    for (engine, goal) in contest.peers {
        if Peer::of(*engine).is_some_and(|peer| args.wants(peer)) {
            engines.push((*engine, *goal));
        }
    }
    let transport = contest.transport;
    let mut runners = Vec::new();
    for (engine, goal) in engines {
        let size = path.size(engine, transport, streams, seconds).await;
        let mut runner = Runner {
            engine,
            goal,
            bytes: None,
            moved: Vec::new(),
            failures: Vec::new(),
        };
        runner.bytes = runner.unless_failed(size)?;
        runners.push(runner);
    }
    let mut ceiling = Vec::new();
    for _ in 0..args.common.runs.unwrap_or(RUNS) {
        for runner in &mut runners {
            let moved = match runner.bytes {
                Some(bytes) => {
                    let moved = path.transfer(runner.engine, transport, streams, bytes);
                    runner.unless_failed(moved.await)?
                }
                None => None,
            };
            runner.moved.push(moved);
        }
        if args.wants(Peer::Iperf3) && without_iperf3().is_none() {
            ceiling.push(Some(path.iperf3(streams, seconds).await?));
        }
    }
    let (mut programs, mut failures) = (Vec::new(), Vec::new());
    for runner in runners {
        // They are all of a kind.
        if let Some(first) = runner.failures.first() {
            failures.push(format!("{label}: {first}"));
        }
        programs.push((runner.engine.name().to_owned(), runner.goal, runner.moved));
    }
    if !ceiling.is_empty() {
        programs.push(("iperf3, TCP".to_owned(), None, ceiling));
    }
    Ok(Measured {
        label,
        programs,
        failures,
    })
}

/// A program in a cell.
struct Runner {
    engine: Engine,
    goal: Option<f64>,
    /// What it moves in one run; none if it could not be found.
    bytes: Option<u64>,
    moved: Vec<Option<Moved>>,
    failures: Vec<String>,
}

impl Runner {
    /// A peer that fails has a failed run, and the others go on. Ours must not fail.
    fn unless_failed<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.engine == Engine::Ours => Err(error),
            Err(error) => {
                let text = format!("{error:#}");
                // Where its log is does not belong into a report; what the log ends with does.
                let lines: Vec<_> = text.lines().collect();
                self.failures.push(match lines[..] {
                    [_, .., last] => format!("{}: {last}", self.engine.name()),
                    _ => text,
                });
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_peer_may_fail_and_ours_may_not() {
        let mut runner = Runner {
            engine: Engine::Iroh,
            goal: None,
            bytes: None,
            moved: Vec::new(),
            failures: Vec::new(),
        };
        let failed = || Err::<u64, _>(anyhow::anyhow!("the end of its log:\nfirst\ntoo many gaps"));
        assert_eq!(runner.unless_failed(failed()).unwrap(), None);
        assert_eq!(runner.failures, ["iroh: too many gaps"]);
        runner.engine = Engine::Ours;
        assert!(runner.unless_failed(failed()).is_err());
    }
}
