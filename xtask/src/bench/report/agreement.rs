//! Two runs of the same benchmarks: which rows agree within their spreads, and which goals are judged alike.

use std::fmt;

use super::{Cell, Figure, Judged, Report, number::number};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Rows that both runs have.
    rows: usize,
    /// Those of which the spreads do not touch.
    apart: Vec<String>,
    /// Goals that both runs have.
    goals: usize,
    /// Those that one has met and the other missed.
    judged_otherwise: Vec<String>,
}

impl Agreement {
    /// Compares two runs of one benchmark. What only one of them has is passed over.
    pub(crate) fn add(&mut self, before: &Report, after: &Report) {
        for figure in &after.figures {
            let same = |other: &&Figure| other.name == figure.name && other.unit == figure.unit;
            let Some(old) = before.figures.iter().find(same) else {
                continue;
            };
            for cell in &figure.cells {
                let same = |other: &&Cell| other.label == cell.label;
                let Some(old) = old.cells.iter().find(same) else {
                    continue;
                };
                let old = old.judge(figure.better);
                for now in cell.judge(figure.better) {
                    let same = |other: &&Judged<'_>| other.row.program == now.row.program;
                    if let Some(old) = old.iter().find(same) {
                        let place = format!("{}, {}, {}", after.name, figure.name, cell.label);
                        self.row(&place, &figure.unit, old, &now);
                    }
                }
            }
        }
    }

    fn row(&mut self, place: &str, unit: &str, before: &Judged<'_>, after: &Judged<'_>) {
        let program = &after.row.program;
        let [was, is] = [before, after].map(|judged| judged.spread);
        self.rows += 1;
        if was.most < is.least || is.most < was.least {
            self.apart.push(format!(
                "{place}, {program}: {} to {} {unit}, and before {} to {}",
                number(is.least),
                number(is.most),
                number(was.least),
                number(was.most)
            ));
        }
        if let (Some(was), Some(is)) = (before.met, after.met) {
            self.goals += 1;
            if was != is {
                let what = if is {
                    "met, and before missed"
                } else {
                    "missed, and before met"
                };
                self.judged_otherwise
                    .push(format!("{place}, {program}: {what}"));
            }
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, all, those) in [
            ("rows have spreads that overlap", self.rows, &self.apart),
            ("goals are judged alike", self.goals, &self.judged_otherwise),
        ] {
            writeln!(f, "{} of {all} {what}", all - those.len())?;
            for line in those {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::example, *};

    fn compared(change: impl FnOnce(&mut Report)) -> String {
        let mut after = example();
        change(&mut after);
        let mut agreement = Agreement::default();
        agreement.add(&example(), &after);
        agreement.to_string()
    }

    #[test]
    fn a_run_agrees_with_itself() {
        let all = "5 of 5 rows have spreads that overlap\n4 of 4 goals are judged alike\n";
        assert_eq!(compared(|_| {}), all);
    }

    #[test]
    fn spreads_that_touch_agree_and_others_are_told_with_what_follows_for_the_goals() {
        let touching = compared(|after| {
            after.figures[0].cells[0].rows[0].samples = vec![Some(3.0), Some(4.0)]
        });
        assert!(touching.starts_with("5 of 5 rows"), "{touching}");
        let apart = compared(|after| after.figures[0].cells[0].rows[0].samples = vec![Some(3.1)]);
        assert_eq!(
            apart,
            "4 of 5 rows have spreads that overlap\n  example, goodput, 50 ms, 1 % loss, ours: 3.10 to 3.10 Gbit/s, and before 1.00 to 3.00\n\
             3 of 4 goals are judged alike\n  example, goodput, 50 ms, 1 % loss, quinn: met, and before missed\n"
        );
    }

    #[test]
    fn what_one_run_alone_has_is_passed_over() {
        let other = compared(|after| {
            after.figures[0].cells[0].label = "100 ms".to_owned();
            after.figures[1].cells[0].rows.remove(1);
        });
        assert_eq!(
            other,
            "1 of 1 rows have spreads that overlap\n1 of 1 goals are judged alike\n"
        );
    }
}
