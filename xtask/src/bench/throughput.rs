//! What a direct connection carries, and what processor time it takes for that: ours, its peers, and iperf3 as the ceiling, in
//! turn, over a path of two routers.
//!
//! Each program moves as much as it can in about the same time, found beforehand, so that a slow one does not take minutes where a
//! fast one takes a second. Both processes are new for each transfer.

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use p2pnode_tests::{
    args::Transport,
    transfer::{Engine, Moved},
};

use super::{
    path::{Between, Path, without_iperf3},
    programs::{Common, Named, iroh, or, percent, transfer},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::tools;

const RUNS: u16 = 5;

/// Every value that the issue asks for, for `--rtt 50` to mean all cells of it.
const RTTS: [u64; 4] = [0, 20, 50, 100];
const LOSSES: [f64; 3] = [0.0, 0.1, 1.0];
const STREAMS: [u16; 2] = [1, 8];

/// What is measured when nothing is asked for: round trips, losses and streams each against one cell, in ten minutes.
#[rustfmt::skip]
const USUAL: [(u64, f64, u16); 9] = [
    (0, 0.0, 1), (0, 0.0, 8), (20, 0.0, 1), (50, 0.0, 1), (50, 0.0, 8), (50, 0.1, 1), (50, 1.0, 1), (50, 1.0, 8), (100, 0.0, 1),
];

/// How to measure. Without a choice of cells those that tell most are measured; all are `--rtt 0,20,50,100`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these round trips, in milliseconds, with every loss and number of streams unless chosen too.
    #[arg(long, value_name = "MS", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=2000))]
    rtt: Vec<u64>,
    /// Only these losses, in percent of the packets of each way.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = percent)]
    loss: Vec<f64>,
    /// Only these numbers of streams of one connection.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1000))]
    streams: Vec<u16>,
    /// Only these beside ours. Default: all that the transport has, and iperf3 if it is installed.
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// How long each transfer should take, in seconds.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Who is measured beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Ours with `dial.congestion: bbr`.
    Bbr,
    Libp2p,
    Quinn,
    Iroh,
    /// The ceiling.
    Iperf3,
}

impl Args {
    fn wants(&self, peer: Peer) -> bool {
        self.peers.is_empty() || self.peers.contains(&peer)
    }

