#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use clap::Parser;
use p2pnode_daemon::{
    config::{Document, Flags, Sources, load},
    explain,
};

use super::pages::{self, Page};
use crate::cargo;

const OTHER: &str = "12D3KooWGrWn9wdGcHi6Ut1ZQTvw9YwMRGZNhpLBgyCxHbNrpjKi";
const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

/// Parses as the command line that `execute` takes.
fn parse<C: Parser, R>(_execute: impl FnOnce(C) -> R, words: &[String]) -> Result<(), String> {
    C::try_parse_from(words)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Whether clap takes the words. Help is taken, a command that is named without its arguments, and a synopsis in capitals.
fn check(words: &[String]) -> Result<(), String> {
    let parsed = match words[0].as_str() {
        "p2pnode" => parse(p2pnode::execute, words),
        "relay-node" => parse(relay_node::command::execute, words),
        _ => parse::<crate::Cli, _>(|cli| cli, &words[1..]),
    };
    let is_name = words.iter().all(|word| !word.starts_with('-'));
    parsed.or_else(|error| {
        let is_synopsis = error.contains("unrecognized subcommand 'NAME'");
        let is_named = is_name && error.contains("required arguments were not provided");
        match error.starts_with("error:") && !is_synopsis && !is_named {
            true => Err(error),
            false => Ok(()),
        }
    })
}

/// The words of a command as a shell has them, up to a comment, a pipe or a redirection.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote, mut word) = (Vec::new(), None, None::<String>);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (_, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

const PROGRAMS: [&str; 3] = ["p2pnode ", "relay-node ", "cargo xtask "];

/// The commands of the programs in a line: at its begin, after a prompt, or as an argument of another program.
fn commands_of(line: &str) -> Vec<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ").replace("\\|", "/");
    let starts = ["", "-- ", "ProxyCommand='", "ProxyCommand "];
    let found = starts.iter().filter_map(|start| match start.is_empty() {
        true => Some(line.as_str()),
        false => line
            .split_once(start)
            .map(|(_, rest)| rest.trim_end_matches('\''))
            .map(|rest| rest.split('\'').next().unwrap_or(rest)),
    });
    let found = found.filter(|rest| PROGRAMS.iter().any(|program| rest.starts_with(program)));
    found.map(words).filter(|words| words.len() > 1).collect()
}

fn code_spans(page: &Page) -> impl Iterator<Item = (usize, &str)> {
    page.outside().into_iter().flat_map(|(number, line)| {
        let spans = line.split('`').skip(1).step_by(2);
        spans.map(move |span| (number, span))
    })
}

