//! The commands: each reads its configuration, loads its identity, sets up logging, and runs.

pub(crate) mod cli;
mod connect;
pub(crate) mod dial;
mod exit_code;
pub(crate) mod firewall;
mod init;
mod look;
mod map;
mod netcheck;
mod prepare;
pub(crate) mod query;
mod reload;
pub(crate) mod run;
mod service_commands;
mod service_output;
mod services;
mod so_far;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::SystemTime,
};

use p2pnode_daemon::{
    command::{self, Binary},
    config::{self, Faults, Loaded, Reader},
    exit::{Exit, Usage},
    healthcheck::Serves,
    heap,
    identity::Named,
    logging,
    reload::Triggers,
    signals::Shutdown,
};

use crate::{
    command::{
        cli::{Cli, Command, DialArgs, FirewallArgs, NetcheckArgs, NodeArgs, RunArgs, Until},
        firewall::Rules,
        netcheck::Wish,
        prepare::{NO_RELAY, prepare, usage},
        query::Asked,
    },
    config::{Config, Key, Log, PROGRAM, Purpose, Target, check_not_own},
    control::{Client, DialRequest},
    core::{dialer::Request, event::LOGGED},
    observe::output::{Format, Printer},
    swarm::token_file,
};

const BINARY: Binary<Config> = Binary {
    program: PROGRAM,
    read: |reader| Config::read(reader, Purpose::Check),
    key_file: |config| match &config.key {
        Key::File(path) => Some(path.clone()),
        Key::Throwaway { .. } => None,
    },
    serves: |config| Serves {
        admin: config.admin_listen,
        control: Some(config.control_socket.clone()),
    },
    check,
    examples: include_str!("examples.txt"),
};

/// Runs the command.
///
/// # Errors
/// What stopped it, in lines that name the thing, the value, the reason and the remedy; [`Exit::of`] gives its exit code.
pub fn execute(cli: Cli) -> anyhow::Result<Exit> {
    let load = |args: &NodeArgs| cli.global.sources(&PROGRAM, args.flags(cli.global.flags()));
    heap::keep();
    match &cli.command {
        Command::Common(common) => common.execute::<Cli, _>(&cli.global, &BINARY),
        Command::Init(args) => init::execute(&cli.global, args),
        Command::Run(args) => {
            let sources = load(&args.node)?;
            let read = |reader: &mut Reader<'_>| Config::read(reader, Purpose::Run);
            let loaded = config::load(&PROGRAM, &sources, read)?;
            let (global, flags) = (cli.global.clone(), args.node.flags(cli.global.flags()));
            let load = move || {
                let sources = global.sources(&PROGRAM, flags.clone())?;
                config::load(&PROGRAM, &sources, read)
            };
            run_node(loaded, load, cli.global.file(&PROGRAM)?, args)
        }
        Command::Status(args) => {
            let (config, peer) = ask(&cli, args.peer.as_deref())?;
            command::block_on(query::status(
                &config.control_socket,
                peer.as_ref(),
                args.sessions,
                args.form(),
            ))
        }
        Command::Why(args) => {
            let (config, peer) = ask(&cli, Some(&args.peer))?;
            match peer {
                Some(peer) => {
                    command::block_on(query::why(&config.control_socket, &peer, args.json))
                }
                // Unreachable: a peer is given, and an invalid one is an error.
                None => Ok(Exit::Usage),
            }
        }
        Command::Netcheck(args) => check_network(&cli, args),
        Command::Forget(args) => {
            let (config, peer) = ask(&cli, Some(&args.peer))?;
            match peer {
                Some(peer) => command::block_on(query::forget(&config.control_socket, &peer)),
                // Unreachable, as for `why`.
                None => Ok(Exit::Usage),
            }
        }
        Command::Serve(args) => service_commands::serve(&cli, args),
        Command::Map(args) => service_commands::map(&cli, args),
        Command::Forward(args) => service_commands::forward(&cli, args),
        Command::Connect(args) => service_commands::connect(&cli, args),
        Command::Services(args) => service_commands::services(&cli, args),
        Command::Firewall(args) => print_firewall(&cli, args),
        Command::Dial(args) => {
            let args = &args.clone().by_id();
            if !args.standalone && !args.node.describes_node() {
                let (config, peer) = ask(&cli, Some(&args.peer))?;
                let client = Client::new(&config.control_socket);
                if let (Some(peer), true) = (peer, query::is_served(&client)?) {
                    return dial_through(&client, &peer, args);
                }
            }
            let sources = load(&args.node)?;
            let read = |reader: &mut Reader<'_>| {
                let config = Config::read(reader, Purpose::Dial);
                let target = Target::read(reader, &config, &args.peer, &args.addr);
                Some((config, target?))
            };
            match config::load(&PROGRAM, &sources, read)? {
                Loaded {
                    config: Some((config, target)),
                    ..
                } => dial_peer(&config, target, args),
                // Unreachable: without a fault there is a target.
                Loaded { config: None, .. } => Ok(Exit::Usage),
            }
        }
    }
}

/// Looks through the running node, unless there is none or a flag describes another one.
fn check_network(cli: &Cli, args: &NetcheckArgs) -> anyhow::Result<Exit> {
    let flags = args.node.flags(cli.global.flags());
    let sources = cli.global.sources(&PROGRAM, flags)?;
    let read = |reader: &mut Reader<'_>| Config::read(reader, Purpose::Dial);
    let config = config::load(&PROGRAM, &sources, read)?.config;
    logging::init(&config.log.level, config.log.format)?;
    let wish = Wish {
        lifetime: args.lifetime,
        watch: args.watch,
        json: args.node.json,
    };
    if !args.node.describes_node() {
        let client = Client::new(&config.control_socket);
        if query::is_served(&client)? {
            return command::block_on(netcheck::through(&client, wish));
        }
    }
    if config.relays.is_empty() {
        return Err(Usage(NO_RELAY.to_owned()).into());
    }
    command::block_on(netcheck::alone(&config, wish))
}

