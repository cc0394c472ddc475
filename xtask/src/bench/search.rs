//! How often, how soon and with how many packets a pair of ports is found through NATs that map by destination.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::{Context as _, Result};
use p2pnode_tests::{
    carry::{Move, aging},
    delay::Link,
    lab::Lab,
    nat::{NatKind, RANGE},
    search::{Searched, Series},
};
use tokio::task::JoinSet;

use super::{
    programs::Common,
    report::{Better, Figure, Goal, Report, Row},
};
use crate::tools;

const RUNS: u16 = 20;

const WIDE: RangeInclusive<u16> = 40000..=40255;

/// What is measured: the NATs, the range, in how many series and seconds a pair is to be found, and in what part of the runs.
struct Cell {
    nats: (NatKind, NatKind),
    range: RangeInclusive<u16>,
    series: usize,
    within: f64,
    percent: f64,
}

fn cells() -> Vec<Cell> {
    use NatKind::{EimApdf, EimApdfRewrite, Symmetric, SymmetricBlock, SymmetricSequential};
    let cell = |a, b, range: &RangeInclusive<u16>, series, within, percent| Cell {
        nats: (a, b),
        range: range.clone(),
        series,
        within,
        percent,
    };
    vec![
        cell(Symmetric, EimApdf, &RANGE, 2, f64::INFINITY, 95.0),
        cell(EimApdfRewrite, Symmetric, &RANGE, 2, f64::INFINITY, 95.0),
        cell(Symmetric, EimApdf, &WIDE, 1, f64::INFINITY, 98.0),
        cell(SymmetricBlock, EimApdf, &RANGE, 1, 2.0, 99.0),
        cell(SymmetricSequential, EimApdf, &RANGE, 1, 2.0, 99.0),
        cell(SymmetricBlock, SymmetricBlock, &RANGE, 1, 5.0, 90.0),
    ]
}

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only cells whose name holds this, such as `symmetric-block`.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many labs at a time. Searches wait more than they compute.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Round trip between any two sites, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    rtt: u64,
    /// Loss on each way, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    loss: f64,
    /// Instead: for so many minutes, a forward carries bytes through a NAT that drops each mapping at its age.
    #[arg(long, value_name = "MINUTES")]
    aging: Option<u64>,
    /// That age. Carriers that do so drop mappings after a minute.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lifetime: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Cell {
    fn label(&self) -> String {
        let (a, b) = self.nats;
        format!("{a} dials {b}, {} ports", self.range.clone().count())
    }

    fn is_met(&self, run: &Series) -> bool {
        run.series <= self.series && run.found.is_some_and(|took| took <= self.within)
    }
}

/// How a session fares while its mappings die of age.
fn age(minutes: u64, args: &Args) -> Result<Report> {
    let lasts = Duration::from_secs(minutes * 60);
    let lifetime = Duration::from_secs(args.lifetime);
    let aged = tools::runtime()?.block_on(async {
        let link = Link::rtt(Duration::from_millis(args.rtt)).loss(args.loss);
        let lab = Lab::new("search-aging").await?;
        aging(lab, link, lifetime, lasts, usize::MAX, false).await
    })?;
    for (nth, Move { at, pause }) in aged.moves.iter().enumerate() {
        eprintln!("search: move {nth} after {at:.1?}: longest pause {pause:.0?}");
    }
    let mut report = Report::new(
        "search-aging",
        format!(
            "A forward over {minutes} min at a round trip of {} ms and {} % loss, with a chunk of 64 KiB each 10 ms. The NAT drops each \
             mapping {lifetime:?} after it was made, and gives another port afterwards; `punch.rotate: {lifetime:?}`. The path moved {} times.",
            args.rtt,
            args.loss,
            aged.moves.len()
        ),
    );
    let ms = |pause: Duration| pause.as_secs_f64() * 1e3;
    let pauses = aged.moves.iter().map(|moved| ms(moved.pause)).collect();
    let figures = [
        ("losses of the path", "losses", vec![aged.losses as f64]),
        ("longest pause around each move", "ms", pauses),
        (
            "longest pause elsewhere",
            "ms",
            vec![ms(aged.pause_elsewhere)],
        ),
        (
            "bytes each way",
            "MiB",
            vec![aged.bytes as f64 / f64::from(1 << 20)],
        ),
    ];
    for (title, unit, values) in figures {
        let mut figure = Figure::new(title, unit, Better::Less);
        figure.push(
            format!("{lifetime:?} of age"),
            vec![Row::new("p2pnode", values)],
        );
        report.figures.push(figure);
    }
    Ok(report)
}

pub(super) fn measure_in_lab(args: &Args) -> Result<Report> {
    if let Some(minutes) = args.aging {
        return age(minutes, args);
    }
    let runs = args.common.runs.unwrap_or(RUNS);
    let only = args.only.as_deref().unwrap_or_default();
    let mut share = Figure::new("pairs found in time", "% of the runs", Better::More);
    let mut time = Figure::new("from the wish to the pair", "s", Better::Less);
    let mut packets = Figure::new(
        "probes of the side that sends more",
        "packets",
        Better::Less,
    );
    for cell in cells().iter().filter(|cell| cell.label().contains(only)) {
        let measured = tools::runtime()?.block_on(measure(cell, args, runs))?;
        let met = measured.iter().filter(|run| cell.is_met(run)).count();
        let percent = 100.0 * met as f64 / measured.len().max(1) as f64;
        eprintln!("search: {}: {percent} %", cell.label());
        let goal = Goal::AtLeast(cell.percent);
        share.push(
            cell.label(),
            vec![Row::new("p2pnode", [percent]).goal(goal)],
        );
        let took = measured.iter().map(|run| run.found);
        time.push(cell.label(), vec![Row::of("p2pnode", took)]);
        let sent = measured
            .iter()
            .map(|run| run.probes.into_iter().max().unwrap_or(0) as f64);
        packets.push(cell.label(), vec![Row::new("p2pnode", sent)]);
    }
    let mut report = Report::new(
        "search",
        format!(
            "{runs} searches for a pair of ports in each cell, each in a lab of its own, at a round trip of {} ms and {} % loss. Probes are \
             counted in the captures of both routers, over all series of a run; none goes anywhere else, and none leaves from outside the range.",
            args.rtt, args.loss
        ),
    );
    report.figures.extend([share, time, packets]);
    Ok(report)
}

async fn measure(cell: &Cell, args: &Args, runs: u16) -> Result<Vec<Series>> {
    let link = Link::rtt(Duration::from_millis(args.rtt)).loss(args.loss);
    let mut waiting = 0..runs;
    let (mut running, mut measured) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < usize::from(args.parallel)
            && let Some(run) = waiting.next()
        {
            let name = format!("search-{}-{}-{run}", cell.nats.0, cell.nats.1);
            let (nats, range, series) = (cell.nats, cell.range.clone(), cell.series);
            running.spawn(async move {
                let mut lab = Lab::new(&name).await?;
                let peers = Searched::start(&lab, nats.0, nats.1, range).await?;
                lab.impair(link)?;
                let run = peers.run(series).await?;
                drop(peers);
                lab.succeeded();
                anyhow::Ok(run)
            });
        }
        let Some(run) = running.join_next().await else {
            return Ok(measured);
        };
        let run = run?.with_context(|| cell.label())?;
        eprintln!("search: {}: {run:?}", cell.label());
        measured.push(run);
    }
}
