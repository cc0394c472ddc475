//! What `status --watch` shows on a terminal: lines and tables that fit the screen, whatever its size.
//!
//! A program describes its state as a [`View`]. [`View::lines`] gives each table the widths that fit, and narrows the widest columns
//! first. A cell that is too long loses its middle: the ends of an id or an address distinguish it. If a screen has no room for all
//! columns, it shows the first ones and the last, which has the reason, and no past.

use std::collections::{HashMap, VecDeque};

/// Measured values in a sparkline, one a second: as many as leave room for the other columns of a terminal of 80.
const PAST: usize = 10;

/// The head of the column with the past.
pub const PAST_HEAD: &str = "LAST 10 S";

/// A column is not narrowed below this, unless it is one of two.
const NARROW: usize = 6;

/// Between two columns.
const GAP: &str = "  ";

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it is wanted: a direct path, a reservation.
    Good,
    /// It works, and could be better: a relayed path.
    Fair,
    /// Something is missing or refused.
    Bad,
    /// A heading.
    Bold,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Fair => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// A text with its tone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text that means something. Control characters are replaced.
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        let shown = |letter: char| if letter.is_control() { '?' } else { letter };
        Self {
            text: text.as_ref().chars().map(shown).collect(),
            tone,
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// In `width` columns, filled up with spaces.
    fn padded(&self, width: usize, colour: bool) -> String {
        let text = cut(&self.text, width);
        let padding = width - text.chars().count();
        match (colour, self.tone.code()) {
            (true, code) if !code.is_empty() => format!("{code}{text}\x1b[0m{:padding$}", ""),
            _ => format!("{text}{:padding$}", ""),
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Columns under a head.
#[derive(Debug, Clone)]
struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The columns for which there is room in `columns`, and their widths.
    fn widths(&self, columns: usize) -> Vec<(usize, usize)> {
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let head = self.head.get(column).map_or(0, |head| head.len());
            cells
                .map(Cell::width)
                .chain([head])
                .max()
                .unwrap_or_default()
        };
        let mut widths: Vec<_> = (0..self.head.len())
            .map(|column| (column, widest(column)))
            .collect();
        let gaps = |count: usize| GAP.len() * count.saturating_sub(1);
        let is_past = |(column, _): &(usize, usize)| self.head.get(*column) == Some(&PAST_HEAD);
        loop {
            let least: usize = widths.iter().map(|(_, width)| NARROW.min(*width)).sum();
            if widths.len() <= 2 || least + gaps(widths.len()) <= columns {
                break;
            }
            let past = widths.iter().position(is_past);
            widths.remove(past.unwrap_or(widths.len() - 2));
        }
        let room = columns.saturating_sub(gaps(widths.len()));
        while widths.iter().map(|(_, width)| width).sum::<usize>() > room {
            match widths.iter_mut().max_by_key(|(_, width)| *width) {
                Some((_, widest)) if *widest > 1 => *widest -= 1,
                Some(_) | None => break,
            }
        }
        widths
    }

    fn lines(&self, columns: usize, colour: bool) -> Vec<String> {
        let widths = self.widths(columns);
        let head = self.head.iter().map(|name| Cell::new(name, Tone::Bold));
        let head: Vec<Cell> = head.collect();
        let line = |row: &Vec<Cell>| {
            let cells = widths
                .iter()
                .filter_map(|(column, width)| Some(row.get(*column)?.padded(*width, colour)));
            cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
        };
        std::iter::once(&head).chain(&self.rows).map(line).collect()
    }
}

/// A state as a screen shows it.
#[derive(Debug, Clone, Default)]
pub struct View {
    facts: Vec<(&'static str, Cell)>,
    tables: Vec<Table>,
}

impl View {
    /// Adds a line that names one fact of the process.
    pub fn fact(&mut self, name: &'static str, value: impl Into<Cell>) {
        self.facts.push((name, value.into()));
    }

    /// Adds a table, if it has rows; they are sorted by their first cell.
    pub fn table<const N: usize>(
        &mut self,
        head: [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
    ) {
        let mut rows: Vec<Vec<Cell>> = rows.into_iter().map(Vec::from).collect();
        rows.sort_by(|a, b| {
            a.first()
                .map(|cell| &cell.text)
                .cmp(&b.first().map(|cell| &cell.text))
        });
        if !rows.is_empty() {
            let head = head.to_vec();
            self.tables.push(Table { head, rows });
        }
    }

    /// At most `rows` lines of at most `columns` each; the last one counts the lines that have no room.
    #[must_use]
    pub fn lines(&self, columns: usize, rows: usize, colour: bool) -> Vec<String> {
        let names = self.facts.iter().map(|(name, _)| name.len());
        let width = names.max().unwrap_or_default();
        let rest = columns.saturating_sub(width + GAP.len());
        let mut lines = Vec::new();
        for (name, value) in &self.facts {
            let value = value.padded(value.width().min(rest), colour);
            lines.push(match rest {
                0 => cut(name, columns),
                _ => format!("{name:width$}{GAP}{value}"),
            });
        }
        for table in &self.tables {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(table.lines(columns, colour));
        }
        if lines.len() > rows {
            let hidden = lines.len() - rows.saturating_sub(1);
            lines.truncate(rows.saturating_sub(1));
            let words = [
                format!("and {hidden} more lines; enlarge the window"),
                format!("and {hidden} more lines"),
                format!("+{hidden}"),
            ];
            let fits = words.into_iter().find(|words| words.len() <= columns);
            lines.push(fits.unwrap_or_default());
        }
        lines
    }
}

/// `text` in at most `width` columns: a longer one loses its middle.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (first, last) = (kept.div_ceil(2), kept / 2);
    let mut shorter: String = text.chars().take(first).collect();
    if width > 0 {
        shorter.push('…');
    }
    shorter.extend(text.chars().skip(length - last));
    shorter
}

/// The last values of what a view shows, as sparklines.
#[derive(Debug, Default)]
pub struct Past {
    /// Values by what they are of, and whether the present view has shown them.
    values: HashMap<String, (VecDeque<Option<f64>>, bool)>,
}

impl Past {
    /// The next view begins: what the last one did not show is forgotten.
    pub fn next_view(&mut self) {
        self.values.retain(|_, (_, shown)| std::mem::take(shown));
    }

    /// Adds a value, and returns the last ones as bars from 0 to the highest. An unknown value is a space.
    pub fn spark(&mut self, of: &str, value: Option<f64>) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let (past, shown) = self.values.entry(of.to_owned()).or_default();
        *shown = true;
        past.push_back(value);
        if past.len() > PAST {
            past.pop_front();
        }
        let highest = past.iter().flatten().copied().fold(0.0, f64::max);
        let bar = |value: &Option<f64>| match value {
            None => ' ',
            Some(_) if highest <= 0.0 => BARS[0],
            // A share of 1 has the last bar.
            Some(value) => BARS[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1],
        };
        let bars: String = past.iter().map(bar).collect();
        // The width is the same from the first second on.
        format!("{bars:>PAST$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let mut view = View::default();
        view.fact(
            "node",
            "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt",
        );
        view.table(
            ["PEER", "PATH", "OVER"],
            [
                [
                    "db".into(),
                    Cell::new("relayed", Tone::Fair),
                    "quic/ip4 | tcp/ip4".into(),
                ],
                [
                    "cache".into(),
                    Cell::new("direct", Tone::Good),
                    "quic/ip4 198.51.100.7:51234".into(),
                ],
            ],
        );
        view.table(["EMPTY"], []);
        view
    }

    #[test]
    fn rows_are_sorted_and_aligned_and_tables_without_rows_are_left_out() {
        assert_eq!(
            view().lines(80, 24, false),
            [
                "node  12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt",
                "",
                "PEER   PATH     OVER",
                "cache  direct   quic/ip4 198.51.100.7:51234",
                "db     relayed  quic/ip4 | tcp/ip4",
            ]
        );
    }

    #[test]
    fn whatever_is_too_long_loses_its_middle_and_whatever_is_too_much_is_counted() {
        let lines = view().lines(30, 4, false);
        assert_eq!(
            lines,
            [
                "node  12D3KooWHimN…UmNGqf77WXt",
                "",
                "PEER   PATH     OVER",
                "and 2 more lines",
            ]
        );
        for columns in 0..90 {
            for rows in 1..8 {
                let lines = view().lines(columns, rows, false);
                assert!(lines.len() <= rows);
                let fits = |line: &String| line.chars().count() <= columns.max(4);
                assert!(lines.iter().all(fits), "{columns}: {lines:?}");
            }
        }
    }

    #[test]
    fn colours_are_shown_on_demand_and_control_characters_never() {
        let text = view().lines(80, 24, true).join("\n");
        assert!(text.contains("\x1b[32mdirect\x1b[0m"), "{text}");
        let mut hostile = View::default();
        hostile.fact("reason", "\x1b[2Jgone\r\n");
        assert_eq!(hostile.lines(80, 24, true), ["reason  ?[2Jgone??"]);
    }

    #[test]
    fn a_sparkline_has_the_last_values_and_those_of_a_row_that_is_gone_are_forgotten() {
        let mut past = Past::default();
        past.spark("a", Some(10.0));
        past.spark("a", None);
        assert_eq!(past.spark("a", Some(80.0)), "       ▁ █");
        for _ in 0..40 {
            past.spark("a", Some(80.0));
        }
        assert_eq!(past.spark("a", Some(40.0)), "█████████▄");
        past.next_view();
        past.next_view();
        assert_eq!(past.spark("a", Some(0.0)), "         ▁");
    }
}
