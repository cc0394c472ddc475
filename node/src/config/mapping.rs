//! Port mappings of the router: how they are asked for, where they are published, and which ports are exposed for other programs.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use p2pnode_daemon::config::{
    Form, Kind, Reader,
    kind::{self, HOST_NAME, PATH, SOCKET_ADDR},
};
use p2pnode_protocol::{escape, mapping::Protocol, quote};
use p2pnode_services::config::{Address, Identity, ServiceName, Target};

/// The name under which the ports of the node itself are published.
pub(crate) const PUNCH: &str = "punch";

/// Which ways to have ports mapped by the router are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MappingMode {
    /// None.
    Off,
    /// All, at once.
    Auto,
    /// PCP.
    Pcp,
    /// NAT-PMP.
    NatPmp,
    /// UPnP IGD.
    Upnp,
    /// None: what the NAT gives is kept up.
    Hold,
}

/// Everything about mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mappings {
    /// Which ways to have ports mapped by the router are tried.
    pub mode: MappingMode,
    /// Where what is proved is published.
    pub publish: Publish,
    /// Ports for programs of others.
    pub expose: Vec<Expose>,
}

impl Mappings {
    /// Nothing is asked for.
    pub(super) fn off() -> Self {
        Self {
            mode: MappingMode::Off,
            publish: Publish::default(),
            expose: Vec::new(),
        }
    }
}

/// Where what is proved is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Publish {
    /// A program and its arguments, run for each change.
    pub hook: Vec<String>,
    /// A file of JSON.
    pub file: Option<PathBuf>,
    /// A zone of the DNS.
    pub dns: Option<Dns>,
}

impl Publish {
    /// What cannot work on this host.
    pub(super) fn warnings(&self) -> Vec<String> {
        let hook = self.hook.first().map(Path::new);
        let hook = hook.filter(|hook| !hook.is_file()).map(|hook| {
            format!(
                "mappings.publish.hook: there is no file {} on this host",
                escape(hook.display())
            )
        });
        let folder = self.file.as_deref().and_then(Path::parent);
        let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
        let folder = folder.filter(missing).map(|folder| {
            format!(
                "mappings.publish.file: there is no directory {} on this host; create it",
                escape(folder.display())
            )
        });
        hook.into_iter().chain(folder).collect()
    }
}

/// A zone that takes updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dns {
    /// The primary server of the zone.
    pub server: SocketAddr,
    /// The zone.
    pub zone: String,
    /// The name of the TSIG key, and the file of its secret.
    pub tsig: Option<(String, PathBuf)>,
}

/// A port of the range that leads to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expose {
    /// Its name.
    pub name: ServiceName,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where connections or datagrams go.
    pub target: Target,
    /// Whether the target learns the client's address by a header of the PROXY protocol.
    pub proxy: bool,
}

impl Expose {
    /// One whose target fits its protocol.
    ///
    /// # Errors
    ///
    /// What is wrong, and the remedy.
    pub(crate) fn new(
        name: ServiceName,
        protocol: Protocol,
        target: Target,
        identity: Identity,
    ) -> Result<Self, (&'static str, String)> {
        let fits = match target {
            Address::Udp(..) => protocol == Protocol::Udp,
            Address::Tcp(..) | Address::Unix(_) => protocol == Protocol::Tcp,
        };
        let of = protocol.name().to_lowercase();
        if !fits {
            let problem =
                format!("{target} takes no {of}; give a target of {of}, or the other protocol");
            return Err(("target", problem));
        }
        if identity == Identity::Address {
            let problem = "address stands for peers, and clients of an exposed port are none; write none or proxy-v2";
            return Err(("identity", problem.to_owned()));
        }
        Ok(Self {
            name,
            protocol,
            target,
            proxy: identity == Identity::ProxyV2,
        })
    }
}

const MAPPING_MODES: [(&str, MappingMode); 6] = [
    ("off", MappingMode::Off),
    ("auto", MappingMode::Auto),
    ("pcp", MappingMode::Pcp),
    ("nat-pmp", MappingMode::NatPmp),
    ("upnp", MappingMode::Upnp),
    ("hold", MappingMode::Hold),
];

const MAPPING_MODE: Kind<MappingMode> = Kind {
    expects: "off, auto, pcp, nat-pmp, upnp or hold",
    form: Form::Choice(&["off", "auto", "pcp", "nat-pmp", "upnp", "hold"]),
    parse: |text| kind::choose(text, &MAPPING_MODES),
    print: |mode| {
        let named = MAPPING_MODES.iter().find(|(_, named)| named == mode);
        named.map_or_else(String::new, |(name, _)| (*name).to_owned())
    },
};

const PROTOCOL: Kind<Protocol> = Kind {
    expects: "tcp or udp",
    form: Form::Choice(&["tcp", "udp"]),
    parse: |text| kind::choose(text, &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]),
    print: |protocol| protocol.name().to_lowercase(),
};

const TARGET: Kind<Target> = Kind {
    expects: "a target such as tcp://127.0.0.1:6881, udp://127.0.0.1:51820 or unix:///run/app.sock",
    form: Form::Text,
    parse: kind::from_str,
    print: Target::to_string,
};

const IDENTITY: Kind<Identity> = Kind {
    expects: "none or proxy-v2",
    form: Form::Choice(&["none", "proxy-v2"]),
    parse: |text| kind::choose(text, &Identity::NAMES),
    print: |identity| {
        let named = Identity::NAMES.iter().find(|(_, named)| named == identity);
        named.map_or_else(String::new, |(name, _)| (*name).to_owned())
    },
};

