//! The commands that both programs have, and the way from `main` to an exit code.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};

use p2pnode_protocol::escape;

use crate::{
    config::{self, Document, Faults, Flags, Loaded, Program, Reader, Sources},
    exit::Exit,
    explain::ExplainArgs,
    healthcheck::{HealthArgs, Serves},
    hints::hint,
    id::IdArgs,
    identity, manual, paths, remedy, signals, stdout,
};

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Configuration file (YAML); no file is read without it
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log: a level, or a filter such as info,quinn=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Commands that need nothing but the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum Common {
    /// Print this host's peer id; creates the key if there is none
    Id(IdArgs),
    /// Ask the process that runs with this configuration whether it is ready; exit code 0 if so
    Healthcheck(HealthArgs),
    /// Check or show the configuration, or print its JSON Schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print cause and remedy of a reason, a finding or another name that the programs print
    Explain(ExplainArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual
    Man {
        /// Write a page for each command into this directory instead, such as PROGRAM-config-check.1
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<PathBuf>,
    },
}

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Report every fault of the configuration
    Check,
    /// Print the values in force, and where each came from
    Show {
        /// One JSON object per key
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the file
    Schema,
}

impl Global {
    /// The flags that set keys.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags::default()
            .one("log.level", "--log", self.log.as_ref())
            .one("log.format", "--log-format", self.log_format.as_ref())
    }

    /// Reads the environment and the file. `--config` names the file, else the variable `PREFIX_CONFIG`; without either there is
    /// none.
    ///
    /// # Errors
    /// If the file cannot be read or is not YAML, or a variable of the program is not UTF-8.
    pub fn sources(&self, program: &Program, flags: Flags) -> Result<Sources, Faults> {
        let env = environment(program)?;
        let path = self.named(program, &env);
        let file = path.as_deref().map(Document::read).transpose()?;
        Ok(Sources { file, env, flags })
    }

    /// The path of the file that [`Global::sources`] reads, if any.
    ///
    /// # Errors
    /// If a variable of the program is not UTF-8.
    pub fn file(&self, program: &Program) -> Result<Option<PathBuf>, Faults> {
        Ok(self.named(program, &environment(program)?))
    }

    fn named(&self, program: &Program, env: &BTreeMap<String, String>) -> Option<PathBuf> {
        let named = env
            .get(&format!("{}_CONFIG", program.env))
            .filter(|path| !path.is_empty());
        self.config.clone().or_else(|| named.map(PathBuf::from))
    }
}

/// What the commands need to know about a program.
#[derive(Debug)]
pub struct Binary<C> {
    /// The names of the program.
    pub program: Program,
    /// Reads the configuration.
    pub read: fn(&mut Reader<'_>) -> C,
    /// The key file.
    pub key_file: fn(&C) -> Option<PathBuf>,
    /// Where the process that runs with the configuration answers.
    pub serves: fn(&C) -> Serves,
    /// Checks the files that a valid configuration names, for `config check`. Returns warnings of one line each.
    pub check: fn(&C) -> anyhow::Result<Vec<String>>,
    /// Command lines for the manual. `# COMMAND` heads those of a command.
    pub examples: &'static str,
}

impl Common {
    /// Runs the command of the program whose command line is `P`.
    ///
    /// # Errors
    /// Faults of the configuration, errors of the key file, or if stdout cannot be written.
    pub fn execute<P: CommandFactory, C>(
        &self,
        global: &Global,
        binary: &Binary<C>,
    ) -> anyhow::Result<Exit> {
        let load = |flags: Flags| -> Result<Loaded<C>, Faults> {
            config::load(
                &binary.program,
                &global.sources(&binary.program, flags)?,
                binary.read,
            )
        };
        match self {
            Self::Id(args) => {
                let flags = global
                    .flags()
                    .one("identity.key_file", "--key", args.key.as_ref());
                print(&args.answer(|| {
                    let config = load(flags)?.config;
                    let path = (binary.key_file)(&config)
                        .ok_or_else(|| anyhow::anyhow!("no key file is configured; give --key"))?;
                    let named = identity::Named::by(args.key.as_ref());
                    Ok(identity::load_or_create(&path, named)?)
                })?)?;
            }
            Self::Healthcheck(args) => {
                let serves = (binary.serves)(&load(global.flags())?.config);
                let answer = block_on(args.ask(&serves))?;
                print(&format!("{answer}\n"))?;
            }
            Self::Config(ConfigCommand::Check) => {
                let loaded = load(global.flags())?;
                for warning in (binary.check)(&loaded.config)? {
                    // If stderr is closed, there is nowhere to report it.
                    let _ = writeln!(io::stderr(), "warning: {warning}");
                }
                if global.file(&binary.program)?.is_none() && loaded.is_default() {
                    let _ = writeln!(
                        io::stderr(),
                        "note: no file was read and nothing is set, so these are the defaults; --config FILE or {}_CONFIG names a file",
                        binary.program.env
                    );
                }
                print("configuration is valid\n")?;
            }
            Self::Config(ConfigCommand::Show { json: false }) => {
                print(&load(global.flags())?.to_yaml())?;
            }
            Self::Config(ConfigCommand::Show { json: true }) => {
                let mut lines = String::new();
                for shown in load(global.flags())?.shown() {
                    lines += &p2pnode_protocol::to_json(&shown)?;
                    lines.push('\n');
                }
                print(&lines)?;
            }
            Self::Config(ConfigCommand::Schema) => {
                let schema = config::schema(&binary.program, binary.read);
                print(&format!("{}\n", serde_json::to_string_pretty(&schema)?))?;
            }
            Self::Explain(args) => print(&args.answer()?)?,
            Self::Version => {
                let command = P::command();
                let version = command.get_version().unwrap_or_default();
                print(&format!("{} {version}\n", command.get_name()))?;
            }
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(
                    *shell,
                    &mut P::command(),
                    binary.program.name,
                    &mut script,
                );
                print(&String::from_utf8_lossy(&script))?;
            }
            Self::Man { dir } => {
                let pages = manual::pages(P::command(), &binary.program, binary.examples)?;
                match dir {
                    Some(dir) => manual::write(&pages, dir)?,
                    None => print(&pages.into_values().collect::<String>())?,
                }
            }
        }
        Ok(Exit::Success)
    }
}

