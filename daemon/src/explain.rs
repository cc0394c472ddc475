//! `explain`: cause and remedy of a name that the programs print, from the troubleshooting page.
//!
//! The page is part of the program, so an explanation needs no network and fits the version. See decision 1100.

use std::fmt::Write as _;

use clap::Args;

use crate::exit::Usage;

const PAGE: &str = include_str!("../../docs/troubleshooting.md");

/// Arguments of `explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The name, as in symmetric_both; without one, every name is printed
    pub name: Option<String>,
}

impl ExplainArgs {
    /// The entry of the name, or all names with their first sentence.
    ///
    /// # Errors
    /// If no entry has that name.
    pub fn answer(&self) -> anyhow::Result<String> {
        let Some(name) = &self.name else {
            let mut list = String::new();
            for (name, text) in entries() {
                let first = text.split_once(". ").map_or(text, |(first, _)| first);
                let _ = writeln!(list, "{name:24} {}", first.trim_end_matches('.'));
            }
            return Ok(list);
        };
        match entry(name) {
            Some(text) => Ok(format!("{text}\n")),
            None => Err(Usage(format!(
                "{} is no name that the programs print; {}`explain` without a name lists all of them",
                p2pnode_protocol::quote(name),
                similar(name)
            ))
            .into()),
        }
    }
}

/// The text of an entry. A name may be written with spaces or hyphens, as lines for people have it.
#[must_use]
pub fn entry(name: &str) -> Option<&'static str> {
    let name = name.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    entries()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| text)
}

/// The names that begin alike, for somebody who mistyped one.
fn similar(name: &str) -> String {
    let alike = |known: &str| {
        known
            .bytes()
            .zip(name.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let most = entries().map(|(known, _)| alike(known)).max();
    let Some(most) = most.filter(|most| *most >= 3) else {
        return String::new();
    };
    let names: Vec<_> = entries()
        .map(|(known, _)| known)
        .filter(|known| alike(known) == most)
        .take(4)
        .collect();
    format!("similar: {}; ", names.join(", "))
}

/// Each name, once, with its text.
pub fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("\n### `").skip(1).filter_map(|section| {
        let (name, rest) = section.split_once("`\n")?;
        let end = rest.find("\n#").unwrap_or(rest.len());
        // The paragraphs of the section that begins after the last entry of this one are not its own.
        let text = rest[..end].trim();
        Some((name, text))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_entry_is_found_once_and_is_one_paragraph() {
        let mut names = BTreeSet::new();
        for (name, text) in entries() {
            assert!(names.insert(name), "{name} has two entries");
            assert!(
                text.ends_with('.') && !text.contains('\n'),
                "{name}: {text}"
            );
        }
        assert!(names.len() > 80, "{names:?}");
    }

    #[test]
    fn a_name_may_be_written_as_people_read_it() {
        assert!(entry("symmetric_both").is_some());
        assert_eq!(entry("Symmetric both"), entry("symmetric_both"));
        assert_eq!(entry("symmetric-both"), entry("symmetric_both"));
        assert_eq!(entry("nonsense"), None);
    }

    #[test]
    fn a_name_that_nobody_prints_is_answered_with_those_that_begin_alike() {
        let answer = |name: &str| {
            let name = Some(name.to_owned());
            ExplainArgs { name }
                .answer()
                .map_or_else(|error| error.to_string(), |_| String::new())
        };
        assert!(answer("symetric_both").contains("symmetric_both"));
        assert!(!answer("zzz").contains("similar"));
    }

    #[test]
    fn without_a_name_each_has_a_line() {
        let all = ExplainArgs { name: None }.answer().unwrap_or_default();
        assert_eq!(all.lines().count(), entries().count());
    }
}
