//! Each command: its configuration, its identity, its logging, and then its core.

pub mod cli;
mod init;
pub(crate) mod rlimit;
pub(crate) mod token;

use std::{
    net::{Ipv6Addr, UdpSocket},
    sync::Arc,
};

use anyhow::Context as _;
use libp2p::multiaddr::Protocol;
use p2pnode_daemon::{
    command::{self, Binary},
    config::{self, Reader},
    exit::Exit,
    healthcheck::Serves,
    heap, identity,
    key_lock::KeyLock,
    logging,
    signals::Shutdown,
};

use crate::{
    command::cli::{Cli, Command, TokenCommand},
    config::{Config, PROGRAM, reload::Reloads},
    observe::{control, output::Format},
    swarm::run_reloading,
};

const BINARY: Binary<Config> = Binary {
    program: PROGRAM,
    read: |reader| Config::read(reader),
    key_file: |config| Some(config.key_file.clone()),
    serves: |config| Serves {
        admin: config.admin,
        control: config.control.clone(),
    },
    // The file of revoked tokens is read with the rest.
    check: |config| Ok(config.warnings()),
    examples: include_str!("examples.txt"),
};

/// Runs the command.
///
/// # Errors
/// What stopped it, in lines that name the thing, the value, the reason and the remedy; [`Exit::of`] has its exit code.
pub fn execute(cli: Cli) -> anyhow::Result<Exit> {
    heap::keep();
    match &cli.command {
        Command::Common(common) => common.execute::<Cli, _>(&cli.global, &BINARY),
        Command::Init(args) => init::execute(&cli.global, args),
        Command::Status(args) => {
            let sources = cli.global.sources(&PROGRAM, cli.global.flags())?;
            let config = config::load(&PROGRAM, &sources, BINARY.read)?.config;
            let socket = config.control.as_deref();
            command::block_on(control::ask(socket, args.form()))
        }
        Command::Run(args) => {
            let sources = cli
                .global
                .sources(&PROGRAM, args.flags(cli.global.flags()))?;
            let loaded = config::load(&PROGRAM, &sources, BINARY.read)?;
            let mut config = loaded.config.clone();
            logging::init(&config.log.level, config.log.format)?;
            let named = identity::Named::by(args.key.as_ref());
            let key = identity::load_or_create(&config.key_file, named)?;
            let _lock = KeyLock::take(&config.key_file)?;
            for warning in config.warnings() {
                tracing::warn!(own = tracing::field::Empty, "{warning}");
            }
            leave_out_missing_family(&mut config);
            if let Some(warning) = rlimit::warning(&config.limits, p2pnode_daemon::rlimit::raise())
            {
                tracing::warn!(own = tracing::field::Empty, "{warning}");
            }
            let format = if args.json {
                Format::Json
            } else {
                Format::Text
            };
            command::block_on(async {
                let shutdown = Shutdown::on_signals(None)?;
                let (global, flags) = (cli.global.clone(), args.flags(cli.global.flags()));
                let load = move || {
                    let sources = global.sources(&PROGRAM, flags.clone())?;
                    config::load(&PROGRAM, &sources, BINARY.read)
                };
                let file = cli.global.file(&PROGRAM)?;
                let reloads = Reloads::watch(file, loaded, Arc::new(load))?;
                run_reloading(&key, &config, format, reloads, shutdown.requested()).await?;
                Ok(Exit::Success)
            })
        }
        Command::Token(TokenCommand::Create(args)) => {
            let (config, wanted) = with_key(&cli, args.key.as_ref(), |reader| {
                token::wanted(reader, args)
            })?;
            token::create(&config, wanted, args)
        }
        Command::Token(TokenCommand::Show(args)) => {
            let (config, token) =
                with_key(&cli, args.key.as_ref(), |reader| token::given(reader, args))?;
            let has_file = cli.global.file(&PROGRAM)?.is_some();
            token::show(&config, has_file, &token, args.json)
        }
    }
}

/// The configuration, with a key file that may be given, and what is read of the arguments.
fn with_key<T>(
    cli: &Cli,
    key: Option<&String>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> anyhow::Result<(Config, T)> {
    let flags = cli.global.flags().one("identity.key_file", "--key", key);
    let sources = cli.global.sources(&PROGRAM, flags)?;
    let loaded = config::load(&PROGRAM, &sources, |reader| {
        (Config::read(reader), read(reader))
    })?;
    let (config, read) = loaded.config;
    Ok((
        config,
        read.context("an argument without a fault is there")?,
    ))
}

/// Nobody asked for the default addresses one by one, so a host without IPv6 is no reason not to start.
fn leave_out_missing_family(config: &mut Config) {
    if !config.listen.given && UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        let is_ip6 = |part: Option<Protocol<'_>>| matches!(part, Some(Protocol::Ip6(_)));
        config
            .listen
            .addrs
            .retain(|addr| !is_ip6(addr.iter().next()));
        tracing::info!(
            own = tracing::field::Empty,
            "this host has no IPv6; listening on IPv4 only"
        );
    }
}
