//! The NAT matrix: every pair of NATs, over QUIC and over TCP, with what is expected of it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{
    args::Transport,
    artifacts,
    nat::NatKind,
    node::Process,
    pair::{PINGS, Pair, Peers},
};

/// Pings of a dial that is to be there when the grace period of its circuit, of 5 s, is over: one a second.
const PINGS_BEYOND_GRACE: usize = 12;

/// The kinds of which every pair gets a direct connection, where they share an IP family.
pub const PUNCHABLE: [NatKind; 9] = [
    NatKind::EimApdf,
    NatKind::EimApdfRewrite,
    NatKind::FullCone,
    NatKind::AddressRestricted,
    NatKind::Firewall,
    NatKind::Cgnat,
    NatKind::RangeFirewall,
    NatKind::Ip6Firewall,
    NatKind::DualStack,
];

/// What a cell must end as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// A direct connection.
    Direct,
    /// The relay, exit code 3 and a reason.
    Relayed,
}

/// One pair and transport: A dials B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// Before the dialer.
    pub a: NatKind,
    /// Before the dialed.
    pub b: NatKind,
    /// Between them, and to the relay.
    pub transport: Transport,
}

impl Cell {
    /// What it must end as, and why it is no other.
    pub fn expected(self) -> Expected {
        use NatKind::{AddressRestricted, FullCone, Symmetric};
        let share_family =
            (self.a.has_ip4() && self.b.has_ip4()) || (self.a.has_ip6() && self.b.has_ip6());
        match (self.a, self.b) {
            // Nothing translates between the families here; the dual-stack relay joins them.
            _ if !share_family => Expected::Relayed,
            // The symmetric side's dial gets in from whatever port.
            (Symmetric, FullCone | AddressRestricted)
            | (FullCone | AddressRestricted, Symmetric) => Expected::Direct,
            // The port that a symmetric NAT will use towards the other peer is known to nobody before it is used, and a
            // filter by port admits no other.
            (Symmetric, _) | (_, Symmetric) => Expected::Relayed,
            _ => Expected::Direct,
        }
    }

    /// Names its test and its artifacts.
    pub fn name(self) -> String {
        format!("{}--{}--{}", self.a, self.b, self.transport)
    }
}

/// The cells of issue and README: all unordered pairs of [`PUNCHABLE`], and the symmetric NAT with the kinds that matter,
/// whichever side dials, each over QUIC and TCP.
pub fn cells() -> Vec<Cell> {
    let mut pairs = Vec::new();
    for (i, a) in PUNCHABLE.into_iter().enumerate() {
        // Who dials alternates, so that each kind is on both sides.
        pairs.extend(
            PUNCHABLE
                .into_iter()
                .skip(i)
                .enumerate()
                .map(|(j, b)| if j % 2 == 0 { (a, b) } else { (b, a) }),
        );
    }
    for other in [
        NatKind::FullCone,
        NatKind::AddressRestricted,
        NatKind::EimApdf,
        NatKind::EimApdfRewrite,
    ] {
        pairs.extend([(NatKind::Symmetric, other), (other, NatKind::Symmetric)]);
    }
    pairs.push((NatKind::Symmetric, NatKind::Symmetric));
    pairs
        .into_iter()
        .flat_map(|(a, b)| Transport::ALL.map(|transport| Cell { a, b, transport }))
        .collect()
}

/// How a cell ended.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// What it must end as.
    pub expected: Expected,
    /// `direct`, `relayed`, `unreachable`, or `none` if there was no result.
    pub outcome: String,
    /// Until the first direct connection was open.
    pub time_to_direct_ms: Option<u64>,
    /// Punches that were attempted.
    pub attempts: Option<u64>,
    /// Why it is not direct, in the node's words.
    pub reason: Option<String>,
    /// What was not as it must be. `None`: all was.
    pub failure: Option<String>,
    /// The whole cell, with the building of its lab.
    pub took_ms: u64,
}

/// Runs the cells, each in a lab of its own, and returns how they ended in the order given. `parallel` of them build, dial
/// and punch at a time; a direct one leaves its place to the next while it waits for the end of the other connections.
pub async fn run(cells: Vec<Cell>, parallel: usize, report: impl Fn(&Outcome)) -> Vec<Outcome> {
    let slots = Arc::new(Semaphore::new(parallel.max(1)));
    let mut running = JoinSet::new();
    for (index, cell) in cells.into_iter().enumerate() {
        let slots = Arc::clone(&slots);
        running.spawn(async move {
            // The semaphore is never closed: without a permit the cell would only run at once.
            let slot = slots.acquire_owned().await.ok();
            (index, run_cell(cell, slot).await)
        });
    }
    let mut outcomes = BTreeMap::new();
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok((index, outcome)) => {
                report(&outcome);
                outcomes.insert(index, outcome);
            }
            // A cell that panics is a bug of the lab: let it be seen where it is.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    outcomes.into_values().collect()
}

