//! Columns, colours and numbers for people.

use std::fmt::Write as _;

pub(super) const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
pub(super) const PLAIN: &str = "\x1b[0m";

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
    match unit {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Columns as wide as their widest cell; the first row is the head.
pub(super) fn table<const N: usize>(text: &mut String, rows: &[[String; N]], colour: bool) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.chars().count();
            let shade = match (colour, number, cell.as_str()) {
                (true, 0, _) => BOLD,
                (true, _, "direct") => GREEN,
                (true, _, "relayed") => YELLOW,
                _ => "",
            };
            let end = if shade.is_empty() { "" } else { PLAIN };
            let _ = write!(line, "{shade}{cell}{end}{:padding$}  ", "");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}
