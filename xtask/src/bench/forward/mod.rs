//! Forwards of services next to `ssh -L`, dumbpipe, WireGuard in user space, and a bare stream of our transports.

mod clients;
mod pauses;
mod peers;
mod rig;

use std::time::Duration;

use anyhow::{Result, ensure};
use p2pnode_tests::{args::Transport, transfer::Engine};

use super::{
    path::{Between, Path},
    programs::{Common, Named, all_descriptors, or, transfer},
    report::{Better, Figure, Goal, Report, Row},
};
use crate::{
    cargo::{self, Build},
    tools,
};
pub(crate) use clients::hold_connections;
use clients::{ECHO, IDLE, PACED, SINK, UDP};
use rig::Forwards;

const RUNS: u16 = 5;
const RTTS: [u64; 3] = [0, 20, 50];
const CONNECTIONS: [u16; 2] = [1, 8];
const GB: f64 = 1e9;

/// How long clients ask.
const ASK: Duration = Duration::from_secs(3);

/// Three quarters of what a peer may have. With the idle sessions they fit into 20,000 open files.
const FLOWS: u16 = 3_000;

/// How long processes are left alone before their memory counts.
const SETTLE: Duration = Duration::from_secs(3);

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Round trips of the path, in milliseconds.
    #[arg(long, value_name = "MS", value_delimiter = ',')]
    rtt: Vec<u64>,
    /// MB that are moved at once.
    #[arg(long, value_name = "MB", default_value_t = 128)]
    mb: u64,
    /// Idle sessions. Each takes an open file of this process, of both nodes and of the target.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=12_000))]
    idle: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Ours, the bare stream, and the peers that can be had here.
pub(super) fn programs() -> Result<Vec<Named>> {
    let bins = cargo::bins(Build::Release)?;
    let ours = [
        ("P2PNODE_BIN", bins.p2pnode),
        ("RELAY_NODE_BIN", bins.relay_node),
        transfer()?,
    ];
    Ok(ours.into_iter().chain(peers::installed()?).collect())
}

struct Figures {
    goodput: Figure,
    cpu: Figure,
    first: Figure,
    beyond: Figure,
    rate: Figure,
    tail: Figure,
    memory: Figure,
    opens: Figure,
    flows: Figure,
    flow_memory: Figure,
    delay: Figure,
    arrived: Figure,
}

/// The path of the datagrams at 100 Mbit/s.
const LOSSY: Between = Between { rtt: 20, loss: 1.0 };

pub(super) fn measure_in_lab(args: &Args) -> Result<Report> {
    let files = all_descriptors()?;
    let most = u16::try_from(files.saturating_sub(2_000)).unwrap_or(u16::MAX);
    let mut figures = Figures {
        goodput: Figure::new("goodput", "MB/s", Better::More),
        cpu: Figure::new("processor time of both ends", "s/GB", Better::Less),
        first: Figure::new("first byte of a new connection", "ms", Better::Less),
        beyond: Figure::new(
            "the same, beyond a bare connect over the path",
            "ms",
            Better::Less,
        ),
        rate: Figure::new("requests of 1 KiB, 64 connections", "1/s", Better::More),
        tail: Figure::new("the same, 99th percentile", "ms", Better::Less),
        memory: Figure::new(
            "memory per idle session, the larger node",
            "kB",
            Better::Less,
        ),
        opens: Figure::new(
            "1,000 new connections a second for 10 s, answered",
            "%",
            Better::More,
        ),
        flows: Figure::new("1,000 UDP flows, answered", "%", Better::More),
        flow_memory: Figure::new("memory per UDP flow, the larger node", "kB", Better::Less),
        delay: Figure::new(
            "datagrams of 1,200 bytes at 100 Mbit/s through 1 % loss, added delay, 99th percentile",
            "ms",
            Better::Less,
        ),
        arrived: Figure::new("the same, arrived", "%", Better::More),
    };
    let mut notes = Vec::new();
    let pauses = tools::runtime()?.block_on(async {
        for rtt in or(&args.rtt, &RTTS) {
            let path = Path::new("forward", Between { rtt, loss: 0.0 }).await?;
            notes = measure(args, most, &path, rtt, &mut figures).await?;
            path.lab.succeeded();
        }
        for congestion in ["cubic", "bbr"] {
            let path = Path::new(&format!("forward-{congestion}"), LOSSY).await?;
            datagrams(args, &path, congestion, &mut figures).await?;
            path.lab.succeeded();
        }
        pauses::measure(args.common.runs.unwrap_or(RUNS)).await
    })?;
    let mut report = Report::new(
        "forward",
        "A service of one node at another, both on public addresses, next to `ssh -L`, dumbpipe, WireGuard in user space (boringtun), and a \
         stream of our transports without sessions. The samples of programs alternate. dumbpipe makes a connection for each client, and two \
         processes at each end carry its two targets.",
    );
    report.figures = vec![
        figures.goodput,
        figures.cpu,
        figures.first,
        figures.beyond,
        figures.rate,
        figures.tail,
        figures.memory,
        figures.opens,
        figures.flows,
        figures.flow_memory,
        figures.delay,
        figures.arrived,
    ];
    report.figures.extend(pauses);
    report.notes.extend(notes);
    if args.idle > most {
        let note = format!(
            "This process may have {files} open files: {most} idle sessions, not {}.",
            args.idle
        );
        report.notes.push(note);
    }
    Ok(report)
}

