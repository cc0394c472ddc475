//! Each key: what it means, its kind, its default.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use p2pnode_daemon::{
    admin,
    config::{
        Form, Kind, Reader,
        kind::{
            BYTES_LIMIT, COUNT, DURATION_LIMIT, LIMIT, LISTEN_ADDR, LOG_FILTER, LOG_FORMAT, PATH,
            SOCKET_ADDR, SOCKET_PATH,
        },
    },
    memory,
};
use p2pnode_protocol::addr::{self, Endpoint};
use p2pnode_protocol::quote;

use super::{Config, Limits, Listen, Log, PerSource, Stun, access};

/// Both transports and families on the port that libp2p registered. It is above 1023, so the default runs unprivileged; a
/// public relay does better on 443, which more firewalls let out to.
const LISTEN: &[&str] = &[
    "/ip4/0.0.0.0/udp/4001/quic-v1",
    "/ip4/0.0.0.0/tcp/4001",
    "/ip6/::/udp/4001/quic-v1",
    "/ip6/::/tcp/4001",
];

impl Config {
    /// Reads and checks every key.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let state = reader.directories().state;
        let key_file = reader.computed(
            "identity.key_file",
            "File of the relay's key, made with mode 0600 on first start. Default: \
             $XDG_STATE_HOME/relay-node/identity.key, as root /var/lib/relay-node/identity.key.",
            &PATH,
            state.map(|state| state.join("identity.key")),
        );
        let listen = reader.list(
            "listen",
            "Addresses to listen on. Of the default, those of an IP family that the host lacks are left out.",
            &LISTEN_ADDR,
            LISTEN,
        );
        if listen.is_empty() {
            let problem =
                "is an empty list; give at least one address, or leave the key out".to_owned();
            reader.contradiction("listen", None, problem);
        }
        let given = reader.is_given("listen");
        let external = reader.list(
            "external",
            "Addresses at which peers reach the relay, if its interfaces do not have them: behind a NAT or a load balancer, \
             or by name.",
            &EXTERNAL_ADDR,
            &[],
        );
        for (index, endpoint) in external.iter().enumerate() {
            let of_transport = |listener: &Endpoint| listener.transport == endpoint.transport;
            if !listen.is_empty() && !listen.iter().any(of_transport) {
                let problem = format!(
                    "{endpoint} cannot be served: no address of listen is {}; add one, or remove this address",
                    endpoint.transport
                );
                reader.contradiction_of("external", Some(index), &["listen"], problem);
            }
        }
        let relays = reader.list(
            "relays",
            "Other relays, each with its peer id. Peers of either are found through both. Each names the other.",
            &RELAY,
            &[],
        );
        let stun = stun(reader, &relays);
        let access = access::read(reader);
        let limits = limits(reader);
        let drain_timeout = reader.one(
            "drain.timeout",
            "How long open circuits may go on after SIGTERM or SIGINT; 0: not at all.",
            &DRAIN_TIMEOUT,
            // Kubernetes kills what has not ended after 30 s, and connections take up to 2 s to close.
            "25s",
        );
        let admin = reader.optional(
            "admin.listen",
            "Address of the admin HTTP server with /livez, /readyz, /metrics and a page at /. None by default.",
            &SOCKET_ADDR,
        );
        let (admin_hosts, admin_page) = admin::keys(reader);
        let control = control(reader);
        let log = Log {
            level: reader.one(
                "log.level",
                "What to log to stderr: a level, or a filter such as info,libp2p_relay=debug.",
                &LOG_FILTER,
                // The swarm says at info what the relay says itself; yamux warns of every connection that is cut off.
                "info,libp2p_swarm=warn,yamux=error",
            ),
            format: reader.one("log.format", "How log lines look.", &LOG_FORMAT, "text"),
        };
        Self {
            key_file: key_file.unwrap_or_default(),
            listen: Listen {
                addrs: listen.into_iter().map(|endpoint| endpoint.addr).collect(),
                given,
            },
            external: external.into_iter().map(|endpoint| endpoint.addr).collect(),
            relays,
            stun,
            limits,
            access,
            drain_timeout,
            admin,
            admin_hosts,
            admin_page,
            control,
            log,
        }
    }
}

