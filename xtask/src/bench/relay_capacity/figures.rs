//! What the runs came to, as figures.

use p2pnode_tests::fleet::sum;
use serde_json::Value;

use super::{Args, Circuits, GOAL, Measured, Wire};
use crate::bench::report::{Better, Figure, Goal, Report, Row};

pub(super) fn report(args: &Args, runs: &[Measured]) -> Report {
    let mut report = Report::new(
        "relay-capacity",
        format!(
            "{} reservations over {} on loopback, limits lifted, each of {} s and renewed after three quarters of that, through two \
             periods; then {} circuits that all move data for {} s. kB are 1000 bytes.",
            args.reservations,
            args.transport.name().to_uppercase(),
            args.lifetime,
            args.circuits,
            args.seconds
        ),
    );
    let row = |of: &dyn Fn(&Measured) -> f64| vec![Row::new("ours", runs.iter().map(of))];
    let mut cost = row(&|run| run.per_reservation(args));
    if args.transport == Wire::Quic {
        // The goal is for QUIC.
        cost = cost
            .into_iter()
            .map(|row| row.goal(Goal::AtMost(GOAL)))
            .collect();
    }
    let per_reservation = |seconds: f64| seconds * 1000.0 / args.reservations as f64;
    let mut memory = Figure::new("RSS", "MB", Better::Less)
        .cell("idle", row(&|run| run.idle.memory / 1000.0))
        .cell("all held", row(&|run| run.held.memory / 1000.0))
        .cell(
            "after two periods",
            row(&|run| run.periods[1].memory / 1000.0),
        );
    let mut cpu = Figure::new("CPU time per reservation", "ms", Better::Less)
        .cell(
            "set-up",
            row(&|run| per_reservation(run.held.cpu_since(run.idle))),
        )
        .cell(
            "first period",
            row(&|run| per_reservation(run.periods[0].cpu_since(run.held))),
        )
        .cell(
            "second period",
            row(&|run| per_reservation(run.periods[1].cpu_since(run.periods[0]))),
        );
    let mut descriptors = Figure::new("file descriptors", "count", Better::Less).cell(
        "after two periods",
        row(&|run| run.periods[1].descriptors as f64),
    );
    let mut lost = Figure::new("reservations lost", "count", Better::Less).cell(
        "through two periods",
        row(&|run| number(&run.counts, "lost")),
    );
    report.figures.push(
        Figure::new("RSS per reservation", "kB", Better::Less).cell("after two periods", cost),
    );
    if args.circuits > 0 {
        let of =
            |of: fn(&Circuits) -> f64| row(&move |run| run.circuits.as_ref().map_or(f64::NAN, of));
        memory.push(
            "all circuits open",
            of(|circuits| circuits.before.memory / 1000.0),
        );
        memory.push(
            "after they moved data",
            of(|circuits| circuits.after.memory / 1000.0),
        );
        cpu.push(
            "while circuits move data",
            row(&|run| {
                let circuits = run.circuits.as_ref();
                let used = circuits.map_or(f64::NAN, |c| c.after.cpu_since(c.before));
                per_reservation(used)
            }),
        );
        descriptors.push(
            "all circuits open",
            of(|circuits| circuits.before.descriptors as f64),
        );
        lost.push(
            "while circuits moved data",
            of(|circuits| number(&circuits.counts, "lost")),
        );
        report.figures.push(
            Figure::new("circuits", "count", Better::More)
                .cell(
                    "open at once",
                    of(|circuits| number(&circuits.moved, "open")),
                )
                .cell(
                    "moved data to the end, unharmed",
                    of(|circuits| number(&circuits.moved, "complete")),
                ),
        );
        report
            .figures
            .push(Figure::new("moved, both ways", "MB", Better::More).cell(
                "all circuits",
                of(|circuits| number(&circuits.moved, "bytes") / 1e6),
            ));
        let moved = |name: &'static str| {
            row(&move |run| {
                let circuits = run.circuits.as_ref();
                circuits.map_or(f64::NAN, |c| number(&c.moved, name) / 1000.0)
            })
        };
        report.figures.push(
            Figure::new("moved by a circuit in its slower way", "kB", Better::More)
                .cell("least", moved("least"))
                .cell("median", moved("median"))
                .cell("most", moved("most")),
        );
        report.figures.push(
            Figure::new("fairness", "least / median", Better::More)
                .cell("all circuits", of(|circuits| starvation(&circuits.moved))),
        );
    }
    memory.push("everybody gone", row(&|run| run.gone.memory / 1000.0));
    descriptors.push("everybody gone", row(&|run| run.gone.descriptors as f64));
    report.figures.extend([memory, cpu, descriptors, lost]);
    for run in runs {
        report.notes.push(format!(
            "{} renewals; {} handshakes begun anew; set-up {:.0} s",
            number(&run.counts, "renewed"),
            sum(&run.counts, "errors"),
            run.held.seconds_since(run.idle)
        ));
    }
    report
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

/// What the circuit that got least has of what the one in the middle has: 0 is a circuit that starved.
fn starvation(moved: &Value) -> f64 {
    number(moved, "least") / number(moved, "median")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_circuit_that_got_nothing_has_starved_and_one_that_is_not_there_is_no_number() {
        let moved = json!({"least": 0, "median": 1000});
        assert_eq!(starvation(&moved), 0.0);
        let fair = json!({"least": 800, "median": 1000});
        assert!((starvation(&fair) - 0.8).abs() < 1e-9);
        assert!(starvation(&json!({"least": null})).is_nan());
    }
}