/// Datagrams through loss, next to those that no program carries.
async fn datagrams(
    args: &Args,
    path: &Path,
    congestion: &str,
    figures: &mut Figures,
) -> Result<()> {
    let (from, to) = path.hosts();
    let ours = Forwards::ours(from, to, congestion).await?;
    let at = std::net::SocketAddr::new(to.ip(false)?, PACED);
    let mut added = Vec::new();
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    for run in 1..=args.common.runs.unwrap_or(RUNS) {
        eprintln!("forward: datagrams, {run}");
        let [arrived, delay] = clients::paced(from, ours.at(PACED), to)?;
        let [arrived_bare, delay_bare] = clients::paced(from, at, to)?;
        added.push(delay - delay_bare);
        through.push(arrived);
        bare.push(arrived_bare);
    }
    let label = format!("{} ms, {congestion}", LOSSY.rtt);
    let within = Some(Goal::AtMost(1.0));
    figures
        .delay
        .push(&label, vec![Row::new("ours", added).goal(within)]);
    let rows = vec![Row::new("ours", through), Row::new("bare datagrams", bare)];
    figures.arrived.push(&label, rows);
    Ok(())
}

async fn measure(
    args: &Args,
    most: u16,
    path: &Path,
    rtt: u64,
    figures: &mut Figures,
) -> Result<Vec<String>> {
    let (from, to) = path.hosts();
    clients::targets(to)?;
    let mut programs = vec![
        Forwards::ours(from, to, "cubic").await?,
        Forwards::ssh(from, to).await?,
    ];
    let notes = peers::start(from, to, &mut programs).await;
    for program in &programs {
        // The path is there, and warm.
        clients::bulk(from, program.at(SINK), 8_000_000, 1)?;
    }
    for connections in CONNECTIONS {
        bulk(args, path, &programs, (rtt, connections), figures).await?;
    }
    let runs = args.common.runs.unwrap_or(RUNS);
    let none = vec![Vec::new(); programs.len()];
    let (mut first, mut rates, mut tails) = (none.clone(), none.clone(), none);
    let mut beyond = Vec::new();
    for run in 1..=runs {
        eprintln!("forward: {rtt} ms, requests {run} of {runs}");
        let bare = clients::round_trip(from, to.ip(false)?)?;
        for (index, program) in programs.iter().enumerate() {
            first[index].push(clients::first_byte(from, program.at(ECHO))?);
            if index == 0 {
                beyond.extend(first[index].last().map(|first| first - bare));
            }
            let [rate, tail] = clients::requests(from, program.at(ECHO), 64, ASK)?;
            rates[index].push(rate);
            tails[index].push(tail);
        }
    }
    let label = format!("{rtt} ms");
    let rows = |samples: Vec<Vec<f64>>, of: &str, goal: Option<Goal>| {
        let rows = programs.iter().zip(samples).map(|(program, samples)| {
            Row::new(program.name, samples).goal(goal.filter(|_| program.name == of))
        });
        rows.collect()
    };
    let within = Some(Goal::AtMost(1.0));
    figures.first.push(&label, rows(first, rig::OWN, None));
    let beyond = vec![Row::new(rig::OWN, beyond).goal(within)];
    figures.beyond.push(&label, beyond);
    // Over a longer path 64 connections ask 64 times a round trip at most, through any program.
    let more = (rtt == 0).then_some(Goal::AtLeast(3.0));
    figures.rate.push(&label, rows(rates, rig::SSH, more));
    figures
        .tail
        .push(&label, rows(tails, peers::DUMBPIPE, within));
    if rtt == 0 {
        many(args.idle.min(most), path, &programs[0], figures).await?;
    }
    Ok(notes)
}

