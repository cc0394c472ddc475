//! The one shape of what a benchmark came to, and everything that is made of it.
//!
//! A [`Report`] has figures, each of one unit. A figure has cells, such as `50 ms, 1 % loss, 8 streams`, and a cell has a row
//! for each program that was measured in it, in turn with the others: first the subject, which is ours, then its peers. Of
//! a row's samples the median counts; the peers' rows tell the subject's median as a part of theirs.

use std::{env, fmt::Write as _, fs, path::PathBuf, process::Command, time::SystemTime};

use anyhow::{Context as _, Result};
use p2pnode_tests::bins;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cargo;

/// Variables that name a program to measure instead of the one of this repository.
const NAMED: [&str; 8] = [
    "P2PNODE_BIN",
    "RELAY_NODE_BIN",
    "PLAIN_LIBP2P_BIN",
    "FLEET_BIN",
    "TRANSFER_BIN",
    "IROH_PEER_BIN",
    "DUMBPIPE_BIN",
    "BORINGTUN_BIN",
];

const TABLE: &str = "| conditions | program | median | least | q1 | q3 | most | ratio | goal |
|---|---|---:|---:|---:|---:|---:|---:|---|
";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    name: String,
    unit: String,
    better: Better,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Such as a time. A run that failed took for ever.
    Less,
    /// Such as a rate. A run that failed had none.
    More,
}

/// One set of conditions: its label, and the programs, the subject first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cell {
    label: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    program: String,
    /// One value of each run; `None` for a run that failed.
    samples: Vec<Option<f64>>,
    /// For the subject a bound of its median, for a peer one of the ratio: the subject's median divided by this one's.
    goal: Option<Goal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    pub(crate) fn new(name: &str, what: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            what: what.into(),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn all(&self) -> impl Iterator<Item = (&Figure, &Cell)> {
        let figures = self.figures.iter();
        figures.flat_map(|figure| figure.cells.iter().map(move |cell| (figure, cell)))
    }

    pub(crate) fn cells(&self) -> Vec<Value> {
        let cell = |(figure, cell): (&Figure, &Cell)| {
            let rows = cell.judge(figure.better).into_iter().map(|judged| {
                let [least, q1, median, q3, most] = judged.quartiles.map(finite);
                json!({
                    "program": judged.row.program, "samples": judged.row.samples,
                    "median": median, "least": least, "q1": q1, "q3": q3, "most": most,
                    "failed": judged.failed(), "ratio": judged.ratio.and_then(finite),
                    "goal": judged.row.goal, "met": judged.met,
                })
            });
            json!({
                "benchmark": self.name, "figure": figure.name, "unit": figure.unit, "better": figure.better,
                "cell": cell.label, "rows": rows.collect::<Vec<_>>(),
            })
        };
        self.all().map(cell).collect()
    }

    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for (figure, cell) in self.all() {
            for judged in cell.judge(figure.better) {
                let (Some(goal), Some(false)) = (judged.row.goal, judged.met) else {
                    continue;
                };
                let median = number(judged.median());
                let is = judged.ratio.map_or_else(String::new, |ratio| {
                    format!("{} of {}, ", number(ratio), judged.row.program)
                });
                missed.push(format!(
                    "{}, {}, {}: {is}{median} {}, and the goal is {goal}",
                    self.name, figure.name, cell.label, figure.unit
                ));
            }
        }
        missed
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n", self.name, self.what);
        for figure in self
            .figures
            .iter()
            .filter(|figure| !figure.cells.is_empty())
        {
            let better = match figure.better {
                Better::Less => "less",
                Better::More => "more",
            };
            let (name, unit) = (&figure.name, &figure.unit);
            let _infallible = write!(text, "\n**{name}, {unit} ({better} is better)**\n\n{TABLE}");
            for cell in &figure.cells {
                // Said once for all of its rows.
                let mut label = cell.label.as_str();
                for judged in cell.judge(figure.better) {
                    let _infallible =
                        writeln!(text, "| {label} | {} |", judged.columns().join(" | "));
                    label = "";
                }
            }
        }
        let notes: Vec<_> = self
            .notes
            .iter()
            .map(|note| format!("\n- {note}"))
            .collect();
        text + &notes.concat() + "\n"
    }

    /// Writes `target/bench/NAME.json` and `NAME.md`; returns the path of the latter.
    pub(crate) fn write(&self) -> Result<PathBuf> {
        let run = Run::now();
        let directory = bins::target_dir()?.join("bench");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let put = |ending: &str, text: &str| {
            let file = directory.join(format!("{}.{ending}", self.name));
            fs::write(&file, text).with_context(|| file.display().to_string())?;
            anyhow::Ok(file)
        };
        let (what, notes, cells) = (&self.what, &self.notes, self.cells());
        let json = json!({"run": run, "what": what, "notes": notes, "cells": cells});
        put("json", &serde_json::to_string_pretty(&json)?)?;
        put("md", &format!("{}\n{}\n", self.markdown(), run.sentence()))
    }
}

