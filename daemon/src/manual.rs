//! The manual: a page for each command, made from the command line, with the files and variables that all commands share.

use std::{collections::BTreeMap, fs, io, path::Path};

use clap::Command;
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
        Man::new(command.clone())
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
