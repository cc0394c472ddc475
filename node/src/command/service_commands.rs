//! `serve`, `forward`, `connect` and `services`: their arguments, checked, and the node that does it.

use std::{
    io::{self, Write as _},
    path::Path,
};

use p2pnode_daemon::{
    command::block_on,
    config::load,
    exit::{Exit, Usage},
    identity::Named,
};
use p2pnode_protocol::mapping::Protocol;
use p2pnode_services::config::{
    self as services_config, Fault, Forward, Listen, RawForward, RawService, Service, Source,
};
use p2pnode_services::identity::address;

use super::{
    cli::{Cli, ConnectArgs, ForwardArgs, MapArgs, MapProtocol, NodeArgs, ServeArgs, ServicesArgs},
    is_served, map,
    prepare::{prepare, usage},
    service_output::Output,
    services::{self, By, Own, destination},
};
use crate::{
    config::{
        Config, Expose, Key, KnownPeer, MappingMode, PROGRAM, Purpose, in_dial_range, own_ip4,
    },
    control::Client,
    services::PeerAddresses,
};

pub(super) fn serve(cli: &Cli, args: &ServeArgs) -> anyhow::Result<Exit> {
    let mut config = read(cli, &args.node)?;
    let service = with_names(&mut config, &args.node, args.standalone, |config| {
        service(config, args)
    })?;
    let output = Output::new(args.node.json);
    let reservations = config.reservations;
    let is_hidden = config.relays.is_empty() && config.listen.is_empty();
    run(
        &config,
        &args.node,
        args.standalone,
        reservations,
        async |by| {
            if matches!(by, By::Own(_)) && is_hidden {
                // If stderr is closed, there is nowhere to report it.
                let _ = writeln!(
                    io::stderr(),
                    "note: this node has no relay and no address to listen on, so peers may not reach it; give --relay or --listen"
                );
            }
            services::serve(by, service, output).await
        },
    )
}

pub(super) fn map(cli: &Cli, args: &MapArgs) -> anyhow::Result<Exit> {
    let mut config = read(cli, &args.node)?;
    let protocol = match args.protocol {
        MapProtocol::Tcp => Protocol::Tcp,
        MapProtocol::Udp => Protocol::Udp,
    };
    let name = args.name.parse().map_err(Usage)?;
    let target = args.target.parse().map_err(Usage)?;
    let expose = Expose::new(name, protocol, target, args.identity.into());
    let expose = expose.map_err(|(key, problem)| Usage(format!("{key}: {problem}")))?;
    // For a node of its own.
    config.mappings.mode = MappingMode::Auto;
    let (json, reservations) = (args.node.json, config.reservations);
    run(
        &config,
        &args.node,
        args.standalone,
        reservations,
        async |by| map::map(by, expose, json).await,
    )
}

pub(super) fn forward(cli: &Cli, args: &ForwardArgs) -> anyhow::Result<Exit> {
    let node = NodeArgs::from(args.node.clone());
    let mut config = read(cli, &node)?;
    let forward = with_names(&mut config, &node, args.standalone, |config| {
        forward_of(config, args)
    })?;
    let output = Output::new(node.json);
    run(&config, &node, args.standalone, 0, async |by| {
        services::forward(by, forward, output).await
    })
}

pub(super) fn connect(cli: &Cli, args: &ConnectArgs) -> anyhow::Result<Exit> {
    let node = NodeArgs::from(args.node.clone());
    let mut config = read(cli, &node)?;
    let to = with_names(&mut config, &node, args.standalone, |config| {
        destination(config, &args.to)
    })?;
    let output = Output::beside_session(node.json);
    let directory = config.control_socket.parent().unwrap_or(Path::new("."));
    run(&config, &node, args.standalone, 0, async |by| {
        services::connect(by, to, directory, output).await
    })
}

pub(super) fn services(cli: &Cli, args: &ServicesArgs) -> anyhow::Result<Exit> {
    let node = NodeArgs::from(args.node.clone());
    let mut config = read(cli, &node)?;
    let Some(peer) = &args.peer else {
        return hosts(&config);
    };
    let peer = with_names(&mut config, &node, args.standalone, |config| {
        Ok(config.names().peer(peer)?)
    })?;
    run(&config, &node, args.standalone, 0, async |by| {
        services::services(by, peer, node.json).await
    })
}