/// A relay without a home, as in a container, is no worse for having no control socket: only a path that is given counts there.
fn control(reader: &mut Reader<'_>) -> Option<PathBuf> {
    const KEY: &str = "control.socket";
    const DOC: &str = "Path of the control socket. Default: $XDG_RUNTIME_DIR/relay-node/control.sock, as root \
        /run/relay-node/control.sock.";
    match reader.directories().runtime {
        Ok(runtime) => reader.computed(KEY, DOC, &SOCKET_PATH, Ok(runtime.join("control.sock"))),
        Err(_) => reader.optional(KEY, DOC, &SOCKET_PATH),
    }
}

/// STUN's own port is above 1023. A relay that names another in `relays` is named there as well, so both are partners.
fn stun(reader: &mut Reader<'_>, relays: &[(PeerId, Multiaddr)]) -> Stun {
    let listen = reader.list(
        "stun.listen",
        "Addresses of the second port on which STUN is answered, over UDP and TCP; [] for none. The ports of QUIC and TCP answer it \
         too. Of the default, those that cannot be bound are left out.",
        &SOCKET_ADDR,
        &["0.0.0.0:3478", "[::]:3478"],
    );
    let partners = reader.list(
        "stun.partner",
        "IP addresses of another relay, one of each family, which has the same ports and names this one. Each answers STUN for the \
         other, so that peers learn how their NAT filters. Default: the IP addresses in `relays`.",
        &IP_ADDR,
        &[],
    );
    let ip = |(_, addr): &(PeerId, Multiaddr)| match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    Stun {
        listen,
        given: reader.is_given("stun.listen"),
        partners: if reader.is_given("stun.partner") {
            partners
        } else {
            relays.iter().filter_map(ip).collect()
        },
    }
}

