//! Each command: its configuration, its identity, its logging, and then its core.

use libp2p::identity::Keypair;
use p2pnode_bin_shared::{
    command::{self, Binary},
    config::{self, Loaded, Reader},
    exit::Exit,
    identity, logging,
    signals::Shutdown,
};

use crate::{
    cli::{Cli, Command, DialArgs, NodeArgs},
    config::{Config, Key, Log, PROGRAM, Purpose, Target, check_not_own},
    dial,
    dialer::{self, Request},
    event::Reached,
    output::{Format, Printer},
    run,
};

const BINARY: Binary<Config> = Binary {
    program: PROGRAM,
    read: |reader| Config::read(reader, Purpose::Run),
    key_file: |config| match &config.key {
        Key::File(path) => Some(path.clone()),
        Key::Throwaway => None,
    },
};

/// Runs the command.
///
/// # Errors
/// What stopped it, in lines that name the thing, the value, the reason and the remedy; [`Exit::of`] tells its exit code.
pub fn execute(cli: Cli) -> anyhow::Result<Exit> {
    let load = |args: &NodeArgs| cli.global.sources(&PROGRAM, args.flags(cli.global.flags()));
    match &cli.command {
        Command::Common(common) => common.execute::<Cli, _>(&cli.global, &BINARY),
        Command::Run(args) => {
            let sources = load(&args.node)?;
            let config = config::load(&PROGRAM, &sources, BINARY.read)?.config;
            run_node(&config, Printer::new(format(&args.node)))
        }
        Command::Dial(args) => {
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
                // A target without a fault is there.
                Loaded { config: None, .. } => Ok(Exit::Usage),
            }
        }
    }
}

fn run_node(config: &Config, printer: Printer) -> anyhow::Result<Exit> {
    let keypair = prepare(&config.key, &config.log)?;
    command::block_on(async {
        let shutdown = Shutdown::on_signals()?;
        run(&keypair, config, printer, shutdown.requested()).await?;
        Ok(Exit::Success)
    })
}

fn dial_peer(config: &Config, target: Target, args: &DialArgs) -> anyhow::Result<Exit> {
    let keypair = prepare(&config.key, &config.log)?;
    check_not_own(target.peer, keypair.public().to_peer_id())?;
    let request = Request {
        peer: target.peer,
        addrs: target.addrs,
        until: args.until.into(),
        timeout: args.timeout,
        pings: args.count,
    };
    let until = request.until;
    let printer = Printer::new(format(&args.node));
    let reached = command::block_on(async {
        let shutdown = Shutdown::on_signals()?;
        dial(&keypair, config, request, printer, shutdown.requested()).await
    })?;
    Ok(match (reached, until) {
        (Reached::Direct, _) | (Reached::Relayed, dialer::Until::Connected) => Exit::Success,
        (Reached::Relayed, dialer::Until::Direct) => Exit::RelayedOnly,
        (Reached::Unreachable, _) => Exit::Unreachable,
    })
}

fn prepare(key: &Key, log: &Log) -> anyhow::Result<Keypair> {
    logging::init(&log.level, log.format)?;
    Ok(match key {
        Key::File(path) => identity::load_or_create(path)?,
        Key::Throwaway => Keypair::generate_ed25519(),
    })
}

fn format(args: &NodeArgs) -> Format {
    if args.json {
        Format::Json
    } else {
        Format::Text
    }
}
