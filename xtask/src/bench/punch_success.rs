//! How many dials become direct, NAT by NAT: ours, plain libp2p and iroh, in turn, through the same lab ([`super::contest`]).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use p2pnode_tests::{args::Transport, delay::Link, matrix, nat::NatKind};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{
    Common,
    contest::{Contest, Dialed, MOST_DIALS, Program, Start, Terms, Wire},
    report::{Better, Figure, Goal, Report, Row},
    runtime,
};

/// Dials of each program in each cell, unless told otherwise.
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
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct Args {
    /// The NAT of the peer that dials and of the one that waits, such as `eim-apdf,symmetric`; repeatable. Default: a dozen
    /// pairs.
    #[arg(long, value_name = "KIND,KIND", value_parser = crate::nats, conflicts_with = "all")]
    #[serde(with = "names")]
    pair: Vec<(NatKind, NatKind)>,
    /// Every pair of the NAT matrix: hours.
    #[arg(long)]
    all: bool,
    /// The transport, to the relay and between the peers; repeatable. Default: quic.
    #[arg(long)]
    transport: Vec<Wire>,
    /// Who takes part; repeatable. Default: all.
    #[arg(long)]
    program: Vec<Program>,
    /// How many pairs at a time. Dials wait more than they compute.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Pairs of NATs by their names.
mod names {
    use p2pnode_tests::nat::NatKind;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[allow(clippy::ptr_arg, reason = "serde hands over a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        pairs: &Vec<(NatKind, NatKind)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let names = pairs.iter().map(|(a, b)| format!("{a},{b}"));
        names.collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(NatKind, NatKind)>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let pairs = names.iter().map(|pair| crate::nats(pair));
        pairs.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

impl Args {
    /// Who takes part.
    pub(super) fn programs(&self) -> Vec<Program> {
        Program::chosen(&self.program)
    }

    fn cells(&self) -> Vec<Cell> {
        let transports: Vec<Transport> = if self.transport.is_empty() {
            vec![Transport::Quic]
        } else {
            self.transport.iter().copied().map(Wire::into).collect()
        };
        let mut pairs = match (self.all, self.pair.is_empty()) {
            (true, _) => matrix::cells()
                .into_iter()
                .map(|cell| (cell.a, cell.b))
                .collect(),
            (false, true) => PAIRS.to_vec(),
            (false, false) => self.pair.clone(),
        };
        // The matrix has each pair once for each transport.
        pairs.dedup();
        let cells = pairs.into_iter().flat_map(|nats| {
            transports
                .iter()
                .map(move |transport| Cell {
                    nats,
                    transport: *transport,
                })
                .collect::<Vec<_>>()
        });
        cells.collect()
    }
}

/// One pair of NATs.
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
}

type Measured = Vec<(Program, Vec<Dialed>)>;

/// Measures; to be called in the lab's sandbox.
pub(super) fn measure_in_lab(args: &Args) -> Result<Report> {
    let runs = args.common.runs.unwrap_or(RUNS).min(MOST_DIALS);
    let cells = args.cells();
    let mut measured = runtime()?.block_on(measure_all(&cells, args, runs))?;
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
            shares.push(match program {
                Program::Ours => row,
                Program::Plain | Program::Iroh => row.goal(Goal::AtLeast(1.0)),
            });
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
    let programs = args.programs();
    let mut waiting = cells.iter().copied().enumerate();
    let mut running = JoinSet::new();
    let mut measured = BTreeMap::new();
    loop {
        while running.len() < usize::from(args.parallel)
            && let Some((index, cell)) = waiting.next()
        {
            let programs = programs.clone();
            running.spawn(async move {
                let measured = measure_cell(cell, &programs, runs).await;
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

async fn measure_cell(cell: Cell, programs: &[Program], runs: u16) -> Result<Measured> {
    let taking_part = programs
        .iter()
        .filter(|program| program.speaks(cell.transport));
    let mut measured: Measured = taking_part.map(|program| (*program, Vec::new())).collect();
    let present: Vec<_> = measured.iter().map(|(program, _)| *program).collect();
    let terms = Terms {
        name: format!(
            "punch-success-{}-{}-{}",
            cell.nats.0, cell.nats.1, cell.transport
        ),
        nats: cell.nats,
        transport: cell.transport,
        link: Link::default(),
        timeout_s: WITHIN_S,
    };
    let mut contest = Contest::new(terms, &present).await?;
    for _ in 0..runs {
        for (program, dials) in &mut measured {
            dials.push(contest.dial(*program, Start::Cold).await?);
        }
    }
    contest.over().await?;
    Ok(measured)
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
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Whole {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        let words = std::iter::once("x").chain(words.split_whitespace());
        Whole::try_parse_from(words).unwrap().args
    }

    #[test]
    fn all_is_the_matrix_with_each_pair_once() {
        assert_eq!(args("--all").cells().len() * 2, matrix::cells().len());
        assert_eq!(args("").cells().len(), PAIRS.len());
    }

    #[test]
    fn chosen_pairs_are_kept_on_the_way_to_the_lab() {
        let args = args("--pair eim-apdf,symmetric --transport quic --transport tcp");
        let text = serde_json::to_string(&args).unwrap();
        let read: Args = serde_json::from_str(&text).unwrap();
        let labels: Vec<_> = read.cells().into_iter().map(Cell::label).collect();
        assert_eq!(
            labels,
            [
                "eim-apdf dials symmetric, QUIC",
                "eim-apdf dials symmetric, TCP"
            ]
        );
    }

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
