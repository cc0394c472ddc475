//! `serve`, `forward`, `connect` and `services`: their arguments, checked, and the node that does it.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use libp2p::PeerId;
use p2pnode_daemon::{
    command::block_on,
    config::{Loaded, Reader, load},
    control::ClientError,
    exit::{Exit, Usage},
    identity::Named,
};
use p2pnode_protocol::mapping::Protocol;
use p2pnode_services::config::{
    self as services_config, Destination, Fault, Forward, Listen, RawForward, RawService, Service,
    Source,
};
use p2pnode_services::identity::address;

use super::{
    cli::{Cli, ConnectArgs, ForwardArgs, MapArgs, MapProtocol, NodeArgs, ServeArgs, ServicesArgs},
    connect, map,
    prepare::{NO_RELAY, prepare, usage},
    query,
    service_output::Output,
    services::{self, By, Own},
};
use crate::{
    config::{Config, Expose, MappingMode, PROGRAM, Purpose, check_not_own, in_dial_range, known},
    control::Client,
    services::PeerAddresses,
};

/// What `map` logs unless a filter is given: its reports have what it waits for, with the remedy.
const FAULTS: &str = "error";

pub(super) fn serve(cli: &Cli, args: &ServeArgs) -> anyhow::Result<Exit> {
    let config = read(cli, &args.node)?;
    let doer = Doer::find(&config, &args.node, args.standalone)?;
    let service = service(&doer, args)?;
    let output = Output::new(args.node.json);
    let is_hidden = config.relays.is_empty() && config.listen.is_empty();
    doer.run((config.reservations, &[]), async |by| {
        if matches!(by, By::Own(_)) && is_hidden {
            // If stderr is closed, there is nowhere to report it.
            let _ = writeln!(
                io::stderr(),
                "note: this node has no relay and no address to listen on, so peers may not reach it; give --relay or --listen"
            );
        }
        services::serve(by, service, output).await
    })
}

pub(super) fn map(cli: &Cli, args: &MapArgs) -> anyhow::Result<Exit> {
    let loaded = load_config(cli, &args.node)?;
    let log_is_chosen = loaded.is_given("log.level");
    let mut config = loaded.config;
    if !log_is_chosen {
        // A node of its own logs what the reports say.
        config.log.level = FAULTS.parse()?;
    }
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
    let doer = Doer::find(&config, &args.node, args.standalone)?;
    if doer.running.is_none() && config.relays.is_empty() {
        return Err(Usage(NO_RELAY.to_owned()).into());
    }
    doer.run((config.reservations, &[]), async |by| {
        map::map(by, expose, args.node.json).await
    })
}

pub(super) fn forward(cli: &Cli, args: &ForwardArgs) -> anyhow::Result<Exit> {
    let node = NodeArgs::from(args.node.clone());
    let config = read(cli, &node)?;
    let doer = Doer::find(&config, &node, args.standalone)?;
    let forward = forward_of(&doer, args)?;
    let output = Output::new(node.json);
    let peers: Vec<_> = forward.to.iter().map(|(_, peer)| *peer).collect();
    doer.run((0, &peers), async |by| {
        services::forward(by, forward, output).await
    })
}

pub(super) fn connect(cli: &Cli, args: &ConnectArgs) -> anyhow::Result<Exit> {
    let node = NodeArgs::from(args.node.clone());
    let config = read(cli, &node)?;
    let doer = Doer::find(&config, &node, args.standalone)?;
    let Destination { what, peer } = args.to.parse().map_err(Usage)?;
    let to = (what, doer.peer("SERVICE@PEER", &peer)?);
    let output = Output::beside_session(node.json);
    let directory = config.control_socket.parent().unwrap_or(Path::new("."));
    doer.run((0, &[to.1]), async |by| {
        connect::connect(by, to, directory, output).await
    })
}

pub(super) fn services(cli: &Cli, args: &ServicesArgs) -> anyhow::Result<Exit> {
    let node = NodeArgs::from(args.node.clone());
    let config = read(cli, &node)?;
    let Some(peer) = &args.peer else {
        if node.json {
            let wrong = "--hosts prints a hosts file, which is no JSON; drop --json";
            return Err(Usage(wrong.to_owned()).into());
        }
        return hosts(&config);
    };
    let doer = Doer::find(&config, &node, args.standalone)?;
    let peer = doer.peer("PEER", peer)?;
    doer.run((0, &[peer]), async |by| {
        services::services(by, peer, node.json).await
    })
}

/// Prints the addresses that stand for peers: those of the running node, or of the file next to that of the key.
fn hosts(config: &Config) -> anyhow::Result<Exit> {
    let client = Client::new(&config.control_socket);
    let saved = saved(config);
    let running = block_on(async { Ok(client.status().await) })?;
    let hosts = match (running, saved) {
        (Ok(status), _) => {
            let addresses = status.addresses.into_iter();
            let addresses = addresses.map(|of| (of.address, of.peer));
            let names = config.names().with_running(&status.names);
            address::hosts(addresses, &names.peers())
        }
        (Err(ClientError::NotRunning { .. }), Some(file)) => {
            let addresses = PeerAddresses::open(Some(&file))?;
            address::hosts(addresses.table().iter(), &config.peer_names())
        }
        (Err(error), _) => return Err(error.into()),
    };
    p2pnode_daemon::command::print(&hosts)?;
    Ok(Exit::Success)
}