impl Figure {
    pub(crate) fn new(name: &str, unit: &str, better: Better) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            cells: Vec::new(),
        }
    }

    pub(crate) fn cell(mut self, label: impl Into<String>, rows: Vec<Row>) -> Self {
        self.push(label, rows);
        self
    }

    pub(crate) fn push(&mut self, label: impl Into<String>, rows: Vec<Row>) {
        let label = label.into();
        self.cells.push(Cell { label, rows });
    }
}

impl Row {
    pub(crate) fn new(program: impl Into<String>, samples: impl IntoIterator<Item = f64>) -> Self {
        Self::of(program, samples.into_iter().map(Some))
    }

    pub(crate) fn of(
        program: impl Into<String>,
        samples: impl IntoIterator<Item = Option<f64>>,
    ) -> Self {
        Self {
            program: program.into(),
            samples: samples.into_iter().collect(),
            goal: None,
        }
    }

    pub(crate) fn goal(mut self, goal: impl Into<Option<Goal>>) -> Self {
        self.goal = goal.into();
        self
    }
}

struct Judged<'a> {
    row: &'a Row,
    /// Least, q1, median, q3, most.
    quartiles: [f64; 5],
    /// The subject's median divided by this one's; none for the subject.
    ratio: Option<f64>,
    met: Option<bool>,
}

impl Cell {
    fn judge(&self, better: Better) -> Vec<Judged<'_>> {
        let mut subject = None;
        let rows = self.rows.iter().map(|row| {
            let quartiles = quartiles(&row.samples, better);
            let median = quartiles[2];
            let ratio = subject.map(|subject| ratio(subject, median));
            subject.get_or_insert(median);
            let met = row.goal.map(|goal| goal.is_met(ratio.unwrap_or(median)));
            Judged {
                row,
                quartiles,
                ratio,
                met,
            }
        });
        rows.collect()
    }
}

impl Judged<'_> {
    fn median(&self) -> f64 {
        self.quartiles[2]
    }

    fn failed(&self) -> usize {
        self.row
            .samples
            .iter()
            .filter(|sample| sample.is_none())
            .count()
    }

    fn columns(&self) -> [String; 8] {
        let program = match self.failed() {
            0 => self.row.program.clone(),
            failed => {
                let all = self.row.samples.len();
                format!("{} ({failed} of {all} failed)", self.row.program)
            }
        };
        let goal = self.row.goal.map_or_else(String::new, |goal| {
            let met = if self.met == Some(true) {
                "met"
            } else {
                "MISSED"
            };
            format!("{goal}: {met}")
        });
        let ratio = self
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let [least, q1, median, q3, most] = self.quartiles.map(number);
        [program, median, least, q1, q3, most, ratio, goal]
    }
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

/// What failed is as bad as can be. Of no sample all are NaN.
fn quartiles(samples: &[Option<f64>], better: Better) -> [f64; 5] {
    let worst = match better {
        Better::Less => f64::INFINITY,
        Better::More => 0.0,
    };
    let mut sorted: Vec<f64> = samples
        .iter()
        .map(|sample| sample.unwrap_or(worst))
        .collect();
    sorted.sort_by(f64::total_cmp);
    [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| {
        // Between the two neighbours of the position, which for the median is their middle.
        let position = part * (sorted.len().saturating_sub(1)) as f64;
        let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
        let (low, high) = (value(position.floor()), value(position.ceil()));
        if low == high {
            low
        } else {
            low + (high - low) * position.fract()
        }
    })
}

/// Two that both have nothing, or both took for ever, are equals.
fn ratio(subject: f64, peer: f64) -> f64 {
    if subject == peer { 1.0 } else { subject / peer }
}

/// JSON has no infinity.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// With three digits that count, and no more decimals than these ask for.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size.is_infinite() => "never".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[derive(Debug, Serialize)]
struct Run {
    date: String,
    /// The commit, with `+` if the working tree had changes.
    commit: String,
    command: String,
    machine: String,
    /// Variables that named programs: those are not necessarily of the commit.
    named: Vec<&'static str>,
}