    fn cells(&self) -> Vec<(Between, u16)> {
        if self.rtt.is_empty() && self.loss.is_empty() && self.streams.is_empty() {
            return USUAL
                .map(|(rtt, loss, streams)| (Between { rtt, loss }, streams))
                .into();
        }
        let mut cells = Vec::new();
        for rtt in or(&self.rtt, &RTTS) {
            for loss in or(&self.loss, &LOSSES) {
                let streams = or(&self.streams, &STREAMS).into_iter();
                cells.extend(streams.map(|streams| (Between { rtt, loss }, streams)));
            }
        }
        cells
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Contest {
    pub(super) name: &'static str,
    pub(super) transport: Transport,
    /// What is measured beside ours, and what ours is to carry as a part of theirs.
    peers: &'static [(Peer, Engine, Option<f64>)],
}

pub(super) const QUIC: Contest = Contest {
    name: "throughput-quic",
    transport: Transport::Quic,
    peers: &[
        (Peer::Bbr, Engine::OursBbr, None),
        (Peer::Libp2p, Engine::Libp2p, Some(1.5)),
        (Peer::Quinn, Engine::Quinn, Some(0.95)),
        (Peer::Iroh, Engine::Iroh, Some(1.0)),
    ],
};

pub(super) const TCP: Contest = Contest {
    name: "throughput-tcp",
    transport: Transport::Tcp,
    peers: &[
        (Peer::Libp2p, Engine::Libp2p, Some(1.2)),
        // The same encryption as ours: what is left is what our transport costs.
        (Peer::Libp2p, Engine::Libp2pTls, None),
    ],
};

impl Contest {
    pub(super) fn programs(self, args: &Args) -> Result<Vec<Named>> {
        self.check(args)?;
        let mut programs = vec![transfer()?];
        if self.chosen(args).any(|(engine, _)| engine == Engine::Iroh) {
            programs.push(iroh()?);
        }
        Ok(programs)
    }

    fn check(self, args: &Args) -> Result<()> {
        for peer in &args.peers {
            let has = *peer == Peer::Iperf3 || self.peers.iter().any(|(its, _, _)| its == peer);
            let value = peer.to_possible_value();
            let name = value.as_ref().map_or("", |value| value.get_name());
            ensure!(
                has,
                "--peers {name}: not one of those that {} has: leave it out",
                self.name
            );
        }
        if let Some(missing) = without_iperf3()
            && args.peers.contains(&Peer::Iperf3)
        {
            bail!("--peers iperf3: {missing}");
        }
        Ok(())
    }

    fn chosen(self, args: &Args) -> impl Iterator<Item = (Engine, Option<f64>)> {
        let peers = self.peers.iter().filter(|(peer, _, _)| args.wants(*peer));
        peers.map(|(_, engine, goal)| (*engine, *goal))
    }
}

pub(super) fn measure_in_lab(contest: Contest, args: &Args) -> Result<Report> {
    let cells = args.cells();
    let runtime = tools::runtime()?;
    let (mut measured, mut impaired_by) = (Vec::new(), None);
    let mut rest = cells.as_slice();
    let mut first = true;
    while let Some((between, _)) = rest.first() {
        // One lab for all cells of a link.
        let same = rest.iter().take_while(|(other, _)| other == between);
        let (now, later) = rest.split_at(same.count());
        rest = later;
        runtime.block_on(async {
            let path = Path::new(contest.name, *between).await?;
            impaired_by = impaired_by.or(path.lab.impaired_by());
            if std::mem::take(&mut first) {
                path.hold_range(contest.transport).await?;
            }
            for (between, streams) in now {
                let label = label(*between, *streams);
                eprintln!("{}: {label}", contest.name);
                measured.push(measure(contest, args, &path, label, *streams).await?);
            }
            path.lab.succeeded();
            anyhow::Ok(())
        })?;
    }
    let mut report = report(contest, args, &measured);
    if args.wants(Peer::Iperf3) {
        report.notes.extend(without_iperf3());
    }
    report.notes.extend(
        impaired_by
            .map(|by| format!("Round trips and losses by {by}, where the two routers meet.")),
    );
    report.notes.push(format!(
        "Congestion control of the kernel, for TCP: {}.",
        std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
            .unwrap_or_default()
            .trim()
    ));
    Ok(report)
}

struct Measured {
    label: String,
    programs: Vec<(String, Option<f64>, Vec<Option<Moved>>)>,
    failures: Vec<String>,
}

async fn measure(
    contest: Contest,
    args: &Args,
    path: &Path,
    label: String,
    streams: u16,
) -> Result<Measured> {
    let seconds = f64::from(args.seconds);
    let transport = contest.transport;
    let mut runners = Vec::new();
    for (engine, goal) in std::iter::once((Engine::Ours, None)).chain(contest.chosen(args)) {
        let mut runner = Runner::new(engine, goal);
        let size = path.size(engine, transport, streams, seconds).await;
        runner.bytes = runner.unless_failed(size)?;
        runners.push(runner);
    }
    let mut ceiling = Vec::new();
    for _ in 0..args.common.runs.unwrap_or(RUNS) {
        for runner in &mut runners {
            let mut moved = None;
            if let Some(bytes) = runner.bytes {
                let transfer = path.transfer(runner.engine, transport, streams, bytes);
                moved = runner.unless_failed(transfer.await)?;
            }
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

struct Runner {
    engine: Engine,
    goal: Option<f64>,
    /// What it moves in one run; none if it could not be found.
    bytes: Option<u64>,
    moved: Vec<Option<Moved>>,
    failures: Vec<String>,
}

impl Runner {
    fn new(engine: Engine, goal: Option<f64>) -> Self {
        Self {
            engine,
            goal,
            bytes: None,
            moved: Vec::new(),
            failures: Vec::new(),
        }
    }

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

fn report(contest: Contest, args: &Args, cells: &[Measured]) -> Report {
    let what = format!(
        "Bytes from one process to another over one connection ({}) and a path of two routers that neither translate nor filter: as many \
         as each program moves in about {} s, from the word to send until the receiver has confirmed the last; the processor time is \
         that of both processes, and all of them share this machine.",
        contest.transport.name().to_uppercase(),
        args.seconds
    );
    let mut report = Report::new(contest.name, what);
    report.figures = figures(cells);
    let failures = cells.iter().flat_map(|cell| &cell.failures);
    report.notes.extend(failures.cloned());
    report
}

fn figures(cells: &[Measured]) -> Vec<Figure> {
    let figure = |name, unit, better, of: fn(&Moved) -> f64, goal: fn(f64) -> Goal| {
        let mut figure = Figure::new(name, unit, better);
        for cell in cells {
            let rows = cell.programs.iter().map(|(program, bound, moved)| {
                let values = moved.iter().map(|moved| moved.as_ref().map(of));
                Row::of(program, values).goal(bound.map(goal))
            });
            figure.push(&cell.label, rows.collect());
        }
        figure
    };
    vec![
        figure("goodput", "Gbit/s", Better::More, gbit_s, Goal::AtLeast),
        // What carries so much more with the same time takes so much less of it.
        figure("CPU time", "s/GB", Better::Less, cpu_s_gb, |bound| {
            Goal::AtMost(1.0 / bound)
        }),
    ]
}

fn label(between: Between, streams: u16) -> String {
    let plural = if streams == 1 { "" } else { "s" };
    let Between { rtt, loss } = between;
    format!("{rtt} ms, {loss} % loss, {streams} stream{plural}")
}

fn gbit_s(moved: &Moved) -> f64 {
    moved.bytes as f64 * 8.0 / 1e9 / moved.seconds
}

fn cpu_s_gb(moved: &Moved) -> f64 {
    moved.cpu_seconds / (moved.bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_peer_may_fail_and_ours_may_not() {
        let failed = || Err::<u64, _>(anyhow::anyhow!("the end of its log:\nfirst\ntoo many gaps"));
        let mut runner = Runner::new(Engine::Iroh, None);
        assert_eq!(runner.unless_failed(failed()).unwrap(), None);
        assert_eq!(runner.failures, ["iroh: too many gaps"]);
        let mut ours = Runner::new(Engine::Ours, None);
        assert!(ours.unless_failed(failed()).is_err());
    }
}