/// The file of addresses, if the configuration names the key and there is one.
fn saved(config: &Config) -> Option<PathBuf> {
    let file = config.key.file().map(PeerAddresses::path);
    file.filter(|file| !file.try_exists().is_ok_and(|exists| !exists))
}

fn read(cli: &Cli, args: &NodeArgs) -> anyhow::Result<Config> {
    Ok(load_config(cli, args)?.config)
}

fn load_config(cli: &Cli, args: &NodeArgs) -> anyhow::Result<Loaded<Config>> {
    let sources = cli
        .global
        .sources(&PROGRAM, args.flags(cli.global.flags()))?;
    let read = |reader: &mut Reader<'_>| Config::read(reader, Purpose::Dial);
    Ok(load(&PROGRAM, &sources, read)?)
}

fn service(doer: &Doer<'_>, args: &ServeArgs) -> anyhow::Result<Service> {
    let allow = args.allow.iter().map(|item| match item.as_str() {
        "any" => Ok(item.clone()),
        peer => Ok(doer.peer("--allow", peer)?.to_string()),
    });
    let raw = RawService {
        target: args.target.parse().map_err(Usage)?,
        allow: allow.collect::<anyhow::Result<_>>()?,
        identity: args.identity.into(),
        protocol: None,
        source: Source::Any,
        udp_idle: None,
    };
    let name = args.name.parse().map_err(Usage)?;
    let service = services_config::service(name, raw, &known(doer.own()));
    Ok(service.map_err(faults)?)
}

fn forward_of(doer: &Doer<'_>, args: &ForwardArgs) -> anyhow::Result<Forward> {
    let to = args.to.iter().map(|to| {
        let Destination { what, peer } = to.parse().map_err(Usage)?;
        let peer = doer.peer("SERVICE@PEER", &peer)?.to_string();
        Ok(Destination { what, peer })
    });
    let to = to.collect::<anyhow::Result<_>>()?;
    let listen: Listen = args.listen.parse().map_err(Usage)?;
    if let Some(problem) = listen
        .socket()
        .and_then(|at| in_dial_range(at, &doer.config.dial))
    {
        return Err(Usage(format!("--listen: {problem}")).into());
    }
    let raw = RawForward { listen, to };
    Ok(services_config::forward(raw, &known(doer.own())).map_err(faults)?)
}

fn faults(faults: Vec<Fault>) -> Usage {
    let lines: Vec<_> = faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.key, fault.problem))
        .collect();
    Usage(lines.join("\n"))
}

/// Who does what a command asks for: the running node, or one of the command's own.
struct Doer<'a> {
    config: &'a Config,
    running: Option<Client>,
}

impl<'a> Doer<'a> {
    /// The running node, unless there is none or a flag describes another one.
    fn find(config: &'a Config, args: &NodeArgs, standalone: bool) -> anyhow::Result<Self> {
        let mut doer = Self {
            config,
            running: None,
        };
        if standalone || args.describes_node() {
            return Ok(doer);
        }
        let client = Client::new(&config.control_socket);
        doer.running = query::is_served(&client)?.then_some(client);
        Ok(doer)
    }

    /// The peer that `text` means, as the value of `argument`: an id, a name of the configuration, or one that the running node knows.
    fn peer(&self, argument: &str, text: &str) -> anyhow::Result<PeerId> {
        let names = self.config.names();
        let found = match (names.find(text), &self.running) {
            (Err(_), Some(client)) => {
                let status = block_on(async { Ok(client.status().await?) })?;
                names.with_running(&status.names).find(text)
            }
            (found, _) => found,
        };
        Ok(found.map_err(|problem| Usage(format!("{argument}: {problem}")))?)
    }

    /// The node that does it, if it is not the running one, which checks by itself.
    fn own(&self) -> Option<PeerId> {
        let has_own = self.running.is_none();
        self.config.key.id().filter(|_| has_own)
    }

    /// Has it done. A node of the command's own has that many reservations, and is none of the peers.
    fn run(
        self,
        (reservations, peers): (usize, &[PeerId]),
        command: impl AsyncFnOnce(By) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        let config = self.config;
        if let Some(client) = self.running {
            return block_on(command(By::Running(client)));
        }
        let (keypair, _lock) = prepare(&config.key, Named::Argument, &config.log)?;
        for peer in peers {
            check_not_own(*peer, keypair.public().to_peer_id())?;
            if let Some(own) = config.key.id() {
                check_not_own(*peer, own)?;
            }
        }
        block_on(async {
            let own = Own::start(&keypair, config, reservations).map_err(usage)?;
            command(By::Own(own)).await
        })
    }
}