/// Runs one cell in a lab of its own. Its artifacts are kept if it fails.
async fn run_cell(cell: Cell, slot: Option<OwnedSemaphorePermit>) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome {
        cell,
        expected: cell.expected(),
        outcome: "none".to_owned(),
        time_to_direct_ms: None,
        attempts: None,
        reason: None,
        failure: None,
        took_ms: 0,
    };
    outcome.failure = attempt(cell, slot, &mut outcome)
        .await
        .err()
        .map(|error| format!("{error:#}"));
    outcome.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome
}

async fn attempt(
    cell: Cell,
    slot: Option<OwnedSemaphorePermit>,
    outcome: &mut Outcome,
) -> Result<()> {
    let pair =
        Pair::new(format!("matrix-{}", cell.name()), cell.a, cell.b).transport(cell.transport);
    let peers = pair.start().await?;
    let expected = cell.expected();
    let pings = match expected {
        Expected::Direct => PINGS_BEYOND_GRACE,
        Expected::Relayed => PINGS,
    };
    let mut process = peers.start_dial("a", pings)?;
    let one_is_left = match expected {
        Expected::Direct => one_is_left(&peers, &process, slot).await,
        Expected::Relayed => Ok(()),
    };
    let dial = peers.ended(&mut process, pings).await?;
    if let Ok(result) = dial.result() {
        outcome.outcome = result.text("/outcome").to_owned();
        outcome.time_to_direct_ms = result.json["time_to_direct_ms"].as_u64();
        outcome.attempts = result.json["attempts"].as_u64();
        outcome.reason = result.json["reason"].as_str().map(str::to_owned);
    }
    match expected {
        Expected::Direct => peers.verify_direct(&dial).await?,
        Expected::Relayed => peers.verify_relayed(&dial).await?,
    }
    one_is_left?;
    peers.lab.succeeded();
    Ok(())
}

/// Asserts that one direct connection is all that is left of those which the punch made and of the circuit; all that costs
/// more than waiting is done when the slot is given back.
async fn one_is_left(
    peers: &Peers,
    dial: &Process,
    slot: Option<OwnedSemaphorePermit>,
) -> Result<()> {
    let direct = peers.became_direct(dial).await?;
    drop(slot);
    peers.verify_one_is_left(dial, direct).await
}

/// The outcomes as two Markdown tables, one per transport: rows dial columns.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for transport in Transport::ALL {
        let of = |a: NatKind, b: NatKind| {
            outcomes
                .iter()
                .find(|outcome| outcome.cell == Cell { a, b, transport })
        };
        let kinds: Vec<_> = NatKind::ALL
            .into_iter()
            .filter(|kind| {
                outcomes
                    .iter()
                    .any(|outcome| outcome.cell.a == *kind || outcome.cell.b == *kind)
            })
            .collect();
        let _infallible = write!(text, "### {}\n\n| |", transport.name().to_uppercase());
        for kind in &kinds {
            let _infallible = write!(text, " {kind} |");
        }
        let _infallible = write!(text, "\n|---|{}\n", "---|".repeat(kinds.len()));
        for (row, a) in kinds.iter().enumerate() {
            let _infallible = write!(text, "| {a} |");
            for (column, b) in kinds.iter().enumerate() {
                // A pair stands in the upper triangle whoever dialed it; where both were run, each has its place.
                let cell = match (of(*a, *b), of(*b, *a)) {
                    (Some(here), _) if row <= column => Some(here),
                    (Some(here), Some(_)) => Some(here),
                    (None, Some(mirrored)) if row < column => Some(mirrored),
                    _ => None,
                };
                let shown = match cell {
                    None => String::new(),
                    Some(cell) if cell.failure.is_some() => format!("**{}**", cell.outcome),
                    Some(cell) => cell.outcome.clone(),
                };
                let _infallible = write!(text, " {shown} |");
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// Writes the outcomes to `target/lab/matrix.json` and `matrix.md`; returns the path of the latter.
pub fn write(outcomes: &[Outcome]) -> Result<PathBuf> {
    let root = artifacts::root()?;
    let json = root.join("matrix.json");
    fs::write(&json, serde_json::to_vec_pretty(outcomes)?)
        .with_context(|| format!("{}: cannot be written", json.display()))?;
    let markdown = root.join("matrix.md");
    fs::write(&markdown, table(outcomes))
        .with_context(|| format!("{}: cannot be written", markdown.display()))?;
    Ok(markdown)
}

/// The failures, one line each, with where their artifacts are.
pub fn failures(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .filter_map(|outcome| {
            Some(format!(
                "{}: {}",
                outcome.cell.name(),
                outcome.failure.as_ref()?
            ))
        })
        .collect()
}

/// How many cells to run at once. A cell waits more than it computes.
pub fn parallelism() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}