/// The configuration, and the peer that a question is about.
fn ask(cli: &Cli, peer: Option<&str>) -> anyhow::Result<(Config, Option<Asked>)> {
    let sources = cli.global.sources(&PROGRAM, cli.global.flags())?;
    let config = config::load(&PROGRAM, &sources, |reader| {
        Config::read(reader, Purpose::Dial)
    })?
    .config;
    let names = config.names();
    let peer = peer.map(|peer| Asked::new(peer, &names)).transpose()?;
    Ok((config, peer))
}

fn print_firewall(cli: &Cli, args: &FirewallArgs) -> anyhow::Result<Exit> {
    let sources = cli.global.sources(&PROGRAM, cli.global.flags())?;
    let loaded = config::load(&PROGRAM, &sources, |reader| {
        Config::read(reader, Purpose::Firewall)
    })?;
    if !args.format.is_snat() && (!args.pods.is_empty() || args.out.is_some()) {
        let wrong = "--pods and --out are for source NAT: use --format nft-snat or iptables-snat";
        return Err(Usage(wrong.to_owned()).into());
    }
    if args.keep && args.format != firewall::Format::NftSnat {
        let wrong = "--keep writes nftables rules of source NAT: use --format nft-snat";
        return Err(Usage(wrong.to_owned()).into());
    }
    let rules = Rules::of(&loaded.config);
    let kept = firewall::snat::kept(&rules, &args.pods, args.out.as_deref())?;
    if !args.keep {
        command::print(&rules.render(args.format, &kept))?;
        return Ok(Exit::Success);
    }
    let mut log = loaded.config.log.clone();
    if !loaded.is_given("log.level") {
        log.level = "info".parse()?;
    }
    logging::init(&log.level, log.format)?;
    command::block_on(async {
        let shutdown = Shutdown::on_signals(None)?;
        firewall::keep::keep(&kept, shutdown.requested()).await?;
        Ok(Exit::Success)
    })
}

fn run_node(
    loaded: Loaded<Config>,
    load: impl Fn() -> Result<Loaded<Config>, Faults> + Send + 'static,
    file: Option<PathBuf>,
    args: &RunArgs,
) -> anyhow::Result<Exit> {
    let config = &loaded.config.clone();
    let printer = printer(config, &args.node);
    let (named, is_given) = (
        Named::by(args.node.key.as_ref()),
        loaded.is_given("log.level"),
    );
    let (keypair, _lock) = prepare(
        &config.key,
        named,
        &on_terminal(&config.log, is_given, printer.is_watched())?,
    )?;
    command::block_on(async {
        let shutdown = Shutdown::on_signals(None)?;
        let triggers = Triggers::new(file.into_iter().collect())?;
        let reloads = |node| reload::follow(triggers, loaded, load, node);
        run::run(&keypair, config, printer, reloads, shutdown.requested())
            .await
            .map_err(usage)?;
        Ok(Exit::Success)
    })
}

/// The log of `run`. On a terminal that shows the events, it is for what they do not say, unless `log.level` is given.
fn on_terminal(log: &Log, is_given: bool, is_watched: bool) -> anyhow::Result<Log> {
    let mut log = log.clone();
    if is_watched && !is_given && io::stderr().is_terminal() {
        log.level = format!("warn,yamux=error,{LOGGED}=off").parse()?;
    }
    Ok(log)
}

/// Warnings of a valid configuration, and a check of the file of tokens as `run` makes it. It creates no key; without a key it is
/// unknown which tokens are this node's.
fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut warnings = config.warnings();
    let Some(path) = &config.token_file else {
        return Ok(warnings);
    };
    let relays = config.relays.iter().map(|relay| relay.peer).collect();
    let checked = token_file::check(path, config.key.id(), &relays, SystemTime::now());
    warnings.extend(checked.map_err(|error| usage(error.into()))?);
    Ok(warnings)
}

/// Dials through the running node.
fn dial_through(client: &Client, peer: &Asked, args: &DialArgs) -> anyhow::Result<Exit> {
    let request = DialRequest {
        peer: peer.text.clone(),
        addrs: args.addr.clone(),
        any_connection: args.until == Until::Connected,
        timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
        pings: args.count,
    };
    command::block_on(query::dial(
        client,
        &request,
        Printer::new(format(&args.node)),
    ))
}

fn dial_peer(config: &Config, target: Target, args: &DialArgs) -> anyhow::Result<Exit> {
    let (keypair, _lock) = prepare(&config.key, Named::Argument, &config.log)?;
    check_not_own(target.peer, keypair.public().to_peer_id())?;
    if let Some(own) = config.key.id() {
        check_not_own(target.peer, own)?;
    }
    let request = Request {
        peer: target.peer,
        addrs: target.addrs,
        until: args.until.into(),
        timeout: args.timeout,
        pings: args.count,
    };
    let printer = printer(config, &args.node);
    command::block_on(async {
        let shutdown = Shutdown::on_signals(Some(query::GRACE))?;
        dial::dial(&keypair, config, request, printer, &shutdown)
            .await
            .map_err(usage)
    })
}

/// What prints events on stdout, with the names of the configuration.
fn printer(config: &Config, args: &NodeArgs) -> Printer {
    let mut printer = Printer::new(format(args));
    for (name, peer) in config.names().iter() {
        printer.name(*peer, name.clone());
    }
    printer
}

fn format(args: &NodeArgs) -> Format {
    if args.json {
        Format::Json
    } else {
        Format::Text
    }
}
