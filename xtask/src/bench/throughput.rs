//! What a direct connection carries, and what processor time it takes for that: ours, its peers, and iperf3 as the ceiling, in
//! turn, over a path of two routers.
//!
//! Each program moves as much as it can in about the same time, found beforehand, so that a slow one does not take minutes where a
//! fast one takes a second. Both processes are new for each transfer.

mod run;
pub(super) mod wrapper;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use p2pnode_tests::{
    args::Transport,
    transfer::{Engine, Moved},
};
use run::{Measured, measure};
use serde::{Deserialize, Serialize};

use super::{
    Common,
    path::{Between, Path, label, without_iperf3},
    report::{Better, Figure, Goal, Report, Row},
};

const RUNS: u16 = 5;

/// Every value that the issue asks for, for `--rtt 50` to mean all cells of it.
const RTTS: [u64; 4] = [0, 20, 50, 100];
const LOSSES: [f64; 3] = [0.0, 0.1, 1.0];
const STREAMS: [u16; 2] = [1, 8];

/// What is measured when nothing is asked for: round trips, losses and streams each against one cell, in ten minutes.
const USUAL: [(u64, f64, u16); 9] = [
    (0, 0.0, 1),
    (0, 0.0, 8),
    (20, 0.0, 1),
    (50, 0.0, 1),
    (50, 0.0, 8),
    (50, 0.1, 1),
    (50, 1.0, 1),
    (50, 1.0, 8),
    (100, 0.0, 1),
];

/// How to measure. Without a choice of cells those that tell most are measured; all are `--rtt 0,20,50,100`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct Args {
    /// Only these round trips, in milliseconds, with every loss and number of streams unless chosen too.
    #[arg(long, value_name = "MS", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=2000))]
    rtt: Vec<u64>,
    /// Only these losses, in percent of the packets of each way.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = loss)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Peer {
    /// Ours with `dial.congestion: bbr`.
    Bbr,
    Libp2p,
    Quinn,
    Iroh,
    /// The ceiling.
    Iperf3,
}

impl Peer {
    fn of(engine: Engine) -> Option<Self> {
        match engine {
            Engine::Ours => None,
            Engine::OursBbr => Some(Self::Bbr),
            Engine::Libp2p | Engine::Libp2pTls => Some(Self::Libp2p),
            Engine::Quinn => Some(Self::Quinn),
            Engine::Iroh => Some(Self::Iroh),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Libp2p => "libp2p",
            Self::Quinn => "quinn",
            Self::Iroh => "iroh",
            Self::Iperf3 => "iperf3",
        }
    }
}

impl Args {
    fn wants(&self, peer: Peer) -> bool {
        self.peers.is_empty() || self.peers.contains(&peer)
    }
}

fn loss(text: &str) -> Result<f64, String> {
    let loss = text.parse().ok().filter(|loss| (0.0..=50.0).contains(loss));
    loss.ok_or_else(|| format!("{text:?} is no percentage from 0 to 50"))
}

/// One of the two benchmarks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contest {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What the bytes go over.
    pub(super) transport: Transport,
    /// Who is measured beside ours, with what ours is to carry as a part of theirs.
    pub(super) peers: &'static [(Engine, Option<f64>)],
}

impl Contest {
    /// Whether it has all the peers that were chosen.
    pub(super) fn check(self, args: &Args) -> Result<()> {
        let has = |peer: &Peer| {
            let mut engines = self.peers.iter().map(|(engine, _)| *engine);
            *peer == Peer::Iperf3 || engines.any(|engine| Peer::of(engine) == Some(*peer))
        };
        let wrong = args.peers.iter().find(|peer| !has(peer));
        ensure!(
            wrong.is_none(),
            "--peers {}: not one of those that {} has: leave it out",
            wrong.map_or("", |peer| peer.name()),
            self.name
        );
        if let Some(missing) = without_iperf3()
            && args.peers.contains(&Peer::Iperf3)
        {
            bail!("--peers iperf3: {missing}");
        }
        Ok(())
    }

    /// Whether iroh's program is needed.
    pub(super) fn needs_iroh(self, args: &Args) -> bool {
        let mut peers = self.peers.iter();
        args.wants(Peer::Iroh) && peers.any(|(engine, _)| *engine == Engine::Iroh)
    }
}

/// `throughput-quic`.
pub(super) const QUIC: Contest = Contest {
    name: "throughput-quic",
    transport: Transport::Quic,
    peers: &[
        (Engine::OursBbr, None),
        (Engine::Libp2p, Some(1.5)),
        (Engine::Quinn, Some(0.95)),
        (Engine::Iroh, Some(1.0)),
    ],
};

/// `throughput-tcp`.
pub(super) const TCP: Contest = Contest {
    name: "throughput-tcp",
    transport: Transport::Tcp,
    peers: &[(Engine::Libp2p, Some(1.2))],
};

