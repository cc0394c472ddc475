//! The keys `services`, `forwards`, `socks` and `sessions`: what each means, its kind, its default.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use p2pnode_daemon::config::{
    Form, Kind, Reader,
    kind::{BYTES_LIMIT, DURATION, SOCKET_ADDR, choose, from_str},
};
use p2pnode_protocol::quote;

use super::{
    Destination, Fault, Forward, Identity, Known, Listen, RawForward, RawProtocol, RawService,
    Service, ServiceName, Source, Target, check,
};

/// What is offered and what is brought here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// The services of this node.
    pub services: BTreeMap<ServiceName, Service>,
    /// The services of other nodes, brought here.
    pub forwards: Vec<Forward>,
    /// Where SOCKS5 is spoken; `None`: nowhere.
    pub socks: Option<SocketAddr>,
    /// How long a session outlives its path.
    pub linger: Duration,
    /// What all sessions may hold, in bytes.
    pub memory: u64,
}

impl Services {
    /// What is wrong with another listener at `at`: a forward has the address.
    #[must_use]
    pub fn taken(&self, at: &Listen) -> Option<String> {
        let listens = self.forwards.iter().map(|forward| &forward.listen);
        let found = listens.into_iter().find(|listen| listen.clashes(at));
        found.map(|listen| {
            format!("a forward listens on {listen} as well; choose another address for one")
        })
    }
}

const TARGET: Kind<Target> = Kind {
    expects: "a target such as tcp://10.0.3.7:5432, udp://127.0.0.1:53 or unix:///run/app.sock",
    form: Form::Text,
    parse: from_str,
    print: Target::to_string,
};

const LISTEN: Kind<Listen> = Kind {
    expects: "an address such as tcp://127.0.0.1:5432, udp://127.0.0.1:53 or unix:///run/app.sock",
    form: Form::Text,
    parse: from_str,
    print: Listen::to_string,
};

const ALLOWED: Kind<String> = Kind {
    expects: "a peer id, a name under `peers:`, or any",
    form: Form::Text,
    // Whether there is such a peer is checked with all peers.
    parse: |text| match text.is_empty() {
        false => Ok(text.to_owned()),
        true => Err(format!(
            "{} names no peer; give a peer id, a name under `peers:`, or any",
            quote(text)
        )),
    },
    print: String::clone,
};

const IDENTITY: Kind<Identity> = Kind {
    expects: "none, proxy-v2 or address",
    form: Form::Choice(&["none", "proxy-v2", "address"]),
    parse: |text| choose(text, &Identity::NAMES),
    print: |identity| name(&Identity::NAMES, *identity),
};

const SOURCE: Kind<Source> = Kind {
    expects: "any or range",
    form: Form::Choice(&["any", "range"]),
    parse: |text| choose(text, &Source::NAMES),
    print: |source| name(&Source::NAMES, *source),
};

const PROTOCOL: Kind<RawProtocol> = Kind {
    expects: "a protocol such as /x/web",
    form: Form::Text,
    parse: from_str,
    print: RawProtocol::to_string,
};

/// Less would admit less than 128 sessions, each with a window of nothing.
const LEAST_MEMORY: u64 = 1 << 20;

const MEMORY: Kind<u64> = Kind {
    expects: "a size of at least 1MiB, such as 64MiB or 1GiB",
    parse: |text| {
        let memory = (BYTES_LIMIT.parse)(text)?;
        match memory < LEAST_MEMORY {
            true => Err(format!(
                "{} is too little for sessions, whose memory is always bounded; give at least 1MiB",
                quote(text)
            )),
            false => Ok(memory),
        }
    },
    ..BYTES_LIMIT
};

const DESTINATION: Kind<Destination> = Kind {
    expects: "a service and its peer such as db@west, or a raw protocol such as /x/web@west",
    form: Form::Text,
    parse: from_str,
    print: Destination::to_string,
};

/// Reads and checks the keys.
pub fn read(reader: &mut Reader<'_>, known: &Known) -> Services {
    let services = reader.entries(
        "services",
        "Services that this node offers, by name. A caller names a service, never an address.",
        |name| name.parse::<ServiceName>().map(drop),
        |reader| service(reader, known),
    );
    let forwards = reader.sections(
        "forwards",
        "Services of other nodes that are brought here.",
        |reader| forward(reader, known),
    );
    let socks = reader.optional(
        "socks.listen",
        "Address of a SOCKS5 server that connects to SERVICE.PEER.p2p. Default: none.",
        &SOCKET_ADDR,
    );
    let linger = reader.one(
        "sessions.linger",
        "How long a session outlives its path. The shorter time of both nodes counts. After that the session is reset on both sides.",
        &DURATION,
        "60s",
    );
    let memory = reader.one(
        "sessions.memory",
        "How many bytes all sessions may hold that are not delivered. A session needs 8 KiB of it, so it bounds their number. At most a quarter of limits.memory counts.",
        &MEMORY,
        "128MiB",
    );
    let services = services.into_iter().filter_map(|(name, mut service)| {
        // A name that does not parse has its fault.
        service.name = name.parse().ok()?;
        Some((service.name.clone(), service))
    });
    let config = Services {
        services: services.collect(),
        forwards,
        socks,
        linger,
        memory,
    };
    contradictions(reader, &config);
    config
}

