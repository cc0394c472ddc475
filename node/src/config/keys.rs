//! Each key: what it means, its kind, its default.

use libp2p::PeerId;
use p2pnode_daemon::{
    admin,
    config::{
        Reader,
        kind::{
            BOOL, BYTES_LIMIT, COUNT, DIAL_ADDR, LISTEN_ADDR, LOG_FILTER, LOG_FORMAT, PATH,
            PEER_ID, SOCKET_ADDR, SOCKET_PATH,
        },
    },
    memory,
};
use p2pnode_protocol::{
    addr::{self, Endpoint},
    quote,
};
use p2pnode_services::config::Known;
use p2pnode_transports::Transport;

use super::{
    Config, Dial, Discovery, Key, KnownPeer, Log, Mappings, Mdns, Punch, checks,
    kinds::{
        ADVERTISE, CONGESTION, FAMILY, FILTER, PORT_RANGE, RELAY, ROTATE, SEARCH, SERVICE,
        TRANSPORT,
    },
    mapping, share,
};

/// What a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `run`.
    Run,
    /// `dial` with a node of its own. It may run alongside a node with the same file. So it takes a throwaway identity unless
    /// a key is given, listens only if a flag says so, and has no admin server.
    Dial,
    /// Commands that bind no port, such as `config check`: the node's number may be known only where it runs.
    Check,
    /// `firewall`. The rules are the same for all nodes that share the range, so they need neither a key nor an ordinal.
    Firewall,
}

impl Config {
    /// Reads and checks every key.
    pub(crate) fn read(reader: &mut Reader<'_>, purpose: Purpose) -> Self {
        let directories = reader.directories();

        let key = key(reader, purpose, directories.state);
        let listen = reader.list(
            "listen",
            "Public addresses to listen on, for hosts with an open port. Default: none; the punch sockets and circuits accept \
             connections. `dial` ignores this key unless the flag is given.",
            &LISTEN_ADDR,
            &[],
        );
        let dial = dial(reader, purpose);
        let relays = reader.list(
            "relays",
            "Relays, each with its peer id. If a relay has several addresses, give one of each transport and family.",
            &RELAY,
            &[],
        );
        let reservations = reader.one(
            "reservations",
            "How many relays to hold a reservation on at the same time. 0: none; no peer reaches this node through a relay.",
            &COUNT,
            "2",
        );
        let punch = Punch {
            enabled: reader.one(
                "punch.enabled",
                "Whether to punch holes. If false, peers behind NAT stay relayed.",
                &BOOL,
                "true",
            ),
            advertise: reader.list(
                "punch.advertise",
                "Addresses to advertise for punching, in addition to the observed ones. {port} stands for the punch port.",
                &ADVERTISE,
                &[],
            ),
            allow: reader.list(
                "punch.allow",
                "If not empty: only candidates in one of these networks are sent and dialed.",
                &FILTER,
                &[],
            ),
            deny: reader.list(
                "punch.deny",
                "Candidates in one of these networks are neither sent nor dialed.",
                &FILTER,
                &[],
            ),
            search: reader.one(
                "punch.search",
                "Whether to search for a pair of ports after a punch over QUIC has failed. Symmetric NATs cause that, and routers that take an early packet. At most 3,000 \
                 packets a series. auto: where that may find one. off: such peers stay relayed.",
                &SEARCH,
                "auto",
            ),
            rotate: reader.one(
                "punch.rotate",
                "When direct paths over QUIC move to the next port of the range, where the NAT drops mappings by their age. auto: \
                 after half the age that a relay has seen a mapping reach. An age: after half of that. off: never. Needs \
                 punch.search.",
                &ROTATE,
                "auto",
            ),
        };
        let mappings = match (mapping::read(reader), purpose) {
            (_, Purpose::Dial) => Mappings::off(),
            (mappings, Purpose::Run | Purpose::Check | Purpose::Firewall) => mappings,
        };
        let discovery = discovery(reader, purpose);
        let peers = reader.entries(
            "peers",
            "Peers by name, for `dial NAME`.",
            peer_name,
            known_peer,
        );
        alike(reader, peers.keys());
        let ids = peers.iter().map(|(name, peer)| (name.clone(), peer.id));
        let known = Known {
            peers: ids.collect(),
            lacks_peers: reader.has_fault_of("peers"),
            ..super::known(key.id())
        };
        let services = p2pnode_services::config::read(reader, &known);
        let access = reader.list(
            "access.allow",
            "Peers that may connect. Every other peer is refused. Empty: every peer may connect.",
            &PEER_ID,
            &[],
        );
        let token_file = reader.optional(
            "join.token_file",
            "File of join tokens, one per line, for relays that require one. `relay-node token create` prints them. The file is \
             read again when it changes.",
            &PATH,
        );
        let admin = reader.optional(
            "admin.listen",
            "Address of the admin HTTP server, which serves /livez, /readyz, /metrics and a page at /. Default: none. `dial` ignores this key.",
            &SOCKET_ADDR,
        );
        let (admin_hosts, admin_page) = admin::keys(reader);
        let control = reader.computed(
            "control.socket",
            "Path of the control socket. Default: $XDG_RUNTIME_DIR/p2pnode/control.sock; for root: /run/p2pnode/control.sock.",
            &SOCKET_PATH,
            directories.runtime.map(|runtime| runtime.join("control.sock")),
        );
        let memory = reader.computed(
            "limits.memory",
            "Resident memory of the process above which no new connection is taken, and connections are closed, first those that \
             hold the most. 0: no limit. Default: 80 % of the limit of the cgroup; no limit without one.",
            &BYTES_LIMIT,
            Ok(memory::default_limit()),
        );
        let log = Log {
            level: reader.one(
                "log.level",
                "What to log to stderr: a level, or a filter such as info,quinn=debug.",
                &LOG_FILTER,
                match purpose {
                    // At info the swarm logs what the node logs itself. yamux warns of every connection that breaks.
                    Purpose::Run | Purpose::Check => "info,libp2p_swarm=warn,yamux=error",
                    // Its output is its timeline, so the log is for faults.
                    Purpose::Dial | Purpose::Firewall => "warn,yamux=error",
                },
            ),
            format: reader.one("log.format", "Format of log lines.", &LOG_FORMAT, "text"),
        };

        let is_dial = purpose == Purpose::Dial;
        let listen = match is_dial && !reader.is_flag("listen") {
            true => Vec::new(),
            false => listen,
        };
        checks::listen_outside_range(reader, &listen, &dial);
        let config = Self {
            key,
            listen: listen.into_iter().map(|endpoint| endpoint.addr).collect(),
            dial,
            relays,
            reservations,
            punch,
            mappings,
            discovery,
            peers,
            services,
            allowed_peers: access.into_iter().collect(),
            token_file,
            admin_listen: admin.filter(|_| !is_dial),
            admin_hosts,
            admin_page,
            control_socket: control.unwrap_or_default(),
            memory: memory.unwrap_or_default(),
            log,
        };
        checks::contradictions(reader, &config);
        config
    }
}

