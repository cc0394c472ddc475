//! A report as tables: for a terminal, and in Markdown.

use std::fmt::Write as _;

use super::{Better, Figure, Judged, Report, number::number};

const HEADINGS: [&str; 9] = [
    "CONDITIONS",
    "PROGRAM",
    "median",
    "least",
    "q1",
    "q3",
    "most",
    "ratio",
    "goal",
];

/// The columns of text; the others are numbers.
const TEXT: [usize; 3] = [0, 1, 8];

impl Report {
    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n\n{}\n", self.name, self.what);
        for figure in &self.figures {
            let rows = figure.rows();
            let width = |column: usize| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.max().unwrap_or(0).max(HEADINGS[column].len())
            };
            let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
            let _infallible = write!(text, "\n{}\n", figure.heading());
            for row in std::iter::once(&HEADINGS.map(str::to_owned)).chain(&rows) {
                let mut line = String::new();
                for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                    let _infallible = if TEXT.contains(&column) {
                        write!(line, "{cell:width$}  ")
                    } else {
                        write!(line, "{cell:>width$}  ")
                    };
                }
                let _infallible = writeln!(text, "{}", line.trim_end());
            }
        }
        text.push_str("\nratio: the median of the first program divided by this one's\n");
        for note in &self.notes {
            let _infallible = writeln!(text, "{note}");
        }
        text
    }

    /// In Markdown, without a heading for the whole.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for figure in &self.figures {
            let _infallible = write!(text, "\n**{}**\n\n", figure.heading());
            let headings = HEADINGS.map(|heading| heading.to_lowercase());
            let ruler = std::array::from_fn::<_, { HEADINGS.len() }, _>(|column| {
                if TEXT.contains(&column) {
                    "---"
                } else {
                    "---:"
                }
            });
            let _infallible = write!(
                text,
                "| {} |\n|{}|\n",
                headings.join(" | "),
                ruler.join("|")
            );
            for row in figure.rows() {
                let cells = row.map(|cell| cell.replace('|', "\\|"));
                let _infallible = writeln!(text, "| {} |", cells.join(" | "));
            }
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _infallible = writeln!(text, "- {note}");
        }
        text
    }
}

impl Figure {
    fn heading(&self) -> String {
        let better = match self.better {
            Better::Less => "less",
            Better::More => "more",
        };
        format!("{}, {} ({better} is better)", self.name, self.unit)
    }

    fn rows(&self) -> Vec<[String; HEADINGS.len()]> {
        let cells = self.cells.iter();
        cells
            .flat_map(|cell| {
                let rows = cell.judge(self.better).into_iter().enumerate();
                rows.map(|(index, judged)| {
                    // Said once for all of its rows.
                    let label = if index == 0 { cell.label.as_str() } else { "" };
                    row(label, &judged)
                })
            })
            .collect()
    }
}

fn row(label: &str, judged: &Judged<'_>) -> [String; HEADINGS.len()] {
    let spread = &judged.spread;
    let program = match spread.failed {
        0 => judged.row.program.clone(),
        failed => format!(
            "{} ({failed} of {} failed)",
            judged.row.program,
            judged.row.samples.len()
        ),
    };
    let goal = match (judged.row.goal, judged.met) {
        (Some(goal), Some(true)) => format!("{goal}: met"),
        (Some(goal), _) => format!("{goal}: MISSED"),
        (None, _) => String::new(),
    };
    [
        label.to_owned(),
        program,
        number(spread.median),
        number(spread.least),
        number(spread.q1),
        number(spread.q3),
        number(spread.most),
        judged
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        goal,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;

    #[test]
    fn the_terminal_has_columns_one_above_the_other() {
        let table = example().table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[3..8],
            [
                "",
                "goodput, Gbit/s (more is better)",
                "CONDITIONS       PROGRAM  median  least    q1    q3  most  ratio  goal",
                "50 ms, 1 % loss  ours       2.00   1.00  1.50  2.50  3.00",
                "                 plain      1.00   1.00  1.00  1.00  1.00   2.00  at least 1.5: met",
            ]
        );
        assert!(lines[8].ends_with("0.80  at least 0.95: MISSED"), "{table}");
        assert!(table.contains("ours (1 of 3 failed)"), "{table}");
        assert!(table.ends_with("iperf3 is not installed\n"), "{table}");
    }

    #[test]
    fn markdown_has_a_table_for_each_figure() {
        let text = example().markdown();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..8],
            [
                "Two programs <in turn>.",
                "",
                "**goodput, Gbit/s (more is better)**",
                "",
                "| conditions | program | median | least | q1 | q3 | most | ratio | goal |",
                "|---|---|---:|---:|---:|---:|---:|---:|---|",
                "| 50 ms, 1 % loss | ours | 2.00 | 1.00 | 1.50 | 2.50 | 3.00 |  |  |",
                "|  | plain | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 2.00 | at least 1.5: met |",
            ]
        );
        assert!(text.contains("**time, ms (less is better)**"));
        assert!(
            text.contains("| plain (2 of 3 failed) | never | 400 |"),
            "{text}"
        );
    }
}
