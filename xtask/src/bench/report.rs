//! The one shape of what a benchmark came to, and everything that is made of it.
//!
//! A [`Report`] has figures, each of one unit. A figure has cells, such as `50 ms, 1 % loss, 8 streams`, and a cell has a row
//! for each program that was measured in it, in turn with the others: first the subject, which is ours, then its peers. Of
//! a row's samples the median counts; the peers' rows tell the subject's median as a part of theirs.

mod agreement;
mod number;
mod saved;
mod spread;
mod svg;
mod table;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use agreement::Agreement;
use number::{number, short};
pub(crate) use saved::{Provenance, Saved, directory, write_index};
use spread::Spread;

/// What a benchmark came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its name on the command line, which names its files too.
    pub(crate) name: String,
    /// What was measured and how, in a sentence or two.
    pub(crate) what: String,
    /// The figures.
    pub(crate) figures: Vec<Figure>,
    /// What a reader has to know, such as a peer that is missing.
    pub(crate) notes: Vec<String>,
}

/// Figures of one unit, which share a scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is, such as `goodput`.
    pub(crate) name: String,
    /// Its unit, such as `Gbit/s`.
    pub(crate) unit: String,
    /// Which way is better.
    pub(crate) better: Better,
    /// Under which conditions it was measured.
    pub(crate) cells: Vec<Cell>,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Such as a time. What did not get there took for ever.
    Less,
    /// Such as a rate. What did not get there had none.
    More,
}

/// One set of conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// The conditions, such as `50 ms, 1 % loss, 8 streams`.
    pub(crate) label: String,
    /// The programs, the subject first.
    pub(crate) rows: Vec<Row>,
}

/// One program in one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The program, such as `ours` or `plain libp2p`.
    pub(crate) program: String,
    /// One value of each run; `None` for a run that did not get there.
    pub(crate) samples: Vec<Option<f64>>,
    /// For the subject a bound of its median, for a peer one of the ratio: the subject's median divided by this one's.
    pub(crate) goal: Option<Goal>,
}

/// A bound. It belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    /// A report without figures.
    pub(crate) fn new(name: &str, what: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            what: what.into(),
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The report as JSON, with what follows from the samples beside them. [`Report`] reads it.
    pub(crate) fn json(&self) -> Value {
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                let cells: Vec<_> = figure.cells.iter().map(|cell| cell.json(figure)).collect();
                json!({"name": figure.name, "unit": figure.unit, "better": figure.better, "cells": cells})
            })
            .collect();
        json!({"name": self.name, "what": self.what, "figures": figures, "notes": self.notes})
    }

    /// One JSON object per figure and cell, for whoever reads lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let figures = self.figures.iter();
        let cells = figures.flat_map(|figure| figure.cells.iter().map(move |cell| (figure, cell)));
        cells
            .map(|(figure, cell)| {
                let rows = &cell.json(figure)["rows"];
                json!({
                    "benchmark": self.name,
                    "figure": figure.name,
                    "unit": figure.unit,
                    "better": figure.better,
                    "cell": cell.label,
                    "rows": rows,
                })
                .to_string()
            })
            .collect()
    }

    /// The goals that were missed, a line each.
    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for figure in &self.figures {
            for cell in &figure.cells {
                for judged in cell.judge(figure.better) {
                    if let (Some(goal), Some(false)) = (judged.row.goal, judged.met) {
                        let is = match judged.ratio {
                            Some(ratio) => format!(
                                "{} of {}, {}",
                                number(ratio),
                                judged.row.program,
                                number(judged.spread.median)
                            ),
                            None => number(judged.spread.median),
                        };
                        missed.push(format!(
                            "{}, {}, {}: {is} {}, and the goal is {goal}",
                            self.name, figure.name, cell.label, figure.unit
                        ));
                    }
                }
            }
        }
        missed
    }
}

impl Figure {
    /// A figure without cells.
    pub(crate) fn new(name: &str, unit: &str, better: Better) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            cells: Vec::new(),
        }
    }

    /// Adds a cell; the first row is the subject's.
    pub(crate) fn cell(mut self, label: impl Into<String>, rows: Vec<Row>) -> Self {
        self.push(label, rows);
        self
    }

    /// The same, in place.
    pub(crate) fn push(&mut self, label: impl Into<String>, rows: Vec<Row>) {
        self.cells.push(Cell {
            label: label.into(),
            rows,
        });
    }
}

impl Row {
    /// A program of which every run got there.
    pub(crate) fn new(program: impl Into<String>, samples: impl IntoIterator<Item = f64>) -> Self {
        Self::of(program, samples.into_iter().map(Some))
    }

    /// A program of which some runs may have failed.
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

    /// With a goal.
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }
}

/// A row and what follows from it and from the subject's.
struct Judged<'a> {
    row: &'a Row,
    spread: Spread,
    /// The subject's median divided by this one's; none for the subject.
    ratio: Option<f64>,
    /// Whether the goal is met, if there is one.
    met: Option<bool>,
}