fn key(
    reader: &mut Reader<'_>,
    purpose: Purpose,
    state: Result<std::path::PathBuf, String>,
) -> Key {
    const NAME: &str = "identity.key_file";
    const DOC: &str = "File of the node's private key. The first start creates it with mode 0600. Default: \
        $XDG_STATE_HOME/p2pnode/identity.key; for root: /var/lib/p2pnode/identity.key. A command with a node of its own takes a throwaway key unless --key is given.";
    match purpose {
        Purpose::Run | Purpose::Check => {
            let default = state.map(|state| state.join("identity.key"));
            Key::File(
                reader
                    .computed(NAME, DOC, &PATH, default)
                    .unwrap_or_default(),
            )
        }
        // A node that runs with this file has that identity: only a flag lends it to a dial.
        Purpose::Dial | Purpose::Firewall => {
            let named = reader.optional(NAME, DOC, &PATH);
            match named {
                Some(given) if reader.is_flag(NAME) => Key::File(given),
                configured => Key::Throwaway { configured },
            }
        }
    }
}

fn dial(reader: &mut Reader<'_>, purpose: Purpose) -> Dial {
    let shared_range = reader.one(
        "dial.port_range",
        "The source ports that packets may leave from, both ends included. With dial.ports_per_ordinal: the ports of all nodes \
         together.",
        &PORT_RANGE,
        "40000-40050",
    );
    let ports_per_ordinal = reader.one(
        share::PORTS_PER_ORDINAL,
        "How many ports of the range each node has if several nodes share it, such as pods behind one NAT. 0: each node has the \
         whole range. The node with dial.ordinal 0 has the first ports, and so on. A range that is given by flag is not divided.",
        &COUNT,
        "0",
    );
    let ordinal = reader.optional(
        share::ORDINAL,
        "This node's number among those that share the range, from 0. In a pod of a StatefulSet: its label \
         apps.kubernetes.io/pod-index. Required with dial.ports_per_ordinal.",
        &COUNT,
    );
    let is_shared = purpose != Purpose::Firewall && !reader.is_flag("dial.port_range");
    let part = share::part_of(shared_range, ports_per_ordinal, ordinal);
    let lacks_ordinal = purpose == Purpose::Check
        && ordinal.is_none()
        && matches!(&part, Err(fault) if fault.key == share::ORDINAL);
    let is_shared = is_shared && !lacks_ordinal;
    let port_range = match part {
        Ok(port_range) if is_shared => port_range,
        Err(fault) if is_shared => {
            let others = ["dial.port_range", share::PORTS_PER_ORDINAL, share::ORDINAL];
            reader.contradiction_of(fault.key, None, &others, fault.problem);
            shared_range
        }
        Ok(_) | Err(_) => shared_range,
    };
    let family = reader.one(
        "dial.family",
        "Which IP families to use, and which to prefer.",
        &FAMILY,
        "auto",
    );
    let congestion = reader.one(
        "dial.congestion",
        "Congestion control of QUIC: cubic, or bbr (experimental) for paths that lose packets without congestion.",
        &CONGESTION,
        "cubic",
    );
    let transports = reader.list(
        "dial.transports",
        "Transports to dial over.",
        &TRANSPORT,
        &["quic", "tcp"],
    );
    if transports.is_empty() {
        let problem = "is an empty list; give quic, tcp or both, or leave the key out".to_owned();
        reader.contradiction("dial.transports", None, problem);
    }
    Dial {
        port_range,
        shared_range,
        lacks_ordinal,
        family,
        congestion,
        quic: transports.contains(&Transport::Quic),
        tcp: transports.contains(&Transport::Tcp),
    }
}

