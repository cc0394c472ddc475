//! The references that are made from the code: command lines from clap, configuration from the schema.

use std::{fmt::Write as _, fs};

use clap::{Arg, Command, CommandFactory, builder::StyledStr};
use p2pnode_daemon::{config, reference};
use p2pnode_tests::{
    matrix::Expected::{Direct, Relayed},
    nat::NatKind,
    nat_pairs,
};
use serde_json::Value;

use crate::cargo;

const MADE: &str =
    "<!-- Made by `cargo xtask docs --write`; a test compares it with the code. -->\n\n";

/// The command line that `execute` takes.
fn command<C: CommandFactory, R>(_execute: impl FnOnce(C) -> R) -> Command {
    let mut command = C::command().disable_help_subcommand(true);
    command.build();
    command
}

fn assert_current(page: &str, current: &str) {
    let stale = reference::stale(page, current);
    assert!(matches!(stale, Ok(None)), "{stale:?}");
}

#[test]
fn the_reference_of_command_lines_is_current() {
    let node = include_str!("../../../node/src/command/examples.txt");
    let relay = include_str!("../../../relay-node/src/command/examples.txt");
    for (command, examples) in [
        (command(p2pnode::execute), node),
        (command(relay_node::command::execute), relay),
    ] {
        let page = format!("docs/reference/cli-{}.md", command.get_name());
        assert_current(&page, &command_line(&command, examples));
    }
}

#[test]
fn the_reference_of_configurations_is_current() {
    let relay = config::schema(&relay_node::config::PROGRAM, relay_node::Config::read).to_value();
    for (name, env, schema) in [
        ("p2pnode", "P2PNODE", p2pnode::Config::schema()),
        ("relay-node", "RELAY_NODE", relay),
    ] {
        let page = format!("docs/reference/configuration-{name}.md");
        let written = fs::read_to_string(cargo::workspace().join(&page)).unwrap_or_default();
        assert_current(
            &page,
            &with_since(&configuration(name, env, &schema), &written),
        );
    }
}

#[test]
fn the_reference_of_the_nat_matrix_is_current() {
    let page = "docs/reference/nat-matrix.md";
    let written = fs::read_to_string(cargo::workspace().join(page)).unwrap_or_default();
    let (begin, rest) = written
        .split_once("compares it with them. -->\n\n")
        .unwrap_or_default();
    let (_, end) = rest.split_once("\n\n<!-- End of what").unwrap_or_default();
    let table = nat_matrix();
    let current = format!(
        "{begin}compares it with them. -->\n\n{}\n\n<!-- End of what{end}",
        table.trim_end()
    );
    assert_current(page, &current);
}

/// What the tests of the lab expect of each pair of NATs.
fn nat_matrix() -> String {
    macro_rules! tested {
        ($($name:ident: $a:ident, $b:ident => $expected:expr;)*) => {
            [$((NatKind::$a, NatKind::$b, $expected)),*]
        };
    }
    let tested = nat_pairs!(tested);
    let kinds = [
        NatKind::FullCone,
        NatKind::AddressRestricted,
        NatKind::EimApdf,
        NatKind::EimApdfRewrite,
        NatKind::Firewall,
        NatKind::RangeFirewall,
        NatKind::Cgnat,
        NatKind::Ip6Firewall,
        NatKind::DualStack,
        NatKind::Symmetric,
    ];
    let names = kinds.map(|kind| kind.name());
    let mut page = format!(
        "| | {} |\n|{}\n",
        names.join(" | "),
        "---|".repeat(kinds.len() + 1)
    );
    let place = |kind: NatKind| kinds.iter().position(|known| *known == kind);
    let mut count = 0;
    for (row, kind) in kinds.into_iter().enumerate() {
        let mut cells = String::new();
        for column in 0..kinds.len() {
            let found = tested.iter().find(|(a, b, _)| {
                let (dialer, dialed) = (place(*a), place(*b));
                let both_ways = [*a, *b].contains(&NatKind::Symmetric);
                let swapped = !both_ways && dialer > dialed;
                let (at, to) = if swapped {
                    (dialed, dialer)
                } else {
                    (dialer, dialed)
                };
                (at, to) == (Some(row), Some(column))
            });
            count += usize::from(found.is_some());
            let shown = found.map(|(_, _, expected)| match expected {
                Direct => "direct",
                Relayed(_) => "relayed",
            });
            let _ = write!(cells, " {} |", shown.unwrap_or_default());
        }
        let _ = writeln!(page, "| {} |{}", kind.name(), cells);
    }
    assert_eq!(count, tested.len(), "a tested pair has no cell");
    page
}