impl Run {
    fn now() -> Self {
        let words = env::args().skip(1).collect::<Vec<_>>().join(" ");
        let named = NAMED.into_iter().filter(|name| env::var_os(name).is_some());
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: commit(),
            command: format!("cargo xtask {words}"),
            machine: machine(),
            named: named.collect(),
        }
    }

    fn sentence(&self) -> String {
        let named = match self.named[..] {
            [] => String::new(),
            _ => format!(" Programs that were named by {}.", self.named.join(", ")),
        };
        format!(
            "`{}`, {}, commit {}, {}.{named}",
            self.command, self.date, self.commit, self.machine
        )
    }
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        let output = git.args(args).current_dir(cargo::workspace()).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]).as_deref() {
        Some("") => commit,
        _ => format!("{commit}+"),
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Not every architecture has the model.
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(':'))
        .map(|(_, model)| model.trim());
    let (model, kernel) = (model.unwrap_or(env::consts::ARCH), kernel.trim());
    format!("{model}, {cores} cores, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// A rate with two peers, and a time of which a run failed.
    fn example() -> Report {
        let mut report = Report::new("example", "Two programs in turn.");
        let goodput = Figure::new("goodput", "Gbit/s", Better::More).cell(
            "50 ms, 1 % loss",
            vec![
                Row::new("ours", [3.0, 1.0, 2.0]),
                Row::new("plain", [1.0]).goal(Goal::AtLeast(1.5)),
                Row::new("quinn", [2.5]).goal(Goal::AtLeast(0.95)),
            ],
        );
        let time = Figure::new("time", "ms", Better::Less).cell(
            "cold",
            vec![
                Row::of("ours", [Some(100.0), None, Some(110.0)]).goal(Goal::AtMost(150.0)),
                Row::of("plain", [None, None, Some(400.0)]).goal(Goal::AtMost(0.4)),
            ],
        );
        report.figures.extend([goodput, time]);
        report.notes.push("iperf3 is not installed".to_owned());
        report
    }

    #[test]
    fn ratios_are_of_the_subject_goals_are_judged_by_them_and_failures_took_for_ever() {
        let text = example().markdown();
        let row = |row: &str| assert!(text.contains(&format!("\n{row}\n")), "{row}: {text}");
        row("**goodput, Gbit/s (more is better)**");
        row("| 50 ms, 1 % loss | ours | 2.00 | 1.00 | 1.50 | 2.50 | 3.00 |  |  |");
        row("|  | plain | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 2.00 | at least 1.5: met |");
        row("|  | quinn | 2.50 | 2.50 | 2.50 | 2.50 | 2.50 | 0.80 | at least 0.95: MISSED |");
        row(
            "| cold | ours (1 of 3 failed) | 110 | 100 | 105 | never | never |  | at most 150: met |",
        );
        // Most of the peer's failed: its median is without end, and ours a vanishing part of that.
        row(
            "|  | plain (2 of 3 failed) | never | 400 | never | never | never | 0.00 | at most 0.4: met |",
        );
        row("- iperf3 is not installed");
        let missed = "example, goodput, 50 ms, 1 % loss: 0.800 of quinn, 2.50 Gbit/s, and the goal is at least 0.95";
        assert_eq!(example().missed(), [missed]);
    }

    #[test]
    fn json_has_no_infinity_and_a_report_from_the_lab_is_read_back() {
        let cells = example().cells();
        let ours = &cells[1]["rows"][0];
        assert!(ours["median"] == 110.0 && ours["failed"] == 1);
        assert!(ours["most"].is_null() && ours["met"] == true);
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), example());
    }

    #[test]
    fn quartiles_lie_between_their_neighbours_and_numbers_have_three_digits_that_count() {
        let of = |samples: &[f64]| {
            let samples: Vec<_> = samples.iter().copied().map(Some).collect();
            quartiles(&samples, Better::Less)
        };
        assert_eq!(of(&[0.0, 10.0, 20.0, 30.0]), [0.0, 7.5, 15.0, 22.5, 30.0]);
        assert!(of(&[])[2].is_nan());
        let same = |value: f64| ratio(value, value);
        assert_eq!([same(0.0), same(f64::INFINITY), same(3.0)], [1.0; 3]);
        let shown = [1234.4, 99.96, 12.34, 9.999, 1.0, 0.5, 0.0, f64::NAN].map(number);
        assert_eq!(
            shown,
            ["1234", "100", "12.3", "10.0", "1.00", "0.500", "0", "-"]
        );
    }
}