fn service(reader: &mut Reader<'_>, known: &Known) -> Option<Service> {
    let target = reader.required(
        "target",
        "Where its connections go. It is dialed as written.",
        &TARGET,
    );
    let allow = reader.one_or_more(
        "allow",
        "Who may use it: peer ids, names under `peers:`, or any. It must be given.",
        &ALLOWED,
    );
    let is_given = reader.is_given("allow");
    reader.must_be_given("allow", ALLOWED.expects);
    let identity = reader.one(
        "identity",
        "How the target learns who calls. none: not at all. proxy-v2: by a header of the PROXY protocol, version 2, with the \
         client's address and the peer id. address: by a source address in 127.64.0.0/10 of its own for each peer.",
        &IDENTITY,
        "none",
    );
    let protocol = reader.optional(
        "protocol",
        "Protocol of a raw libp2p stream that leads to it as well, for other implementations.",
        &PROTOCOL,
    );
    let source = reader.one(
        "source",
        "From which ports the target is dialed. any: the target is inside. range: from dial.port_range.",
        &SOURCE,
        "any",
    );
    let udp_idle = reader.optional(
        "udp_idle",
        "How long a flow of datagrams lives without one. Default: 60s.",
        &DURATION,
    );
    let raw = RawService {
        target: target?,
        allow,
        identity,
        protocol,
        source,
        udp_idle,
    };
    // The key of the entry, which the caller knows.
    let name = "unnamed".parse().ok()?;
    match check::service(name, raw, known) {
        Ok(service) => Some(service),
        Err(faults) => {
            // What is not there, or is wrong in itself, has its fault.
            note(reader, faults, |fault| is_given || fault.key != "allow");
            None
        }
    }
}

fn forward(reader: &mut Reader<'_>, known: &Known) -> Option<Forward> {
    let listen = reader.required("listen", "Where clients connect.", &LISTEN);
    let to = reader.one_or_more(
        "to",
        "What they reach: SERVICE@PEER. Of several, the first that answers. This node itself is left out of several.",
        &DESTINATION,
    );
    let is_given = reader.is_given("to");
    reader.must_be_given("to", DESTINATION.expects);
    let raw = RawForward {
        listen: listen?,
        to,
    };
    match check::forward(raw, known) {
        Ok(forward) => Some(forward),
        Err(faults) => {
            note(reader, faults, |_| is_given);
            None
        }
    }
}

fn note(reader: &mut Reader<'_>, faults: Vec<Fault>, filter: impl Fn(&Fault) -> bool) {
    for fault in faults.into_iter().filter(|fault| filter(fault)) {
        reader.contradiction(fault.key, fault.item, fault.problem);
    }
}

/// What is valid alone and invalid together.
fn contradictions(reader: &mut Reader<'_>, config: &Services) {
    for (index, forward) in config.forwards.iter().enumerate() {
        let listen = &forward.listen;
        let mut others = config.forwards[..index].iter().map(|other| &other.listen);
        let problem = match others.find(|other| *other == listen || other.clashes(listen)) {
            Some(other) if other == listen => {
                format!("two forwards listen on {listen}; choose another address for one")
            }
            Some(other) => format!(
                "{listen} is taken by the forward that listens on {other}; choose another address for one"
            ),
            None => continue,
        };
        reader.contradiction(&listener(reader, index), None, problem);
    }
    if let Some(socks) = config.socks {
        let at = Listen::Tcp(socks.ip(), socks.port());
        if let Some(problem) = config.taken(&at) {
            reader.contradiction("socks.listen", None, problem);
        }
    }
    let mut protocols = BTreeMap::new();
    for (name, service) in &config.services {
        if let Some(protocol) = &service.protocol
            && let Some(other) = protocols.insert(protocol.clone(), name.clone())
        {
            let problem = format!(
                "{other} and {name} both have the protocol {protocol}; choose another one for one of them"
            );
            reader.contradiction(&format!("services.{name}.protocol"), None, problem);
        }
    }
}

/// The key of a forward's listener. Forwards with faults are not counted, so behind them it is the key of all.
#[must_use]
pub fn listener(reader: &Reader<'_>, index: usize) -> String {
    match reader.has_fault_of("forwards") {
        true => "forwards".to_owned(),
        false => format!("forwards.{index}.listen"),
    }
}

fn name<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> String {
    let found = names.iter().find(|(_, named)| *named == value);
    found.map_or_else(String::new, |(name, _)| (*name).to_owned())
}