/// With `examples`, the command lines that the manual has.
fn command_line(program: &Command, examples: &str) -> String {
    let name = program.get_name();
    let mut page = format!("# Command line of `{name}`\n\n{MADE}");
    let _ = writeln!(page, "{}.\n", cell(program.get_about()));
    let _ = writeln!(
        page,
        "Flags beat the environment, the environment beats the file, the file beats the defaults."
    );
    let _ = writeln!(
        page,
        "[Exit codes](events.md#exit-codes) are the same for all commands.\n"
    );
    page += "| Command | What it does |\n|---|---|\n";
    leaves(program, name, &mut |path, command| {
        let anchor = path.replace(' ', "-");
        let _ = writeln!(
            page,
            "| [`{path}`](#{anchor}) | {} |",
            cell(command.get_about())
        );
    });
    page += "\n## Options of every command\n\n";
    table(program, |arg| arg.is_global_set(), &mut page);
    leaves(program, name, &mut |path, command| {
        let _ = writeln!(page, "\n## `{path}`\n\n{}.\n", cell(command.get_about()));
        let usage = command.clone().render_usage().to_string();
        let _ = writeln!(page, "```text\n{}\n```", usage.trim());
        let mut rows = String::new();
        table(command, |arg| !arg.is_global_set(), &mut rows);
        if !rows.is_empty() {
            let _ = write!(page, "\n{rows}");
        }
        let words = path.split_once(' ').map_or("", |(_, words)| words);
        let lines = examples.lines();
        let lines = lines
            .skip_while(|line| line.strip_prefix("# ") != Some(words))
            .skip(1);
        let lines: Vec<_> = lines.take_while(|line| !line.starts_with('#')).collect();
        assert!(!lines.is_empty(), "examples.txt has none of `{path}`");
        let _ = writeln!(page, "\n```sh\n{}\n```", lines.join("\n"));
    });
    page
}

/// Calls `show` for each command that has none below it.
fn leaves(command: &Command, path: &str, show: &mut dyn FnMut(&str, &Command)) {
    for below in command.get_subcommands() {
        let path = format!("{path} {}", below.get_name());
        if below.has_subcommands() {
            leaves(below, &path, show);
        } else {
            show(&path, below);
        }
    }
}

fn table(command: &Command, is_shown: impl Fn(&Arg) -> bool, page: &mut String) {
    let arguments = command.get_arguments();
    let shown = |arg: &&Arg| {
        let is_own = !["help", "version"].contains(&arg.get_id().as_str());
        is_own && !arg.is_hide_set() && is_shown(arg)
    };
    let mut rows = String::new();
    for arg in arguments.filter(shown) {
        let mut meaning = cell(arg.get_help());
        let values: Vec<_> = match arg.get_action().takes_values() {
            true => arg
                .get_possible_values()
                .iter()
                .map(|value| format!("`{}`", value.get_name()))
                .collect(),
            false => Vec::new(),
        };
        if !values.is_empty() {
            let _ = write!(meaning, ". Values: {}", values.join(", "));
        }
        let defaults = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy());
        let defaults: Vec<_> = match arg.get_action().takes_values() {
            true => defaults.collect(),
            false => Vec::new(),
        };
        if !defaults.is_empty() {
            let _ = write!(meaning, ". Default: `{}`", defaults.join(","));
        }
        let name = arg.to_string().replace('|', "\\|");
        let _ = writeln!(rows, "| `{name}` | {meaning} |");
    }
    if !rows.is_empty() {
        let _ = write!(page, "| Argument | Meaning |\n|---|---|\n{rows}");
    }
}

