//! How many dials become direct, NAT by NAT: ours, plain libp2p and iroh, in turn, through the same lab ([`super::contest`]).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use p2pnode_tests::{args::Transport, delay::Link, matrix, nat::NatKind};
use tokio::task::JoinSet;

use super::{
    contest::{Dialed, MOST_DIALS, Measured, Start, Terms, compete},
    programs::{Common, Program, Wire, or},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::{demo::nats, tools};

const RUNS: u16 = 20;

/// How long a dial may take; as the figure is defined.
const WITHIN_S: u64 = 10;

/// The pairs that are measured unless told otherwise: each kind of NAT once or more, the harder ones with each other. The first
/// dials.
const PAIRS: [(NatKind, NatKind); 12] = {
    use NatKind::{
        AddressRestricted, Cgnat, DualStack, EimApdf, EimApdfRewrite, Firewall, FullCone,
        Ip6Firewall, RangeFirewall, Symmetric,
    };
    [
        (EimApdf, EimApdf),
        (EimApdf, EimApdfRewrite),
        (EimApdfRewrite, EimApdfRewrite),
        (FullCone, EimApdfRewrite),
        (EimApdf, AddressRestricted),
        (Firewall, EimApdf),
        (RangeFirewall, EimApdf),
        (Cgnat, Cgnat),
        (DualStack, DualStack),
        (Ip6Firewall, DualStack),
        (Symmetric, FullCone),
        (AddressRestricted, Symmetric),
    ]
};

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The NAT of the peer that dials and of the one that waits, such as `eim-apdf,symmetric`; repeatable. Default: a dozen
    /// pairs.
    #[arg(long, value_name = "KIND,KIND", value_parser = nats, conflicts_with = "all")]
    pair: Vec<(NatKind, NatKind)>,
    /// Every pair of the NAT matrix: hours.
    #[arg(long)]
    all: bool,
    /// The transport, to the relay and between the peers; repeatable. Default: quic.
    #[arg(long)]
    transport: Vec<Wire>,
    /// Who takes part; repeatable. Default: all.
    #[arg(long)]
    pub(super) program: Vec<Program>,
    /// How many pairs at a time. Dials wait more than they compute.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    fn cells(&self) -> Vec<Cell> {
        let all = || {
            matrix::cells()
                .into_iter()
                .map(|cell| (cell.a, cell.b))
                .collect()
        };
        let mut pairs: Vec<_> = if self.all {
            all()
        } else {
            or(&self.pair, &PAIRS)
        };
        // The matrix has each pair once for each transport.
        pairs.dedup();
        let transports = Wire::chosen(&self.transport);
        let of_pair = |nats| {
            transports.iter().map(move |transport| Cell {
                nats,
                transport: *transport,
            })
        };
        pairs.into_iter().flat_map(of_pair).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    nats: (NatKind, NatKind),
    transport: Transport,
}

impl Cell {
    fn label(self) -> String {
        let transport = self.transport.name().to_uppercase();
        format!("{} dials {}, {transport}", self.nats.0, self.nats.1)
    }

    fn terms(self) -> Terms {
        let (a, b) = self.nats;
        Terms {
            name: format!("punch-success-{a}-{b}-{}", self.transport),
            nats: self.nats,
            transport: self.transport,
            link: Link::default(),
            timeout_s: WITHIN_S,
        }
    }
}

pub(super) fn measure_in_lab(args: &Args) -> Result<Report> {
    let runs = args.common.runs.unwrap_or(RUNS).min(MOST_DIALS);
    let cells = args.cells();
    let mut measured = tools::runtime()?.block_on(measure_all(&cells, args, runs))?;
    let mut share = Figure::new(
        &format!("direct within {WITHIN_S} s"),
        "% of the dials",
        Better::More,
    );
    let mut time = Figure::new("first byte over the direct path", "ms", Better::Less);
    for (index, cell) in cells.iter().enumerate() {
        let measured = measured.remove(&index).context("a pair was not measured")?;
        let (mut shares, mut times) = (Vec::new(), Vec::new());
        for (program, dials) in measured {
            let row = Row::new(program.title(), [percent(&dials)]);
            let goal = (program != Program::Ours).then_some(Goal::AtLeast(1.0));
            shares.push(row.goal(goal));
            let first_bytes = dials.iter().map(in_time);
            times.push(Row::of(program.title(), first_bytes));
        }
        share.push(cell.label(), shares);
        time.push(cell.label(), times);
    }
    let mut report = Report::new(
        "punch-success",
        format!(
            "The share of {runs} dials of each program, in turn, of which a byte came back over a direct path within \
             {WITHIN_S} s of the start of the process, each from a fresh port; NAT by NAT, without latency."
        ),
    );
    report.figures.extend([share, time]);
    report.notes.push(
        "A symmetric NAT is punched where the other side lets in any port; no program gets through the other pairs with one, \
         which are left out by default."
            .to_owned(),
    );
    Ok(report)
}

async fn measure_all(cells: &[Cell], args: &Args, runs: u16) -> Result<BTreeMap<usize, Measured>> {
    let programs = Program::chosen(&args.program);
    let mut waiting = cells.iter().copied().enumerate();
    let mut running = JoinSet::new();
    let mut measured = BTreeMap::new();
    loop {
        while running.len() < usize::from(args.parallel)
            && let Some((index, cell)) = waiting.next()
        {
            let programs = programs.clone();
            running.spawn(async move {
                let measured = compete(cell.terms(), &programs, Start::Cold, runs).await;
                measured
                    .with_context(|| cell.label())
                    .map(|measured| (index, cell, measured))
            });
        }
        let Some(ended) = running.join_next().await else {
            return Ok(measured);
        };
        let (index, cell, ended) = ended??;
        let shares: Vec<_> = ended
            .iter()
            .map(|(program, dials)| format!("{program} {} %", percent(dials)))
            .collect();
        eprintln!("punch-success: {}: {}", cell.label(), shares.join(", "));
        measured.insert(index, ended);
    }
}

/// The first byte, if it came within the time that counts: a program may try a little longer.
fn in_time(dialed: &Dialed) -> Option<f64> {
    let limit = WITHIN_S as f64 * 1000.0;
    dialed.first_byte.filter(|ms| *ms <= limit)
}

fn percent(dials: &[Dialed]) -> f64 {
    let direct = dials.iter().filter(|dialed| in_time(dialed).is_some());
    100.0 * direct.count() as f64 / dials.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_comes_too_late_is_no_success() {
        let came = |ms| Dialed {
            open: Some(ms),
            first_byte: Some(ms),
        };
        let dials = [came(300.0), came(10_001.0), Dialed::default(), came(900.0)];
        assert_eq!(percent(&dials), 50.0);
    }
}
