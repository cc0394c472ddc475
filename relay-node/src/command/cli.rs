//! The command line: arguments as they were given. Does no IO and judges no value that a configuration key judges.

use clap::{Args, Parser, Subcommand};
use p2pnode_daemon::{
    command::{Common, Global},
    config::Flags,
    control::Form,
    init::OutputArgs,
};

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 bad usage or configuration. `relay-node explain NAME` prints cause and \
    remedy of a reason.";

/// A circuit relay v2 for p2pnode peers
#[derive(Debug, Clone, Parser)]
#[command(name = "relay-node", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Write a first configuration, and look whether its port is free; asks on a terminal for what no flag gives
    Init(InitArgs),
    /// Run the relay until SIGTERM or SIGINT
    Run(RunArgs),
    /// Print what the running relay holds, carries and denies
    Status(StatusArgs),
    /// Make and explain join tokens, with which peers are admitted where `access.tokens` is on
    #[command(subcommand)]
    Token(TokenCommand),
    /// Commands that need nothing but the configuration.
    #[command(flatten)]
    Common(Common),
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Public IP address or name of this relay, or a multiaddr; repeatable
    #[arg(long, value_name = "HOST")]
    pub external: Vec<String>,
    /// Port to listen on, for QUIC and TCP
    #[arg(long, value_name = "PORT", default_value_t = 4001, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Another relay, with its peer id; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub relay: Vec<String>,
    /// Admit only peers with a join token
    #[arg(long)]
    pub tokens: bool,
    /// Key file, made if there is none
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// Where the configuration goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Address to listen on, as in /ip4/0.0.0.0/udp/443/quic-v1; repeatable
    /// [default: UDP and TCP port 4001 of 0.0.0.0 and ::]
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Address at which peers reach the relay, if its interfaces do not have it; repeatable
    #[arg(long, value_name = "MULTIADDR")]
    pub external: Vec<String>,
    /// Key file, made if there is none
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What to do with tokens. Neither needs the relay to run.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Print a token with which a peer may use this relay; makes the key if there is none
    Create(CreateArgs),
    /// Print what a token says, and whether this relay would take it
    Show(ShowArgs),
}

/// Arguments of `token create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The peer's id, as `p2pnode id` prints it
    #[arg(long, value_name = "ID")]
    pub peer: String,
    /// How long it is good, as in 12h or 30d
    #[arg(long, value_name = "DURATION")]
    pub expires: String,
    /// Key file of the relay
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `token show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The token
    pub token: String,
    /// Key file of the relay
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Show again every second until interrupted: as a screen on a terminal, where q ends it; as lines elsewhere
    #[arg(long)]
    pub watch: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl StatusArgs {
    /// How the status is shown.
    pub(crate) fn form(&self) -> Form {
        Form {
            watch: self.watch,
            json: self.json,
        }
    }
}

impl RunArgs {
    /// Adds the flags that were given to `flags`.
    #[must_use]
    pub fn flags(&self, flags: Flags) -> Flags {
        flags
            .many("listen", "--listen", &self.listen)
            .many("external", "--external", &self.external)
            .one("identity.key_file", "--key", self.key.as_ref())
    }
}