#[test]
fn every_command_line_in_the_pages_is_one_that_the_programs_take() {
    let (mut count, mut wrong) = (0, Vec::new());
    for page in pages::all().unwrap() {
        // They record what was, with the commands of their time.
        let records = ["CHANGELOG.md", "docs/benchmarks", "docs/decisions"];
        if records.iter().any(|record| page.path.starts_with(record)) {
            continue;
        }
        let mut lines: Vec<(usize, &str)> = code_spans(&page).collect();
        for block in page
            .blocks()
            .iter()
            .filter(|block| ["", "sh", "console"].contains(&block.language))
        {
            lines.extend(
                block
                    .lines
                    .iter()
                    .enumerate()
                    .map(|(index, line)| (block.line + index, *line)),
            );
        }
        for (number, line) in lines {
            for words in commands_of(line) {
                // A form that leaves words out.
                let words: Vec<_> = words
                    .into_iter()
                    .filter(|word| word != "..." && !word.starts_with('['))
                    .collect();
                count += 1;
                if let Err(error) = check(&words) {
                    wrong.push(format!(
                        "{}:{number}: {line}\n  {}",
                        page.path.display(),
                        error.lines().next().unwrap_or_default()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} commands were found");
}

/// What the first line of a block of YAML says that it is.
fn kind(lines: &[&str]) -> &'static str {
    let first = lines.first().copied().unwrap_or_default();
    let of = |name: &str| first.starts_with(&format!("# {name}"));
    match (of("p2pnode.yaml"), of("relay-node.yaml"), of("values")) {
        (true, _, _) => "p2pnode",
        (_, true, _) => "relay-node",
        (_, _, true) => "values",
        _ => "",
    }
}

#[test]
fn every_yaml_in_the_pages_is_a_configuration() {
    let (mut count, mut wrong) = (0, Vec::new());
    for page in pages::all().unwrap() {
        for block in page
            .blocks()
            .iter()
            .filter(|block| block.language == "yaml")
        {
            count += 1;
            let yaml = with_ids(&block.lines.join("\n"));
            let faults = match kind(&block.lines) {
                "p2pnode" => p2pnode::Config::from_yaml(&named(&yaml)).map(drop),
                "relay-node" => of_relay(&yaml),
                // The tests of k8s/ hold values to the charts.
                "values" => Ok(()),
                _ => {
                    wrong.push(format!(
                        "{}:{}: the first line is no comment with the file's name",
                        page.path.display(),
                        block.line
                    ));
                    continue;
                }
            };
            if let Err(faults) = faults {
                wrong.push(format!("{}:{}: {faults}", page.path.display(), block.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 5, "only {count} blocks were found");
}

/// With two peer ids in turn where a page leaves them out.
fn with_ids(yaml: &str) -> String {
    let parts: Vec<_> = yaml.split("12D3KooW...").collect();
    let mut text = String::new();
    for (place, part) in parts.iter().enumerate() {
        text += part;
        if place + 1 < parts.len() {
            text += [PEER, OTHER][place % 2];
        }
    }
    text
}

/// With the peers that a part of a configuration names and another part has.
fn named(yaml: &str) -> String {
    if yaml.contains("\npeers:") {
        return yaml.to_owned();
    }
    let names = ["east", "west", "west-0", "west-1"];
    let peers = names.map(|name| format!("  {name}: {{ id: {PEER} }}\n"));
    format!("{yaml}\npeers:\n{}", peers.concat())
}

fn of_relay(yaml: &str) -> Result<(), p2pnode_daemon::config::Faults> {
    let sources = Sources {
        file: Some(Document::parse(
            Path::new("relay-node.yaml"),
            yaml.to_owned(),
        )?),
        env: BTreeMap::from([("HOME".to_owned(), "/".to_owned())]),
        flags: Flags::default(),
    };
    load(
        &relay_node::config::PROGRAM,
        &sources,
        relay_node::Config::read,
    )
    .map(drop)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let all = pages::all().unwrap();
    let anchors: BTreeMap<_, _> = all
        .iter()
        .map(|page| (page.path.clone(), page.anchors()))
        .collect();
    let mut wrong = Vec::new();
    for page in &all {
        for (number, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file.is_empty() {
                true => page.path.clone(),
                false => pages::resolved(page.path.parent().unwrap(), file),
            };
            let is_there = cargo::workspace().join(&path).exists();
            let has = |anchors: &Vec<String>| anchors.iter().any(|known| known == anchor);
            if !is_there || !anchor.is_empty() && !anchors.get(&path).is_some_and(has) {
                wrong.push(format!("{}:{number}: {target}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_of_docs_is_in_the_summary_once() {
    let all = pages::all().unwrap();
    let summary = all
        .iter()
        .find(|page| page.path == Path::new("docs/SUMMARY.md"))
        .unwrap();
    let listed: Vec<_> = summary
        .links()
        .into_iter()
        .map(|(_, target)| Path::new("docs").join(target))
        .collect();
    let once: BTreeSet<_> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    for page in &all {
        // The site lists the decisions by itself.
        let is_decision = page.path.starts_with("docs/decisions");
        let is_page = page.path.starts_with("docs") && page.path != summary.path && !is_decision;
        assert!(
            !is_page || once.contains(&page.path),
            "{} is not in docs/SUMMARY.md",
            page.path.display()
        );
    }
}

#[test]
fn the_readme_has_at_most_1000_words() {
    let all = pages::all().unwrap();
    let readme = all
        .iter()
        .find(|page| page.path == Path::new("README.md"))
        .unwrap();
    let words = readme.text.split_whitespace().count();
    assert!(words <= 1000, "{words} words");
}

#[test]
fn prose_holds_to_the_rules() {
    super::check().unwrap();
}

#[test]
fn the_page_that_explain_reads_is_in_the_pages() {
    let all = pages::all().unwrap();
    let page = all
        .iter()
        .find(|page| page.path == Path::new("docs/troubleshooting.md"))
        .unwrap();
    let anchors = page.anchors();
    for (name, _) in explain::entries() {
        assert!(anchors.iter().any(|anchor| anchor == name), "{name}");
    }
}
