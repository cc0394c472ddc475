//! A soak: two nodes, two relays and a ping per second, while a seeded schedule of faults passes over them.
//!
//! [`schedule`] decides what happens when, from a seed. The world applies it. Afterwards everything has to be direct again, nothing
//! may have grown ([`growth`]), and all that was reported is judged by what happened ([`oracle`]).

pub mod growth;
pub mod oracle;
pub mod schedule;
mod world;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{args::PATIENCE, lab::Lab, nat::NatKind};
use growth::{Measure, log_faults};
use oracle::{Applied, Finding};
use schedule::{Change, Schedule, Side};
use world::{World, seen, since};

/// After the last fault everything is direct again within this time.
const HEALS: Duration = Duration::from_secs(60);
/// A test that runs so much later than it wanted has no machine to run on.
const STALL: Duration = Duration::from_millis(700);
const TICK: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize)]
pub struct Report {
    pub schedule: Schedule,
    /// From the last fault to the last path.
    pub healed: Option<Duration>,
    pub pings: usize,
    pub dials: usize,
    pub applied: Vec<Applied>,
    pub stalls: Vec<[Duration; 2]>,
    pub before: Vec<(String, Measure)>,
    pub after: Vec<(String, Measure)>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Fails with all findings.
    pub fn passed(&self) -> Result<()> {
        let lines = self.findings.iter().map(|finding| {
            let at = finding.at.as_secs_f64();
            format!("{at:.1} s: {}: {}", finding.who, finding.what)
        });
        let lines: Vec<_> = lines.collect();
        ensure!(
            lines.is_empty(),
            "seed {}: {} findings:\n{}",
            self.schedule.seed,
            lines.len(),
            lines.join("\n")
        );
        Ok(())
    }
}

/// Runs a schedule in the lab. The schedule and the report are written to its artifacts, `schedule.json` and `report.json`.
pub async fn run(lab: Lab, schedule: Schedule, kinds: [NatKind; 2]) -> Result<Report> {
    let artifacts = lab.artifacts().dir().to_owned();
    let text = serde_json::to_string_pretty(&schedule)?;
    std::fs::write(artifacts.join("schedule.json"), text).context("the schedule")?;
    let mut world = World::start(lab, kinds).await?;
    let before = world.measure().await?;
    let start = Instant::now();
    let stalls = Stalls::watch(start);
    let applied = apply(&mut world, &schedule, start).await?;
    let end = Instant::now();
    let mut findings = Vec::new();
    let mut finding = |who: &str, what: String| {
        let (at, who) = (since(start, Instant::now()), who.to_owned());
        findings.push(Finding { at, who, what });
    };
    let healed = world.heals(HEALS).await;
    let healed = match healed {
        Ok(()) => Some(end.elapsed()),
        Err(error) => {
            finding("all", format!("not direct again: {error:#}"));
            None
        }
    };
    let after = shrink(&world, &before).await?;
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        for grown in after.grown(before) {
            finding(name, grown);
        }
    }
    world.stop_dial().await?;
    for (name, log) in world.logs() {
        for fault in log_faults(&log) {
            finding(&name, fault);
        }
    }
    let stalls = stalls.end();
    let facts = oracle::Facts {
        faults: applied,
        stalls: stalls.clone(),
        ..world.facts(start)
    };
    for (side, node) in Side::BOTH.into_iter().zip(&world.nodes) {
        let [before, events] = seen(&node.process.events(), start);
        findings.extend(facts.judge_node(side, &before, &events));
    }
    let dials: Vec<_> = world.ended.iter().filter(|ended| ended.is_dial).collect();
    let mut pings = 0;
    for dial in &dials {
        let [_, events] = seen(&dial.events, start);
        pings += dial
            .events
            .iter()
            .filter(|event| event.name() == "ping")
            .count();
        findings.extend(facts.judge_dial(&dial.name, Side::A, &events));
    }
    let report = Report {
        healed,
        pings,
        dials: dials.len(),
        applied: facts.faults,
        stalls,
        before,
        after,
        findings,
        schedule,
    };
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(artifacts.join("report.json"), text).context("the report")?;
    Ok(report)
}

/// Applies all of it, each step at its time, and returns when it was there.
async fn apply(world: &mut World, schedule: &Schedule, start: Instant) -> Result<Vec<Applied>> {
    let mut applied: Vec<Option<Applied>> = vec![None; schedule.episodes.len()];
    for step in schedule.steps() {
        world.until(start + step.at).await?;
        let fault = schedule.episodes[step.episode].fault;
        let began = since(start, Instant::now());
        match step.change {
            Change::Begins => world.begin(fault).await,
            Change::Ends => world.end(fault).await,
        }
        .with_context(|| format!("{:?}: {fault:?}", step.change))?;
        let done = since(start, Instant::now());
        let entry = &mut applied[step.episode];
        *entry = Some(match *entry {
            Some(entry) => Applied {
                goes: began,
                gone: done,
                ..entry
            },
            None => Applied {
                fault,
                begins: began,
                stands: done,
                goes: done,
                gone: done,
            },
        });
    }
    Ok(applied.into_iter().flatten().collect())
}

/// Measures until nothing is more than it was, or for a while: connections that are surplus go a little later than they become so.
async fn shrink(world: &World, before: &[(String, Measure)]) -> Result<Vec<(String, Measure)>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = world.measure().await?;
        let mut both = now.iter().zip(before);
        let is_back = both.all(|((_, now), (_, before))| now.grown(before).is_empty());
        if is_back || Instant::now() > until {
            return Ok(now);
        }
        sleep(PAUSE).await;
    }
}

/// Notes when the machine lets the test itself wait.
struct Stalls {
    seen: Arc<Mutex<Vec<[Duration; 2]>>>,
    task: JoinHandle<()>,
}

impl Stalls {
    fn watch(start: Instant) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = Instant::now();
            loop {
                tick.tick().await;
                let now = Instant::now();
                if now - last > TICK + STALL {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.push([since(start, last), since(start, now)]);
                }
                last = now;
            }
        });
        Self { seen, task }
    }

    fn end(self) -> Vec<[Duration; 2]> {
        self.task.abort();
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
