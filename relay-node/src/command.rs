//! Each command: its configuration, its identity, its logging, and then its core.

use std::net::{Ipv6Addr, UdpSocket};

use libp2p::multiaddr::Protocol;
use p2pnode_bin_shared::{
    command::{self, Binary},
    config,
    exit::Exit,
    healthcheck::Serves,
    identity, logging,
    signals::Shutdown,
};

use crate::{
    Format,
    cli::{Cli, Command},
    config::{Config, PROGRAM},
    run,
};

const BINARY: Binary<Config> = Binary {
    program: PROGRAM,
    read: |reader| Config::read(reader),
    key_file: |config| Some(config.key_file.clone()),
    serves: |config| Serves {
        admin: config.admin,
        control: None,
    },
};

/// Runs the command.
///
/// # Errors
/// What stopped it, in lines that name the thing, the value, the reason and the remedy; [`Exit::of`] tells its exit code.
pub fn execute(cli: Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::Common(common) => common.execute::<Cli, _>(&cli.global, &BINARY),
        Command::Run(args) => {
            let sources = cli
                .global
                .sources(&PROGRAM, args.flags(cli.global.flags()))?;
            let mut config = config::load(&PROGRAM, &sources, BINARY.read)?.config;
            logging::init(&config.log.level, config.log.format)?;
            let key = identity::load_or_create(&config.key_file)?;
            leave_out_missing_family(&mut config);
            let format = if args.json {
                Format::Json
            } else {
                Format::Text
            };
            command::block_on(async {
                let shutdown = Shutdown::on_signals()?;
                run(&key, &config, format, shutdown.requested()).await?;
                Ok(Exit::Success)
            })
        }
    }
}

/// Nobody asked for the default addresses one by one, so a host without IPv6 is no reason not to start.
fn leave_out_missing_family(config: &mut Config) {
    if !config.listen.given && UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        let is_ip6 = |part: Option<Protocol<'_>>| matches!(part, Some(Protocol::Ip6(_)));
        config
            .listen
            .addrs
            .retain(|addr| !is_ip6(addr.iter().next()));
        tracing::info!("this host has no IPv6; listening on IPv4 only");
    }
}
