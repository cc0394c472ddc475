//! Each key: what it means, its kind, its default.

use libp2p::{Multiaddr, PeerId};
use p2pnode_daemon::config::{
    Form, Kind, Reader,
    kind::{
        self, BOOL, COUNT, DIAL_ADDR, LISTEN_ADDR, LOG_FILTER, LOG_FORMAT, PATH, PEER_ID,
        SOCKET_ADDR,
    },
};
use p2pnode_protocol::addr::{self, Endpoint};
use p2pnode_protocol::quote;
use p2pnode_transports::{Congestion, FamilyPolicy, PortRange, Transport};

use super::{
    AdvertiseTemplate, Config, Dial, Discovery, Key, KnownPeer, Log, Mdns, Punch, PunchFilter,
    RelayAddr, Service, checks, share,
};

/// What a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A node that stays.
    Run,
    /// A `dial` of its own. It may live beside a running node with the same file: it takes a throwaway identity unless it is
    /// given a key, listens only where a flag says so, and has no admin server.
    Dial,
    /// A firewall, which is the same for all nodes that share the range: it needs neither a key nor an ordinal.
    Firewall,
}

impl Config {
    /// Reads and checks every key.
    pub fn read(reader: &mut Reader<'_>, purpose: Purpose) -> Self {
        let directories = reader.directories();

        let key = key(reader, purpose, directories.state);
        let listen = reader.list(
            "listen",
            "Public addresses to listen on, for hosts that have an open port. None by default: the punch sockets and \
             circuits accept. Not used by `dial`, unless given by flag.",
            &LISTEN_ADDR,
            &[],
        );
        let dial = dial(reader, purpose);
        let relays = reader.list(
            "relays",
            "Relays, each with its peer id. A relay may have several addresses; give one of each transport and family.",
            &RELAY,
            &[],
        );
        let reservations = reader.one(
            "reservations",
            "How many relays to hold a reservation on at once; 0: none, this node can then not be called through a relay.",
            &COUNT,
            "2",
        );
        let punch = Punch {
            enabled: reader.one(
                "punch.enabled",
                "Whether to punch holes; if not, peers behind NAT stay relayed.",
                &BOOL,
                "true",
            ),
            advertise: reader.list(
                "punch.advertise",
                "Addresses to advertise for punching besides the observed ones; {port} stands for the punch port.",
                &ADVERTISE,
                &[],
            ),
            allow: reader.list(
                "punch.allow",
                "If not empty, only candidates in one of these networks are sent and dialed.",
                &FILTER,
                &[],
            ),
            deny: reader.list(
                "punch.deny",
                "Candidates in one of these networks are neither sent nor dialed.",
                &FILTER,
                &[],
            ),
        };
        let discovery = discovery(reader, purpose);
        let peers = reader.entries(
            "peers",
            "Peers by name, for `dial NAME`.",
            peer_name,
            known_peer,
        );
        let access = reader.list(
            "access.allow",
            "Peers that may connect; every other one is refused. Empty: any peer may.",
            &PEER_ID,
            &[],
        );
        let join = reader.optional(
            "join.token_file",
            "File of join tokens, one a line, for relays that want one, as `relay-node token create` prints them. It is read again \
             when it changes.",
            &PATH,
        );
        let admin = reader.optional(
            "admin.listen",
            "Address of the admin HTTP server with /livez, /readyz and /metrics. None by default. Not used by `dial`.",
            &SOCKET_ADDR,
        );
        let control = reader.computed(
            "control.socket",
            "Path of the control socket. Default: $XDG_RUNTIME_DIR/p2pnode/control.sock, as root /run/p2pnode/control.sock.",
            &PATH,
            directories.runtime.map(|runtime| runtime.join("control.sock")),
        );
        let log = Log {
            level: reader.one(
                "log.level",
                "What to log to stderr: a level, or a filter such as info,quinn=debug.",
                &LOG_FILTER,
                match purpose {
                    // The swarm says at info what the node says itself; yamux warns of every connection that is cut off.
                    Purpose::Run => "info,libp2p_swarm=warn,yamux=error",
                    // Its output is its timeline; the log is for what goes wrong.
                    Purpose::Dial | Purpose::Firewall => "warn,yamux=error",
                },
            ),
            format: reader.one("log.format", "How log lines look.", &LOG_FORMAT, "text"),
        };

        let staying = purpose != Purpose::Dial;
        let listen = match staying || reader.is_flag("listen") {
            true => listen,
            false => Vec::new(),
        };
        checks::listen_beside_range(reader, &listen, &dial);
        let config = Self {
            key,
            listen: listen.into_iter().map(|endpoint| endpoint.addr).collect(),
            dial,
            relays,
            reservations,
            punch,
            discovery,
            peers,
            access: access.into_iter().collect(),
            join,
            admin: admin.filter(|_| staying),
            control: control.unwrap_or_default(),
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
    const DOC: &str = "File of the node's key, made with mode 0600 on first start. Default: \
        $XDG_STATE_HOME/p2pnode/identity.key, as root /var/lib/p2pnode/identity.key; `dial` takes a throwaway key instead.";
    match purpose {
        Purpose::Run => {
            let default = state.map(|state| state.join("identity.key"));
            Key::File(
                reader
                    .computed(NAME, DOC, &PATH, default)
                    .unwrap_or_default(),
            )
        }
        Purpose::Dial | Purpose::Firewall => reader
            .optional(NAME, DOC, &PATH)
            .map_or(Key::Throwaway, Key::File),
    }
}

fn dial(reader: &mut Reader<'_>, purpose: Purpose) -> Dial {
    let shared_range = reader.one(
        "dial.port_range",
        "The source ports that packets may leave from, both ends included; with dial.ports_per_ordinal, those of all nodes \
         together.",
        &PORT_RANGE,
        "40000-40050",
    );
    let ports_per_ordinal = reader.one(
        share::PORTS_PER_ORDINAL,
        "How many ports of the range each of the nodes has that share it, as pods behind one NAT do; 0: each has all. The \
         node with dial.ordinal 0 has the first ones, and so on. A range that is given by flag is taken as it is.",
        &COUNT,
        "0",
    );
    let ordinal = reader.optional(
        share::ORDINAL,
        "This node's number among those that share the range, from 0: in a pod of a StatefulSet, its label \
         apps.kubernetes.io/pod-index. Needed with dial.ports_per_ordinal.",
        &COUNT,
    );
    let is_shared = purpose != Purpose::Firewall && !reader.is_flag("dial.port_range");
    let port_range = match share::of(shared_range, ports_per_ordinal, ordinal) {
        Ok(port_range) if is_shared => port_range,
        Err(fault) if is_shared => {
            reader.contradiction(fault.key, None, fault.problem);
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
        "The congestion control of QUIC: cubic, or bbr (experimental), for paths that lose packets without being full.",
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
        family,
        congestion,
        quic: transports.contains(&Transport::Quic),
        tcp: transports.contains(&Transport::Tcp),
    }
}

fn discovery(reader: &mut Reader<'_>, purpose: Purpose) -> Discovery {
    let dns = reader.list(
        "discovery.dns",
        "Services, NAME:PORT, such as a headless one of the cluster. Each of their addresses may be the peer that is dialed: \
         all are tried before any relay.",
        &SERVICE,
        &[],
    );
    let mdns = reader.one(
        "discovery.mdns",
        "Whether to ask for peers by multicast DNS on the links of this host, and to answer those who ask (UDP port 5353); `dial` \
         asks only.",
        &BOOL,
        "false",
    );
    Discovery {
        dns,
        mdns: match (mdns, purpose) {
            (false, _) => Mdns::Off,
            (true, Purpose::Run | Purpose::Firewall) => Mdns::AskAndAnswer,
            (true, Purpose::Dial) => Mdns::Ask,
        },
    }
}

/// Names are letters, digits, hyphens and underscores, so that they stand for themselves in shells, keys and messages.
fn peer_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(format!(
            "{} is no name for a peer; use 1 to 63 letters, digits, hyphens and underscores",
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

/// What is wrong if `endpoint` names another peer than `expected`.
pub(super) fn other_peer(endpoint: &Endpoint, expected: PeerId) -> Option<String> {
    let named = endpoint.peer.filter(|named| *named != expected)?;
    Some(format!(
        "{endpoint} names the peer {named} but is to reach {expected}; drop /p2p/{named} or give the right address"
    ))
}

pub(super) const PORT_RANGE: Kind<PortRange> = Kind {
    expects: "a range of ports such as 40000-40050, or one port",
    form: Form::TextOrInteger,
    parse: kind::from_str,
    print: PortRange::to_string,
};

pub(super) const FAMILY: Kind<FamilyPolicy> = Kind {
    expects: "auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6",
    form: Form::Choice(&["auto", "prefer-ip4", "prefer-ip6", "only-ip4", "only-ip6"]),
    parse: kind::from_str,
    print: FamilyPolicy::to_string,
};

const CONGESTION: Kind<Congestion> = Kind {
    expects: "cubic or bbr",
    form: Form::Choice(&["cubic", "bbr"]),
    parse: kind::from_str,
    print: Congestion::to_string,
};

const TRANSPORT: Kind<Transport> = Kind {
    expects: "quic or tcp",
    form: Form::Choice(&["quic", "tcp"]),
    parse: |text| kind::choose(text, &[("quic", Transport::Quic), ("tcp", Transport::Tcp)]),
    print: Transport::to_string,
};

const SERVICE: Kind<Service> = Kind {
    expects: "a name and a port such as p2pnode.default.svc.cluster.local:443",
    form: Form::Text,
    parse: kind::from_str,
    print: Service::to_string,
};

const RELAY: Kind<RelayAddr> = Kind {
    expects: "a relay's address such as /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...",
    form: Form::Text,
    parse: relay,
    print: RelayAddr::to_string,
};

const ADVERTISE: Kind<AdvertiseTemplate> = Kind {
    expects: "an address such as /ip4/198.51.100.7/udp/{port}/quic-v1",
    form: Form::Text,
    parse: kind::from_str,
    print: AdvertiseTemplate::to_string,
};

const FILTER: Kind<PunchFilter> = Kind {
    expects: "a network, and perhaps a transport, such as 10.0.0.0/8 or fd00::/8 quic",
    form: Form::Text,
    parse: kind::from_str,
    print: PunchFilter::to_string,
};

fn relay(text: &str) -> Result<RelayAddr, String> {
    let endpoint = addr::dialable(text).map_err(|error| error.to_string())?;
    match endpoint.peer {
        Some(peer) => Ok(RelayAddr {
            peer,
            addr: endpoint.addr,
        }),
        None => Err(format!(
            "relay {} names no peer id; append /p2p/<id>, as `relay-node id` prints it",
            quote(text)
        )),
    }
}

/// The transport, family and port of addresses that were parsed as endpoints.
pub(super) fn parts(addr: &Multiaddr) -> (Option<Transport>, Option<p2pnode_transports::Family>) {
    (Transport::of(addr), p2pnode_transports::Family::of(addr))
}
