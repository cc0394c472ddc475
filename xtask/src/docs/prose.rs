//! The rules of prose that a program can check: how long a sentence is, and which words the project does not use.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};

use super::pages::{self, Page};
use crate::cargo;

/// More words than a reader in a hurry holds in mind.
const LONGEST: usize = 25;

/// Words for which the field has a term, or which name no subject. They are lower case; each is matched as whole words.
const BANNED: &[(&str, &str)] = &[
    ("tell", "log, emit, return, report, advertise or send"),
    (
        "tells",
        "logs, emits, returns, reports, advertises or sends",
    ),
    (
        "told",
        "logged, emitted, returned, reported, advertised or sent",
    ),
    ("telling", "logging, emitting, reporting"),
    ("speak of", "name"),
    ("speaks of", "names"),
    ("the four numbers", "4-tuple"),
    ("in vain", "without success, or failed"),
    ("anew", "again"),
    ("beside", "alongside"),
    ("goodbye", "graceful close"),
    ("good no more", "invalid"),
    ("no more good", "invalid"),
    ("whoever", "the peer, the caller, or another named part"),
    ("whosoever", "the peer, the caller, or another named part"),
];

/// Every page is included, but the list of pages and what a benchmark has written.
fn is_included(page: &Path) -> bool {
    page != Path::new("docs/SUMMARY.md") && !page.starts_with("docs/benchmarks")
}

pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The crates whose documentation of modules and public items is included: the libraries and the programs.
const CRATES: [&str; 6] = [
    "protocol/src",
    "daemon/src",
    "transports/src",
    "services/src",
    "node/src",
    "relay-node/src",
];

/// What is wrong with what is included.
pub(crate) fn findings() -> Result<Vec<Finding>> {
    let pages = pages::all()?;
    let included = pages.iter().filter(|page| is_included(&page.path));
    let mut findings: Vec<_> = included.flat_map(of_page).collect();
    for folder in CRATES {
        findings.extend(of_path(folder)?);
    }
    Ok(findings)
}

/// What is wrong with a file or the files of a folder: Markdown, or the public documentation of Rust.
pub(crate) fn of_path(path: &str) -> Result<Vec<Finding>> {
    let path = cargo::workspace().join(path);
    let mut findings = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let below = entry?.path();
            let kind = below.extension();
            if below.is_dir() || kind.is_some_and(|kind| kind == "md" || kind == "rs") {
                findings.extend(of_path(&below.to_string_lossy())?);
            }
        }
        return Ok(findings);
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = match path.extension().is_some_and(|kind| kind == "rs") {
        true => documentation(&text),
        false => text,
    };
    let root = cargo::workspace();
    let path = path.strip_prefix(&root).unwrap_or(&path).to_owned();
    Ok(of_page(&Page { path, text }))
}

/// The documentation of public items and modules, each line in its place.
fn documentation(code: &str) -> String {
    let lines: Vec<_> = code.lines().map(str::trim_start).collect();
    let mut shown = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let documented = || {
            let mut below = lines[index..].iter();
            let item = below.find(|line| !line.starts_with("///") && !line.starts_with("#["));
            item.is_some_and(|item| item.starts_with("pub ") || item.ends_with(','))
        };
        shown.push(match (line.strip_prefix("//!"), line.strip_prefix("///")) {
            (Some(text), _) => text,
            (None, Some(text)) if documented() => text,
            (None, _) => "",
        });
    }
    shown.join("\n")
}

fn of_page(page: &Page) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |line, what| {
        findings.push(Finding {
            path: page.path.display().to_string(),
            line,
            what,
        });
    };
    for (line, paragraph) in paragraphs(page) {
        for sentence in sentences(&paragraph) {
            let words = sentence
                .split_whitespace()
                .filter(|word| word.contains(char::is_alphanumeric));
            let count = words.count();
            if count > LONGEST {
                note(line, format!("{count} words: {sentence}"));
            }
            let plain = plain(&sentence);
            for (word, better) in BANNED {
                if plain.contains(&format!(" {word} ")) {
                    note(line, format!("{word:?}, better: {better}: {sentence}"));
                }
            }
        }
    }
    findings
}

/// Paragraphs, items of lists and cells of tables, with the number of their first line.
fn paragraphs(page: &Page) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in page.outside() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("<!--") {
            open = false;
        } else if let Some(row) = line.strip_prefix('|') {
            let row = row.replace("\\|", "/");
            paragraphs.extend(row.split('|').map(|cell| (number, cell.trim().to_owned())));
            open = false;
        } else {
            let item = ["- ", "* "].iter().find_map(|mark| line.strip_prefix(mark));
            let item = item.or_else(|| numbered(line));
            match (item, paragraphs.last_mut()) {
                (None, Some((_, text))) if open => {
                    text.push(' ');
                    text.push_str(line);
                }
                (item, _) => paragraphs.push((number, item.unwrap_or(line).to_owned())),
            }
            open = true;
        }
    }
    paragraphs
}

fn numbered(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches(|digit: char| digit.is_ascii_digit());
    (rest.len() < line.len()).then(|| rest.strip_prefix(". "))?
}

/// The sentences of a paragraph. Code counts as one word, a link as its text.
fn sentences(paragraph: &str) -> Vec<String> {
    let mut text = String::new();
    for (index, part) in paragraph.split('`').enumerate() {
        text += if index % 2 == 1 { "CODE" } else { part };
    }
    // A list of names is read as one.
    while text.contains("CODE, CODE") {
        text = text.replace("CODE, CODE", "CODE");
    }
    let mut shown = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("](") {
        shown += before;
        rest = after.split_once(')').map_or("", |(_, behind)| behind);
    }
    shown += rest;
    let mut sentences = vec![String::new()];
    for word in shown.split_whitespace() {
        let word = word.trim_matches(['*', '[', '!', '(']);
        let ends = word
            .trim_end_matches([')', '*', '"'])
            .ends_with(['.', '?', '!']);
        if let Some(last) = sentences.last_mut() {
            last.push_str(word);
            last.push(' ');
        }
        if ends {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Lower case, with a space around each word.
fn plain(sentence: &str) -> String {
    let letters = sentence.chars().map(|letter| match letter {
        '\'' | '-' => letter,
        other if other.is_alphanumeric() => other,
        _ => ' ',
    });
    let letters: String = letters.collect();
    let words: Vec<_> = letters.split_whitespace().map(str::to_lowercase).collect();
    format!(" {} ", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let page = Page {
            path: "page.md".into(),
            text: text.to_owned(),
        };
        of_page(&page).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sentence_may_have_25_words_and_code_is_one() {
        let words = "word ".repeat(24);
        assert_eq!(found(&format!("{words}`a b c`.")), Vec::<String>::new());
        assert_eq!(found(&format!("{words}\nmore words.")).len(), 1);
        // Two sentences, an item and a cell begin again.
        assert_eq!(found(&format!("{words}end. {words}")), Vec::<String>::new());
        assert_eq!(found(&format!("{words}\n- {words}")), Vec::<String>::new());
        assert_eq!(
            found(&format!("| {words} | {words} |")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_banned_word_is_found_as_a_word_and_outside_of_code() {
        assert_eq!(found("The relay tells the node.").len(), 1);
        assert_eq!(found("In vain, a dial.").len(), 1);
        assert_eq!(
            found("`tell` and intellect\n```\ntell\n```"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn of_code_the_documentation_of_public_items_is_read() {
        let code = "//! It tells.\n/// It tells.\npub fn a() {}\n/// It tells.\nfn b() {}\n";
        let text = documentation(code);
        assert_eq!(found(&text).len(), 2, "{text}");
    }
}