/// A text in a cell of a table. What stands for a value is no HTML.
fn cell(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let words: Vec<_> = text.split_whitespace().collect();
    escaped(words.join(" ").trim_end_matches('.'))
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('*', "\\*")
}

fn configuration(name: &str, env: &str, schema: &Value) -> String {
    let mut page = format!("# Configuration of `{name}`\n\n{MADE}");
    page += "One YAML file per program, each key optional unless it says otherwise. `--config FILE` names it; none is read without that.\n";
    page += "Unknown keys, wrong types and impossible values are errors with file, line and key, all of them at once.\n";
    page += "The program binds nothing before the whole configuration is valid. An empty value counts as not set.\n\n";
    let _ = writeln!(
        page,
        "`{name} config show` prints what is in force and where each value came from."
    );
    let _ = writeln!(
        page,
        "`{name} config check` reports every fault, and `{name} config schema` prints the JSON Schema."
    );
    page += "In variables of the environment, commas separate the items of a list.\n";
    keys(schema, "", env, &mut page);
    page
}

/// With the release that brought each key: the one that the page has already, or the present one for a new key.
fn with_since(page: &str, written: &str) -> String {
    let mut sections = page.split("\n## ");
    let mut text = sections.next().unwrap_or_default().to_owned();
    for section in sections {
        let head = section.lines().next().unwrap_or_default();
        let known = written
            .split("\n## ")
            .find(|known| known.lines().next() == Some(head));
        let since = known.and_then(|known| {
            known
                .lines()
                .find_map(|line| line.strip_prefix("- Since: "))
        });
        let since = since.unwrap_or(env!("CARGO_PKG_VERSION"));
        let is_key = section.contains("\n- Value: ");
        let since = if is_key {
            format!("- Since: {since}\n")
        } else {
            String::new()
        };
        let _ = write!(text, "\n## {}\n{since}", section.trim_end());
    }
    text
}

/// Adds each key below `schema`. `*` stands for a name, `[]` for an item.
fn keys(schema: &Value, path: &str, env: &str, page: &mut String) {
    let required = |name: &str| {
        let mut named = schema["required"].as_array().into_iter().flatten();
        named.any(|required| required == name)
    };
    for (name, key) in schema["properties"].as_object().into_iter().flatten() {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        if let Some(expects) = expects(key) {
            leaf(&path, key, &expects, required(name), env, page);
            continue;
        }
        if let Some(doc) = key["description"].as_str() {
            let _ = writeln!(page, "\n## `{path}`\n\n{}", escaped(doc));
        }
        keys(key, &path, env, page);
        keys(
            &key["additionalProperties"],
            &format!("{path}.*"),
            env,
            page,
        );
        keys(&key["items"], &format!("{path}[]"), env, page);
    }
}

/// What a value has to be; nothing for a section.
fn expects(key: &Value) -> Option<String> {
    let list = |key: &Value| Some(format!("list, each {}", key["items"]["title"].as_str()?));
    let alternatives = key["anyOf"].as_array();
    if let Some(alternatives) = alternatives {
        let list = list(alternatives.first()?)?;
        return Some(format!("{list}; one item may stand alone"));
    }
    let single = key["title"].as_str().map(str::to_owned);
    single.or_else(|| list(key))
}

fn leaf(path: &str, key: &Value, expects: &str, required: bool, env: &str, page: &mut String) {
    let doc = key["description"].as_str().unwrap_or_default();
    let _ = writeln!(page, "\n## `{path}`\n\n{}\n", escaped(doc));
    let _ = writeln!(page, "- Value: {}", escaped(expects));
    // A default that depends on the host is in the text.
    let depends = doc.contains("Default:");
    let default = &key["default"];
    if required {
        page.push_str("- Required\n");
    } else if default.is_null() && !depends {
        page.push_str("- Default: none\n");
    } else if !depends {
        let _ = writeln!(page, "- Default: `{default}`");
    }
    if !path.contains(['*', '[']) {
        let variable = path.replace('.', "_").to_uppercase();
        let _ = writeln!(page, "- Variable: `{env}_{variable}`");
    }
}