/// Measures, inside the lab's sandbox.
pub(super) fn measure_in_lab(contest: Contest, args: &Args) -> Result<Report> {
    let cells = cells(args);
    let runtime = super::runtime()?;
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
            impaired_by = impaired_by.or(path.impaired_by());
            if std::mem::take(&mut first) {
                path.hold_range(contest.transport).await?;
            }
            for (between, streams) in now {
                let label = label(*between, *streams);
                eprintln!("{}: {label}", contest.name);
                measured.push(measure(contest, args, &path, label, *streams).await?);
            }
            path.succeeded();
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

/// All that is measured, those of one link next to each other.
fn cells(args: &Args) -> Vec<(Between, u16)> {
    if args.rtt.is_empty() && args.loss.is_empty() && args.streams.is_empty() {
        return USUAL
            .map(|(rtt, loss, streams)| (Between { rtt, loss }, streams))
            .into();
    }
    let rtts = chosen(&args.rtt, &RTTS);
    let (losses, streams) = (chosen(&args.loss, &LOSSES), chosen(&args.streams, &STREAMS));
    let links = rtts.iter().flat_map(|rtt| {
        losses.iter().map(|loss| Between {
            rtt: *rtt,
            loss: *loss,
        })
    });
    links
        .flat_map(|link| streams.iter().map(move |streams| (link, *streams)))
        .collect()
}

fn chosen<'a, T>(some: &'a [T], all: &'a [T]) -> &'a [T] {
    if some.is_empty() { all } else { some }
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
                let row = Row::of(program, values);
                match bound {
                    Some(bound) => row.goal(goal(*bound)),
                    None => row,
                }
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

fn gbit_s(moved: &Moved) -> f64 {
    moved.bytes as f64 * 8.0 / 1e9 / moved.seconds
}

fn cpu_s_gb(moved: &Moved) -> f64 {
    moved.cpu_seconds / (moved.bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use clap::Parser as _;

    use super::*;

    fn args(words: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Whole {
            #[command(flatten)]
            args: Args,
        }
        let words = ["x"].iter().chain(words);
        Whole::try_parse_from(words).unwrap().args
    }

    #[test]
    fn cells_are_the_usual_ones_or_all_of_what_was_chosen() {
        assert_eq!(cells(&args(&[])).len(), USUAL.len());
        let all = cells(&args(&["--rtt", "0,20,50,100"]));
        assert_eq!(all.len(), RTTS.len() * LOSSES.len() * STREAMS.len());
        for (rtt, loss, streams) in USUAL {
            assert!(all.contains(&(Between { rtt, loss }, streams)));
        }
        let one = cells(&args(&["--rtt", "50", "--loss", "1", "--streams", "8"]));
        let between = Between { rtt: 50, loss: 1.0 };
        assert_eq!(one, [(between, 8)]);
        assert_eq!(cells(&args(&["--loss", "0", "--streams", "1"])).len(), 4);
    }

    #[test]
    fn cells_of_a_link_are_next_to_each_other() {
        for words in [&[][..], &["--rtt", "0,50"]] {
            let cells = cells(&args(words));
            let mut links: Vec<_> = cells
                .iter()
                .map(|(link, _)| (link.rtt, link.loss))
                .collect();
            links.dedup();
            let runs = links.len();
            links.sort_by(|a, b| a.partial_cmp(b).unwrap());
            links.dedup();
            assert_eq!(links.len(), runs);
        }
    }

    #[test]
    fn a_peer_that_the_transport_does_not_have_is_refused_by_name() {
        let quinn = args(&["--peers", "libp2p,quinn"]);
        assert!(QUIC.check(&quinn).is_ok() && !QUIC.needs_iroh(&quinn));
        let error = TCP.check(&quinn).unwrap_err().to_string();
        assert!(
            error.contains("quinn") && error.contains("throughput-tcp"),
            "{error}"
        );
        assert!(QUIC.needs_iroh(&args(&[])) && !TCP.needs_iroh(&args(&[])));
    }

    #[test]
    fn a_goal_of_the_rate_is_one_of_the_processor_time_too() {
        let moved = |seconds, cpu_seconds| Moved {
            bytes: 1_000_000_000,
            seconds,
            cpu_seconds,
        };
        let cell = Measured {
            label: "0 ms".to_owned(),
            programs: vec![
                ("ours".to_owned(), None, vec![Some(moved(4.0, 1.0))]),
                (
                    "plain libp2p".to_owned(),
                    Some(1.5),
                    vec![Some(moved(8.0, 1.4))],
                ),
            ],
            failures: Vec::new(),
        };
        let report = report(QUIC, &args(&[]), &[cell]).json();
        let plain = |figure: usize| &report["figures"][figure]["cells"][0]["rows"][1];
        assert_eq!(
            (&plain(0)["median"], &plain(0)["ratio"]),
            (&1.0.into(), &2.0.into())
        );
        assert_eq!(plain(0)["met"], true);
        // Two thirds of the time of plain libp2p would do; it is 0.71.
        assert_eq!(plain(1)["met"], false);
    }
}