/// Bulk over so many connections, in turn with the others.
async fn bulk(
    args: &Args,
    path: &Path,
    programs: &[Forwards],
    (rtt, connections): (u64, u16),
    figures: &mut Figures,
) -> Result<()> {
    let (bytes, from) = (args.mb * 1_000_000, path.hosts().0);
    let runs = args.common.runs.unwrap_or(RUNS);
    let mut samples = vec![(Vec::new(), Vec::new()); programs.len() + 1];
    for run in 1..=runs {
        eprintln!("forward: {rtt} ms, {connections} connections, {run} of {runs}");
        for (index, program) in programs.iter().enumerate() {
            let before = program.cpu()?;
            let seconds = clients::bulk(from, program.at(SINK), bytes, connections.into())?;
            samples[index].0.push(bytes as f64 / 1e6 / seconds);
            samples[index]
                .1
                .push((program.cpu()? - before) / (bytes as f64 / GB));
        }
        let bare = path
            .transfer(Engine::Ours, Transport::Quic, connections, bytes)
            .await?;
        let last = samples.last_mut();
        if let Some((rates, cpu)) = last {
            rates.push(bare.bytes as f64 / 1e6 / bare.seconds);
            cpu.push(bare.cpu_seconds / (bare.bytes as f64 / GB));
        }
    }
    let label = format!("{rtt} ms, {connections} connections");
    const BARE: &str = "bare stream";
    let names = programs.iter().map(|program| program.name).chain([BARE]);
    let (mut goodput, mut cpu) = (Vec::new(), Vec::new());
    for (name, (rates, times)) in names.zip(samples) {
        let least = match name {
            BARE => Some(0.9),
            peers::DUMBPIPE => Some(1.0),
            rig::SSH => Some(1.5).filter(|_| rtt >= 50),
            _ => None,
        };
        goodput.push(Row::new(name, rates).goal(least.map(Goal::AtLeast)));
        let most = (name == BARE).then_some(Goal::AtMost(1.25));
        cpu.push(Row::new(name, times).goal(most));
    }
    figures.goodput.push(&label, goodput);
    figures.cpu.push(&label, cpu);
    Ok(())
}

/// What many sessions and flows take.
async fn many(idle: u16, path: &Path, ours: &Forwards, figures: &mut Figures) -> Result<()> {
    let (from, to) = path.hosts();
    let _holds = Forwards::holds(to).await?;
    eprintln!("forward: opens, flows and idle sessions");
    let all = Goal::AtLeast(100.0);
    let before = ours.memory()?;
    let share = clients::flows(from, ours.at(UDP), 1_000)?;
    figures
        .flows
        .push("0 ms", vec![Row::new("ours", [share]).goal(all)]);
    clients::flows(from, ours.at(UDP), FLOWS - 1_000)?;
    // A busy machine loses some first datagrams.
    let most = grown(path, ours, ("flows", FLOWS / 2), &before).await?;
    figures.flow_memory.push(
        format!("up to {FLOWS} flows"),
        vec![Row::new("ours", [most]).goal(Goal::AtMost(8.0))],
    );
    let [share, tail] = clients::opens(from, ours.at(ECHO), 1_000, 10)?;
    let label = format!("0 ms; 99th percentile {tail:.1} ms");
    figures
        .opens
        .push(label, vec![Row::new("ours", [share]).goal(all)]);
    tokio::time::sleep(SETTLE).await;
    let before = ours.memory()?;
    let held = clients::idle(from, ours.at(IDLE), idle)?;
    let most = grown(path, ours, ("idle", idle), &before).await?;
    drop(held);
    figures.memory.push(
        format!("{idle} sessions"),
        vec![Row::new("ours", [most]).goal(Goal::AtMost(16.0))],
    );
    Ok(())
}

/// The kB that each session of a service has added to the larger node. An error if a node has fewer than `least` of them.
async fn grown(
    path: &Path,
    ours: &Forwards,
    (service, least): (&str, u16),
    before: &[u64],
) -> Result<f64> {
    tokio::time::sleep(SETTLE * 2).await;
    let open = ours.sessions(path, service).await?;
    let fewest = open[0].min(open[1]);
    ensure!(
        fewest >= u64::from(least),
        "{open:?} sessions of {service} are open at both nodes, not {least}"
    );
    let after = ours.memory()?;
    let added = before.iter().zip(&after);
    let most = added.map(|(before, after)| after.saturating_sub(*before));
    Ok(most.max().unwrap_or_default() as f64 * 1.024 / fewest as f64)
}
