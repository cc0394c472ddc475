//! Time to the first byte over a direct path: ours, plain libp2p and iroh, in turn, through the same lab ([`super::contest`]).
//!
//! Both peers are behind port-preserving NATs that filter by address and port, as most homes are.

use std::time::Duration;

use anyhow::Result;
use p2pnode_tests::{args::Transport, delay::Link, nat::NatKind};

use super::{
    contest::{Dialed, MOST_DIALS, Start, Terms, compete},
    programs::{Common, Program, Wire, or, percent},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::tools;

const RUNS: u16 = 9;
const TIMEOUT_S: u64 = 20;
const RTTS: [u64; 4] = [0, 20, 50, 100];

/// The round trip that the goals are for, without loss; and the one that is measured with loss, and over TCP.
const GOAL_RTT: u64 = 50;

/// The goals: ours as a part of the others', medians.
const OF_PLAIN_COLD: f64 = 0.4;
const OF_IROH: f64 = 0.75;

const NOTES: [&str; 3] = [
    "Warm, ours is asked by a `p2pnode dial` that finds the running node, and its start counts; the others are told on stdin.",
    "The first byte is a ping's with plain libp2p, which negotiates a stream first: two round trips after the path is open. Ours \
     negotiates along with the ping, and iroh echoes on a stream that is open already: one.",
    "A dial that did not get direct counts as the slowest.",
];

/// How to measure. Flags that choose conditions are multiplied with each other, and leave nothing but what they choose.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Round trip between any two sites, in milliseconds; repeatable. Default: 0, 20, 50 and 100.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=1000))]
    rtt: Vec<u64>,
    /// Loss on each way, in percent; repeatable. Default: 0, and 1 at a round trip of 50 ms.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    loss: Vec<f64>,
    /// Where a dial starts from; repeatable. Default: both.
    #[arg(long)]
    start: Vec<Start>,
    /// The transport, to the relay and between the peers; repeatable. Default: quic, and tcp at a round trip of 50 ms.
    #[arg(long)]
    transport: Vec<Wire>,
    /// Who takes part; repeatable. Default: all.
    #[arg(long)]
    pub(super) program: Vec<Program>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    fn cells(&self) -> Vec<Cell> {
        let is_default = self.rtt.is_empty()
            && self.loss.is_empty()
            && self.start.is_empty()
            && self.transport.is_empty();
        let mut cells = Vec::new();
        for start in or(&self.start, &[Start::Cold, Start::Warm]) {
            let cell = |transport, rtt, loss| Cell {
                start,
                transport,
                rtt,
                loss,
            };
            for transport in Wire::chosen(&self.transport) {
                for rtt in or(&self.rtt, &RTTS) {
                    let losses = or(&self.loss, &[0.0]).into_iter();
                    cells.extend(losses.map(|loss| cell(transport, rtt, loss)));
                }
            }
            if is_default {
                cells.push(cell(Transport::Quic, GOAL_RTT, 1.0));
                cells.push(cell(Transport::Tcp, GOAL_RTT, 0.0));
            }
        }
        cells
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    start: Start,
    transport: Transport,
    rtt: u64,
    loss: f64,
}

impl Cell {
    fn label(self) -> String {
        let start = match self.start {
            Start::Cold => "cold",
            Start::Warm => "warm",
        };
        let transport = self.transport.name().to_uppercase();
        let loss = match self.loss {
            loss if loss > 0.0 => format!(", {loss} % loss"),
            _ => String::new(),
        };
        format!("{start}, {transport}, {} ms{loss}", self.rtt)
    }

    fn goal(self, program: Program) -> Option<Goal> {
        if self.rtt != GOAL_RTT || self.loss > 0.0 {
            return None;
        }
        match (program, self.start) {
            (Program::Plain, Start::Cold) => Some(Goal::AtMost(OF_PLAIN_COLD)),
            (Program::Iroh, _) => Some(Goal::AtMost(OF_IROH)),
            (Program::Ours, _) | (Program::Plain, Start::Warm) => None,
        }
    }

    fn terms(self) -> Terms {
        Terms {
            name: format!(
                "time-to-direct-{}",
                self.label().replace([' ', ',', '%'], "-")
            ),
            nats: (NatKind::EimApdf, NatKind::EimApdf),
            transport: self.transport,
            link: Link::rtt(Duration::from_millis(self.rtt)).loss(self.loss),
            timeout_s: TIMEOUT_S,
        }
    }
}

pub(super) fn measure_in_lab(args: &Args) -> Result<Report> {
    let runs = args.common.runs.unwrap_or(RUNS).min(MOST_DIALS);
    let programs = Program::chosen(&args.program);
    let runtime = tools::runtime()?;
    let mut first_byte = Figure::new("first byte over the direct path", "ms", Better::Less);
    let mut open = Figure::new("direct path open", "ms", Better::Less);
    for cell in args.cells() {
        eprintln!("time-to-direct: {}", cell.label());
        let measured = runtime.block_on(compete(cell.terms(), &programs, cell.start, runs))?;
        let rows = |of: fn(&Dialed) -> Option<f64>| -> Vec<_> {
            let row = |(program, dials): &(Program, Vec<Dialed>)| {
                Row::of(program.title(), dials.iter().map(of))
            };
            measured.iter().map(row).collect()
        };
        let goals = measured.iter().map(|(program, _)| cell.goal(*program));
        let judged = rows(|dialed| dialed.first_byte).into_iter().zip(goals);
        first_byte.push(
            cell.label(),
            judged.map(|(row, goal)| row.goal(goal)).collect(),
        );
        open.push(cell.label(), rows(|dialed| dialed.open));
    }
    let mut report = Report::new(
        "time-to-direct",
        format!(
            "Milliseconds from the start of the process (cold) or from the request to a peer that is at its relay (warm) to the \
             first byte that came back over a direct path, and to the opening of that path; both peers behind port-preserving \
             NATs that filter by address and port, the round trip is that between any two sites. {runs} dials of each program \
             in turn, each from a fresh port."
        ),
    );
    report.figures.extend([first_byte, open]);
    report.notes.extend(NOTES.map(str::to_owned));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_for_its_round_trip_without_loss() {
        let cell = |start, rtt, loss| Cell {
            start,
            transport: Transport::Quic,
            rtt,
            loss,
        };
        let goal = |start, program| cell(start, GOAL_RTT, 0.0).goal(program);
        assert_eq!(
            goal(Start::Cold, Program::Plain),
            Some(Goal::AtMost(OF_PLAIN_COLD))
        );
        assert_eq!(goal(Start::Warm, Program::Plain), None);
        assert_eq!(
            goal(Start::Warm, Program::Iroh),
            Some(Goal::AtMost(OF_IROH))
        );
        assert_eq!(cell(Start::Cold, 20, 0.0).goal(Program::Plain), None);
        assert_eq!(cell(Start::Cold, GOAL_RTT, 1.0).goal(Program::Plain), None);
    }
}