const WORD: Kind<String> = Kind {
    expects: "a program with its whole path, then its arguments",
    form: Form::Text,
    parse: |text| match text.contains('\0') {
        true => Err(format!(
            "{} has a zero byte, which no argument can have; remove it",
            quote(text)
        )),
        false => Ok(text.to_owned()),
    },
    print: String::clone,
};

/// Reads and checks the keys.
pub(super) fn read(reader: &mut Reader<'_>) -> Mappings {
    let mode = reader.one(
        "mappings.mode",
        "How to have the punch ports mapped by the router of IPv4: auto tries pcp, nat-pmp and upnp, \
         then hold. hold asks no router, and keeps what the NAT gives to traffic towards a relay. A relay checks each mapping \
         from outside, and only what is proved is offered. `dial` asks for no mapping.",
        &MAPPING_MODE,
        "off",
    );
    let publish = publish(reader);
    let expose = reader.entries(
        "expose",
        "Ports of the range for clients that are not p2pnode, by name: mapped by the router, checked from outside, published.",
        |name| name.parse::<ServiceName>().map(drop),
        expose,
    );
    let expose: Vec<Expose> = expose
        .into_iter()
        .filter_map(|(name, expose)| {
            let name = name.parse().ok()?;
            Some(Expose { name, ..expose })
        })
        .collect();
    if mode == MappingMode::Off && !expose.is_empty() {
        let problem = "an exposed port has to be mapped, and mappings.mode is off; set it to auto";
        let at = format!("expose.{}.target", expose[0].name);
        reader.contradiction_of(&at, None, &["mappings.mode"], problem.to_owned());
    }
    if expose.iter().any(|expose| expose.name.as_str() == PUNCH) {
        let problem = format!("{PUNCH} names the ports of the node itself; choose another name");
        reader.contradiction(&format!("expose.{PUNCH}.target"), None, problem);
    }
    Mappings {
        mode,
        publish,
        expose,
    }
}

fn publish(reader: &mut Reader<'_>) -> Publish {
    let hook = reader.list(
        "mappings.publish.hook",
        "A program and its arguments, run for each mapping that is proved, changes or ends, one at a time. Its environment has \
         MAPPING_NAME, MAPPING_STATE (up, changed or down), MAPPING_PROTOCOL, MAPPING_PUBLIC_IP, MAPPING_PUBLIC_PORT, \
         MAPPING_OLD_PUBLIC_IP, MAPPING_OLD_PUBLIC_PORT, MAPPING_PRIVATE_IP and MAPPING_PRIVATE_PORT.",
        &WORD,
        &[],
    );
    if hook
        .first()
        .is_some_and(|program| !program.starts_with('/'))
    {
        let problem = "the program needs its whole path, such as /etc/p2pnode/changed";
        reader.contradiction("mappings.publish.hook", Some(0), problem.to_owned());
    }
    let file = reader.optional(
        "mappings.publish.file",
        "A file of JSON with all mappings that are proved, replaced as a whole with each change.",
        &PATH,
    );
    let server = reader.optional(
        "mappings.publish.dns.server",
        "The primary server of a zone, to which DNS UPDATE is sent over UDP.",
        &SOCKET_ADDR,
    );
    let zone = reader.optional(
        "mappings.publish.dns.zone",
        "The zone that gets the records A, SRV, TXT and PTR.",
        &HOST_NAME,
    );
    let name = reader.optional(
        "mappings.publish.dns.tsig.name",
        "The name of the key that signs updates (TSIG, hmac-sha256).",
        &HOST_NAME,
    );
    let secret = reader.optional(
        "mappings.publish.dns.tsig.file",
        "The file of its secret: base64, or a key of BIND. It is read for each update.",
        &PATH,
    );
    for (key, is_given, other, is_other) in [
        (
            "mappings.publish.dns.server",
            server.is_some(),
            "zone",
            zone.is_some(),
        ),
        (
            "mappings.publish.dns.zone",
            zone.is_some(),
            "server",
            server.is_some(),
        ),
        (
            "mappings.publish.dns.tsig.name",
            name.is_some(),
            "tsig.file",
            secret.is_some(),
        ),
        (
            "mappings.publish.dns.tsig.file",
            secret.is_some(),
            "tsig.name",
            name.is_some(),
        ),
        (
            "mappings.publish.dns.tsig.name",
            name.is_some(),
            "server",
            server.is_some(),
        ),
    ] {
        if is_given && !is_other {
            let other = format!("mappings.publish.dns.{other}");
            let problem = format!("needs {other}; give it, or remove this key");
            reader.contradiction_of(key, None, &[&other], problem);
        }
    }
    let dns = server.zip(zone).map(|(server, zone)| Dns {
        server,
        zone,
        tsig: name.zip(secret),
    });
    Publish { hook, file, dns }
}

fn expose(reader: &mut Reader<'_>) -> Option<Expose> {
    let protocol = reader.required("protocol", "What clients speak: tcp or udp.", &PROTOCOL);
    let target = reader.required(
        "target",
        "Where connections or datagrams go. It is dialed as written, from any source port.",
        &TARGET,
    );
    let identity = reader.one(
        "identity",
        "How the target learns who calls. none: not at all. proxy-v2: by a header of the PROXY protocol, version 2, with the \
         client's address.",
        &IDENTITY,
        "none",
    );
    // The key of the entry, which the caller knows.
    let name = "unnamed".parse().ok()?;
    let made = Expose::new(name, protocol?, target?, identity);
    made.map_err(|(key, problem)| reader.contradiction(key, None, problem))
        .ok()
}