/// Prints the addresses that stand for peers: those of the running node, or of the file next to that of the key.
fn hosts(config: &Config) -> anyhow::Result<Exit> {
    let names = config.peer_names();
    let client = Client::new(&config.control_socket);
    let of_running = block_on(async {
        Ok(match client.is_served().await.unwrap_or_default() {
            true => Some(client.status().await?.addresses),
            false => None,
        })
    })?;
    let hosts = match of_running {
        Some(addresses) => {
            let addresses = addresses.into_iter();
            address::hosts(addresses.map(|of| (of.address, of.peer)), &names)
        }
        None => address::hosts(saved(config)?.table().iter(), &names),
    };
    p2pnode_daemon::command::print(&hosts)?;
    Ok(Exit::Success)
}

fn saved(config: &Config) -> anyhow::Result<PeerAddresses> {
    let key = match &config.key {
        Key::File(path) => Some(path),
        Key::Throwaway { configured } => configured.as_ref(),
    };
    let file = key.map(|path| PeerAddresses::path(path));
    PeerAddresses::open(file.as_deref())
}

fn read(cli: &Cli, args: &NodeArgs) -> anyhow::Result<Config> {
    let sources = cli
        .global
        .sources(&PROGRAM, args.flags(cli.global.flags()))?;
    let loaded = load(&PROGRAM, &sources, |reader| {
        Config::read(reader, Purpose::Dial)
    })?;
    Ok(loaded.config)
}

/// What arguments mean by the names of the configuration, or else by those of the running node that is to do it.
fn with_names<T>(
    config: &mut Config,
    args: &NodeArgs,
    standalone: bool,
    meant: impl Fn(&Config) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let unknown = match meant(config) {
        Err(error) if !standalone && !args.describes_node() => error,
        meant => return meant,
    };
    let client = Client::new(&config.control_socket);
    let Ok(status) = block_on(async { Ok(client.status().await?) }) else {
        return Err(unknown);
    };
    for (name, id) in status.names {
        if let Ok(id) = id.parse() {
            let known = KnownPeer {
                id,
                addrs: Vec::new(),
            };
            config.peers.entry(name).or_insert(known);
        }
    }
    meant(config)
}

fn service(config: &Config, args: &ServeArgs) -> anyhow::Result<Service> {
    let raw = RawService {
        target: args.target.parse().map_err(Usage)?,
        allow: args.allow.clone(),
        identity: args.identity.into(),
        protocol: None,
        source: Source::Any,
        udp_idle: None,
    };
    let name = args.name.parse().map_err(Usage)?;
    let service = services_config::service(name, raw, &config.peer_names(), &own_ip4());
    Ok(service.map_err(faults)?)
}

fn forward_of(config: &Config, args: &ForwardArgs) -> anyhow::Result<Forward> {
    let to = args
        .to
        .iter()
        .map(|to| to.parse())
        .collect::<Result<_, _>>();
    let listen: Listen = args.listen.parse().map_err(Usage)?;
    if let Some(problem) = listen
        .socket()
        .and_then(|at| in_dial_range(at, &config.dial))
    {
        return Err(Usage(format!("--listen: {problem}")).into());
    }
    let raw = RawForward {
        listen,
        to: to.map_err(Usage)?,
    };
    Ok(services_config::forward(raw, &config.peer_names()).map_err(faults)?)
}

fn faults(faults: Vec<Fault>) -> Usage {
    let lines: Vec<_> = faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.key, fault.problem))
        .collect();
    Usage(lines.join("\n"))
}

/// Lets the running node do it, or one of this command's own with that many reservations.
fn run(
    config: &Config,
    args: &NodeArgs,
    standalone: bool,
    reservations: usize,
    command: impl AsyncFnOnce(By) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let client = Client::new(&config.control_socket);
    if !standalone && !args.describes_node() && is_served(&client)? {
        return block_on(command(By::Running(client)));
    }
    let (keypair, _lock) = prepare(&config.key, Named::Argument, &config.log)?;
    block_on(async {
        let own = Own::start(&keypair, config, reservations).map_err(usage)?;
        command(By::Own(own)).await
    })
}