/// The defaults carry the real traffic of a private fleet: peers that cannot get a direct connection stay on their circuit
/// for as long as they need it. Counts are bounded, because each costs memory and file descriptors; time and bytes are not,
/// because cutting a circuit only makes its peers open the next.
fn limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        reservations: reader.one(
            "limits.reservations",
            "Reservations in all; 0: no limit.",
            &COUNT,
            "4096",
        ),
        // One for each connection that a node holds: (QUIC, TCP) x (IPv4, IPv6), twice while it reconnects.
        reservations_per_peer: reader.one(
            "limits.reservations_per_peer",
            "Reservations of one peer, which takes one per connection to the relay; 0: no limit.",
            &COUNT,
            "8",
        ),
        // A thousand peers behind one NAT, or in one cluster, with a reservation each; a quarter of all.
        reservations_per_source: PerSource {
            ip4: reader.one(
                "limits.reservations_per_ip4",
                "Reservations of all peers behind one IPv4 address; 0: no limit.",
                &COUNT,
                "1024",
            ),
            ip6_net: reader.one(
                "limits.reservations_per_ip6_net",
                "Reservations of all peers in one IPv6 /64; 0: no limit.",
                &COUNT,
                "1024",
            ),
        },
        reservation_duration: reader.one(
            "limits.reservation_duration",
            "How long a reservation lasts unless it is renewed, which peers do in time; 0: no limit.",
            &DURATION_LIMIT,
            "1h",
        ),
        circuits: reader.one(
            "limits.circuits",
            "Circuits in all; 0: no limit.",
            &COUNT,
            "4096",
        ),
        // A service that many peers call through the relay has one circuit with each of them.
        circuits_per_peer: reader.one(
            "limits.circuits_per_peer",
            "Circuits of one peer; 0: no limit.",
            &COUNT,
            "1024",
        ),
        circuit_duration: reader.one(
            "limits.circuit_duration",
            "How long a circuit lasts; 0: no limit.",
            &DURATION_LIMIT,
            "0",
        ),
        circuit_bytes: reader.one(
            "limits.circuit_bytes",
            "Bytes that a circuit carries, both directions together; 0: no limit.",
            &BYTES_LIMIT,
            "0",
        ),
        // It slows and never cuts: what is cut is only dialed again.
        bytes_per_second_per_peer: reader.one(
            "limits.bytes_per_second_per_peer",
            "Bytes in a second that all circuits of one peer carry, both directions together; what comes faster waits; 0: no \
             limit.",
            &BYTES_LIMIT,
            "0",
        ),
        connections: reader.one(
            "limits.connections",
            "Connections in all; 0: no limit.",
            &LIMIT,
            "16384",
        ),
        connections_per_peer: reader.one(
            "limits.connections_per_peer",
            "Connections of one peer; 0: no limit.",
            &LIMIT,
            "16",
        ),
        // The same thousand peers, with QUIC and TCP, twice while they reconnect; a quarter of all.
        connections_per_source: PerSource {
            ip4: reader.one(
                "limits.connections_per_ip4",
                "Connections from one IPv4 address; 0: no limit.",
                &COUNT,
                "4096",
            ),
            ip6_net: reader.one(
                "limits.connections_per_ip6_net",
                "Connections from one IPv6 /64; 0: no limit.",
                &COUNT,
                "4096",
            ),
        },
        pending_connections: reader.one(
            "limits.pending_connections",
            "Incoming connections whose handshake is not over, of which QUIC and TCP may have three quarters each. If all are taken, \
             the oldest of the IPv4 address or IPv6 network that has the most ends for a new one. 0: no limit.",
            &LIMIT,
            "1024",
        ),
        // A fleet of ten relays that are full.
        records: reader.one(
            "limits.records",
            "Records of peers in the directory, including copies from other relays; 0: no limit.",
            &COUNT,
            "40960",
        ),
        memory: reader
            .computed(
                "limits.memory",
                "Resident memory of the process above which no new connection is taken, and connections are closed, first those \
                 that hold the most. 0: no limit. Default: 80 % of the limit of the cgroup; no limit without one.",
                &BYTES_LIMIT,
                Ok(memory::default_limit()),
            )
            .unwrap_or_default(),
    }
}

const IP_ADDR: Kind<IpAddr> = Kind {
    expects: "an IP address such as 203.0.113.20 or 2001:db8::20",
    form: Form::Text,
    parse: |text| {
        text.parse().map_err(|_| {
            format!(
                "{} is not an IP address; write 203.0.113.20 or 2001:db8::20, without a port",
                quote(text)
            )
        })
    },
    print: IpAddr::to_string,
};

const DRAIN_TIMEOUT: Kind<Duration> = Kind {
    expects: "a duration such as 30s or 5m, or 0 to end at once",
    ..DURATION_LIMIT
};

const RELAY: Kind<(PeerId, Multiaddr)> = Kind {
    expects: "a relay's address such as /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...",
    form: Form::Text,
    parse: |text| {
        let endpoint = addr::dialable(text).map_err(|error| error.to_string())?;
        match endpoint.peer {
            Some(peer) => Ok((peer, endpoint.addr)),
            None => Err(format!(
                "relay {} names no peer id; append /p2p/<id>, as `relay-node id` prints it there",
                quote(text)
            )),
        }
    },
    print: |(peer, addr)| format!("{addr}/p2p/{peer}"),
};

const EXTERNAL_ADDR: Kind<Endpoint> = Kind {
    expects: "an address such as /ip4/203.0.113.10/udp/4001/quic-v1 or /dns/relay.example.net/tcp/4001",
    form: Form::Text,
    parse: |text| {
        let endpoint = addr::dialable(text).map_err(|error| error.to_string())?;
        match endpoint.peer {
            None => Ok(endpoint),
            Some(_) => Err(format!(
                "{} names a peer, which is always this relay; drop /p2p/<id>",
                quote(text)
            )),
        }
    },
    print: Endpoint::to_string,
};