impl Cell {
    fn judge(&self, better: Better) -> Vec<Judged<'_>> {
        let mut subject = None;
        let rows = self.rows.iter().map(|row| {
            let spread = Spread::of(&row.samples, better);
            let ratio = subject.map(|subject| ratio(subject, spread.median));
            subject.get_or_insert(spread.median);
            let met = row
                .goal
                .map(|goal| goal.is_met(ratio.unwrap_or(spread.median)));
            Judged {
                row,
                spread,
                ratio,
                met,
            }
        });
        rows.collect()
    }

    fn json(&self, figure: &Figure) -> Value {
        let rows: Vec<_> = self
            .judge(figure.better)
            .into_iter()
            .map(|judged| {
                let Spread {
                    least,
                    q1,
                    median,
                    q3,
                    most,
                    failed,
                } = judged.spread;
                json!({
                    "program": judged.row.program,
                    "samples": judged.row.samples,
                    "median": finite(median),
                    "least": finite(least),
                    "q1": finite(q1),
                    "q3": finite(q3),
                    "most": finite(most),
                    "failed": failed,
                    "ratio": judged.ratio.and_then(finite),
                    "goal": judged.row.goal,
                    "met": judged.met,
                })
            })
            .collect();
        json!({"label": self.label, "rows": rows})
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
            Self::AtLeast(bound) => write!(f, "at least {}", short(*bound)),
            Self::AtMost(bound) => write!(f, "at most {}", short(*bound)),
        }
    }
}

/// Two that both have nothing, or both took for ever, are equals.
fn ratio(subject: f64, peer: f64) -> f64 {
    if subject == peer { 1.0 } else { subject / peer }
}

/// JSON has no infinity.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// A rate with two peers, and a time of which a run failed.
    pub(super) fn example() -> Report {
        let mut report = Report::new("example", "Two programs <in turn>.");
        report
            .figures
            .push(Figure::new("goodput", "Gbit/s", Better::More).cell(
                "50 ms, 1 % loss",
                vec![
                    Row::new("ours", [3.0, 1.0, 2.0]),
                    Row::new("plain", [1.0]).goal(Goal::AtLeast(1.5)),
                    Row::new("quinn", [2.5]).goal(Goal::AtLeast(0.95)),
                ],
            ));
        report
            .figures
            .push(Figure::new("time", "ms", Better::Less).cell(
                "cold",
                vec![
                    Row::of("ours", [Some(100.0), None, Some(110.0)]).goal(Goal::AtMost(150.0)),
                    Row::of("plain", [None, None, Some(400.0)]).goal(Goal::AtMost(0.4)),
                ],
            ));
        report.notes.push("iperf3 is not installed".to_owned());
        report
    }

    #[test]
    fn ratios_are_of_the_subject_and_goals_are_judged_by_them() {
        let json = example().json();
        let rows = &json["figures"][0]["cells"][0]["rows"];
        assert_eq!(rows[0]["median"], 2.0);
        assert_eq!(
            (&rows[0]["least"], &rows[0]["most"]),
            (&1.0.into(), &3.0.into())
        );
        assert_eq!(
            (&rows[0]["ratio"], &rows[0]["met"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(
            (&rows[1]["ratio"], &rows[1]["met"]),
            (&2.0.into(), &true.into())
        );
        assert_eq!(
            (&rows[2]["ratio"], &rows[2]["met"]),
            (&0.8.into(), &false.into())
        );
    }

    #[test]
    fn what_did_not_get_there_took_for_ever() {
        let json = example().json();
        let rows = &json["figures"][1]["cells"][0]["rows"];
        assert_eq!(
            (&rows[0]["median"], &rows[0]["failed"]),
            (&110.0.into(), &1.into())
        );
        assert_eq!(
            (&rows[0]["most"], &rows[0]["met"]),
            (&Value::Null, &true.into())
        );
        // Most of the peer's failed: its median is without end, and ours a vanishing part of that.
        assert_eq!(
            (&rows[1]["median"], &rows[1]["met"]),
            (&Value::Null, &true.into())
        );
        assert_eq!(rows[1]["ratio"], 0.0);
    }

    #[test]
    fn equals_have_a_ratio_of_one_also_where_both_failed() {
        let same = |value: f64| ratio(value, value);
        assert_eq!([same(0.0), same(f64::INFINITY), same(3.0)], [1.0; 3]);
    }

    #[test]
    fn a_report_is_read_back_from_its_json() {
        let read: Report = serde_json::from_value(example().json()).unwrap();
        assert_eq!(read, example());
    }

    #[test]
    fn there_is_a_line_for_each_cell_and_one_for_each_goal_that_was_missed() {
        let lines = example().lines();
        let first: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&first["cell"], &first["unit"]),
            (&"50 ms, 1 % loss".into(), &"Gbit/s".into())
        );
        assert_eq!(first["rows"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            example().missed(),
            [
                "example, goodput, 50 ms, 1 % loss: 0.800 of quinn, 2.50 Gbit/s, and the goal is at least 0.95"
            ]
        );
    }
}
