//! The manual: a page for each command, made from the command line, with the files and variables that all commands share.

use std::{collections::BTreeMap, fs, io, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use crate::config::Program;

/// The pages by file name, the program's own first.
pub(crate) fn pages(command: Command, program: &Program) -> io::Result<BTreeMap<String, String>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let version = command.get_version().unwrap_or_default();
    let source = format!("{} {version}", command.get_name());
    let mut pages = BTreeMap::new();
    add(&command, command.get_name(), &source, program, &mut pages)?;
    Ok(pages)
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

fn add(
    command: &Command,
    name: &str,
    source: &str,
    program: &Program,
    pages: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name)
        .source(source)
        .render(&mut page)?;
    shared(program).to_writer(&mut page)?;
    pages.insert(
        format!("{name}.1"),
        String::from_utf8_lossy(&page).into_owned(),
    );
    for subcommand in command.get_subcommands() {
        let name = format!("{name}-{}", subcommand.get_name());
        add(subcommand, &name, source, program, pages)?;
    }
    Ok(())
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