fn discovery(reader: &mut Reader<'_>, purpose: Purpose) -> Discovery {
    let dns = reader.list(
        "discovery.dns",
        "Services as NAME:PORT, such as a headless service of the cluster. Each of their addresses may be the dialed peer: all \
         are tried before any relay.",
        &SERVICE,
        &[],
    );
    let mdns = reader.one(
        "discovery.mdns",
        "Whether to look for peers by multicast DNS on the links of this host, and to answer such questions (UDP port 5353). \
         `dial` only asks.",
        &BOOL,
        "false",
    );
    Discovery {
        dns,
        mdns: match (mdns, purpose) {
            (false, _) => Mdns::Off,
            (true, Purpose::Run | Purpose::Check | Purpose::Firewall) => Mdns::AskAndAnswer,
            (true, Purpose::Dial) => Mdns::Ask,
        },
    }
}

/// Names are letters, digits, hyphens and underscores, so that shells, keys and messages need no quotes.
/// SOCKS5 takes names of any case.
fn alike<'a>(reader: &mut Reader<'_>, names: impl Iterator<Item = &'a String>) {
    let mut known = std::collections::BTreeMap::new();
    for name in names {
        if let Some(other) = known.insert(name.to_ascii_lowercase(), name) {
            let problem = format!("{other} and {name} differ in case only; rename one of them");
            reader.contradiction(&format!("peers.{name}.id"), None, problem);
        }
    }
}

fn peer_name(name: &str) -> Result<(), String> {
    if name.eq_ignore_ascii_case("any") {
        return Err(format!(
            "{name} is no name for a peer: `allow: any` admits every peer; choose another name"
        ));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(format!(
            "{} is not a name for a peer; use 1 to 63 letters, digits, hyphens and underscores",
            quote(name)
        ));
    }
    if addr::peer_id(name).is_ok() {
        return Err(format!(
            "{name} is a peer id, not a name; write `NAME: {{ id: {name} }}`"
        ));
    }
    Ok(())
}

fn known_peer(reader: &mut Reader<'_>) -> Option<KnownPeer> {
    let id = reader.required("id", "The peer's id.", &PEER_ID);
    let addrs = reader.list(
        "addrs",
        "Addresses to try before any circuit.",
        &DIAL_ADDR,
        &[],
    );
    let id = id?;
    for (index, endpoint) in addrs.iter().enumerate() {
        if let Some(problem) = other_peer(endpoint, id) {
            reader.contradiction("addrs", Some(index), problem);
        }
    }
    Some(KnownPeer {
        id,
        addrs: addrs.into_iter().map(|endpoint| endpoint.addr).collect(),
    })
}

/// The problem if `endpoint` names another peer than `expected`.
pub(super) fn other_peer(endpoint: &Endpoint, expected: PeerId) -> Option<String> {
    let named = endpoint.peer.filter(|named| *named != expected)?;
    Some(format!(
        "{endpoint} names the peer {named}, not {expected}; drop /p2p/{named} or give the right address"
    ))
}