/// Parses the command line and runs `execute`. Prints a failure to stderr, one line for each fault.
pub fn main<P: Parser>(execute: impl FnOnce(P) -> anyhow::Result<Exit>) -> ExitCode {
    let outcome = match parse(env::args_os()) {
        Ok(cli) => signals::end_at_first()
            .map_err(anyhow::Error::from)
            .and_then(|()| execute(cli)),
        Err(exit) => return exit,
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            for line in with_causes(&error).lines() {
                // If stderr is closed, there is nowhere to report it.
                let _ = writeln!(io::stderr(), "error: {}", escape(line));
            }
            Exit::of(&error).into()
        }
    }
}

/// Runs `future` on a new runtime.
///
/// # Errors
/// Those of `future`, or if the system cannot provide a runtime.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(future);
    // The system's resolver runs in a thread, and may take longer than the program should.
    runtime.shutdown_background();
    done
}

/// Parses arguments. Help and versions go to stdout, wrong usage goes to stderr as one line.
fn parse<P: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<P, ExitCode> {
    P::try_parse_from(args).map_err(|error| {
        if error.use_stderr()
            && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            let line = usage_line(&error.to_string(), hint(&error, &P::command()));
            let _ = writeln!(io::stderr(), "{line}");
        } else if error
            .print()
            .is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe)
        {
            return Exit::Failure.into();
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
    })
}

/// The parser's message up to its usage section, as one line that ends with the remedy: `hint`, if there is one.
fn usage_line(message: &str, hint: Option<String>) -> String {
    let mut text = String::new();
    for line in message.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        match line {
            "" => continue,
            tip if tip.starts_with("tip:") && hint.is_some() => continue,
            tip if tip.starts_with("tip:") => text += "; ",
            _ if text.is_empty() => {}
            _ => text.push(' '),
        }
        text += line;
    }
    match hint {
        Some(hint) => format!("{text}; {hint}"),
        None => text + "; see --help",
    }
}

/// The error and its causes, without those that the text contains already, and the remedy of one that any step may meet.
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    let remedy = error
        .chain()
        .filter_map(|cause| remedy::of_any(cause.downcast_ref()?))
        .find(|remedy| !text.contains(remedy));
    remedy.map_or(text.clone(), |remedy| format!("{text}; {remedy}"))
}

/// The variables of the program, and those that name directories.
fn environment(program: &Program) -> Result<BTreeMap<String, String>, Faults> {
    let prefix = format!("{}_", program.env);
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(&prefix) && !paths::VARIABLES.contains(&name) {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.insert(name.to_owned(), value),
            Err(value) => {
                return Err(Faults::from(config::Fault {
                    place: config::Place::Env(name.to_owned()),
                    key: None,
                    problem: format!("{value:?} is not UTF-8; give text"),
                }));
            }
        };
    }
    Ok(variables)
}

/// Writes to stdout. A reader that closes the pipe early, as in `p2pnode man | head`, is no failure.
///
/// # Errors
/// If stdout cannot be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout::check().and_then(|()| stdout.write_all(text.as_bytes()));
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}
