//! The manual: a page for each command, made from the command line, with the files and variables that all commands share.

use std::{collections::BTreeMap, fs, io, path::Path};

use clap::{ArgAction, Command};
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use crate::config::Program;

/// The pages by file name, the program's own first.
pub(crate) fn pages(
    command: Command,
    program: &Program,
    examples: &str,
) -> io::Result<BTreeMap<String, String>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let version = command.get_version().unwrap_or_default();
    let mut manual = Manual {
        source: format!("{} {version}", command.get_name()),
        program,
        examples,
        pages: BTreeMap::new(),
    };
    manual.add(&command, command.get_name())?;
    Ok(manual.pages)
}

/// Writes each page into `directory`, which exists.
pub(crate) fn write(pages: &BTreeMap<String, String>, directory: &Path) -> anyhow::Result<()> {
    for (name, page) in pages {
        let file = directory.join(name);
        fs::write(&file, page)
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}

/// The pages, and what all of them need.
struct Manual<'a> {
    source: String,
    program: &'a Program,
    examples: &'a str,
    pages: BTreeMap<String, String>,
}

impl Manual<'_> {
    /// Adds the page of a command and those of the commands below it.
    fn add(&mut self, command: &Command, name: &str) -> io::Result<()> {
        let mut page = Vec::new();
        let described = command.clone().override_usage(synopsis(command));
        Man::new(described)
            .title(name)
            .source(&self.source)
            .render(&mut page)?;
        let words = name.strip_prefix(self.program.name).unwrap_or_default();
        let words = match words.trim_start_matches('-') {
            // The page of the program itself.
            "" => "run".to_owned(),
            words => words.replace('-', " "),
        };
        let lines: Vec<_> = examples(self.examples, &words).collect();
        if !lines.is_empty() {
            let mut roff = Roff::new();
            roff.control("SH", ["EXAMPLES"]);
            for line in lines {
                roff.control("PP", []).text([bold(line)]);
            }
            roff.to_writer(&mut page)?;
        }
        shared(self.program).to_writer(&mut page)?;
        let text = String::from_utf8_lossy(&page).into_owned();
        self.pages.insert(format!("{name}.1"), text);
        for subcommand in command.get_subcommands() {
            self.add(subcommand, &format!("{name}-{}", subcommand.get_name()))?;
        }
        Ok(())
    }
}

/// The command, its options with their values, and its arguments. What may be left out is in brackets.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut words = vec![name.to_owned()];
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    for arg in options.chain(command.get_positionals()) {
        let is_of_clap = ["help", "version"].contains(&arg.get_id().as_str());
        if arg.is_hide_set() || is_of_clap {
            continue;
        }
        let flag = arg.get_long().map(|long| format!("--{long}"));
        let flag = flag.or_else(|| arg.get_short().map(|short| format!("-{short}")));
        let mut parts: Vec<String> = flag.into_iter().collect();
        if arg.get_action().takes_values() {
            let id = arg.get_id().as_str().to_uppercase();
            parts.push(arg.get_value_names().map_or(id, |names| names.join(" ")));
        }
        let text = parts.join(" ");
        let is_repeated = matches!(arg.get_action(), ArgAction::Append);
        let repeated = if is_repeated { "..." } else { "" };
        words.push(match arg.is_required_set() {
            true => text + repeated,
            false => format!("[{text}]{repeated}"),
        });
    }
    if command.has_subcommands() {
        let is_required = command.is_subcommand_required_set();
        words.push(if is_required { "COMMAND" } else { "[COMMAND]" }.to_owned());
    }
    words.join(" ")
}

/// The command lines below the head of this command.
fn examples<'a>(text: &'a str, command: &'a str) -> impl Iterator<Item = &'a str> {
    let is_other = move |line: &&str| line.strip_prefix("# ") != Some(command);
    let after = text.lines().skip_while(is_other).skip(1);
    after.take_while(|line| !line.starts_with('#'))
}

/// The sections that every page ends with.
fn shared(program: &Program) -> Roff {
    let (name, env) = (program.name, program.env);
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"])
        .control("TP", [])
        .text([bold(format!("{env}_CONFIG"))])
        .text([roman("The configuration file, if --config names none.")])
        .control("TP", [])
        .text([bold(format!("{env}_")), italic("KEY")])
        .text([
            roman("The value of a key of the configuration: "),
            bold(format!("{env}_LOG_LEVEL")),
            roman(" is the variable of log.level. Commas separate the items of a list."),
        ])
        .control("SH", ["FILES"])
        .control("TP", [])
        .text([italic(format!("/var/lib/{name}/identity.key"))])
        .text([roman(
            "The key of a program that root or a service manager has started.",
        )])
        .control("TP", [])
        .text([italic(format!("/run/{name}/control.sock"))])
        .text([roman("Its control socket.")])
        .control("TP", [])
        .text([italic(format!("~/.local/state/{name}/identity.key"))])
        .text([roman("The key of a program that a user has started.")]);
    roff
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_synopsis_has_the_values_of_options_and_brackets_around_what_may_be_left_out() {
        let mut command = Command::new("dial")
            .arg(Arg::new("format").long("format").required(true))
            .arg(
                Arg::new("relay")
                    .long("relay")
                    .value_name("ADDR")
                    .action(ArgAction::Append),
            )
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
            .arg(Arg::new("secret").long("secret").hide(true))
            .arg(Arg::new("PEER").required(true));
        command.build();
        let expected = "dial --format FORMAT [--relay ADDR]... [--json] PEER";
        assert_eq!(synopsis(&command), expected);
    }
}
