//! Contradictions: values that are valid alone and invalid together.

use std::net::SocketAddr;

use p2pnode_daemon::config::Reader;
use p2pnode_protocol::addr::Endpoint;
use p2pnode_services::config::Listen;
use p2pnode_transports::{Family, Transport, to_socket_addr};

use super::{Config, Dial, Discovery, Mdns, Punch, RelayAddr};

/// The most names in `discovery.dns`: each dial resolves all of them.
const SERVICES: usize = 8;

/// A listener in the dial range would take a port that a punch needs, and in a capture it would look like a punch port.
pub(super) fn listen_outside_range(reader: &mut Reader<'_>, listen: &[Endpoint], dial: &Dial) {
    for (index, endpoint) in listen.iter().enumerate() {
        if dial.shared_range.contains(endpoint.port) {
            let problem = format!(
                "{endpoint} is in the dial range {}, whose ports are for dialing and punching; listen on a port outside it",
                dial.shared_range
            );
            reader.contradiction_of("listen", Some(index), &["dial.port_range"], problem);
        }
    }
}

/// Notes every contradiction of a configuration.
pub(super) fn contradictions(reader: &mut Reader<'_>, config: &Config) {
    if let Some(admin) = config
        .admin_listen
        .filter(|admin| config.dial.shared_range.contains(admin.port()))
    {
        let problem = format!(
            "{admin} is in the dial range {}, whose ports are for dialing and punching; listen on a port outside it",
            config.dial.shared_range
        );
        reader.contradiction_of("admin.listen", None, &["dial.port_range"], problem);
    }
    services(reader, config);
    if let Some(expose) = config.mappings.expose.first()
        && config.relays.is_empty()
    {
        let problem = "a relay has to check an exposed port from outside, and `relays` is empty; give --relay, or `relays`";
        let at = format!("expose.{}.target", expose.name);
        reader.contradiction_of(&at, None, &["relays"], problem.to_owned());
    }
    listeners(reader, config);
    for (index, addr) in config.listen.iter().enumerate() {
        if let Some(transport) = disabled(addr, &config.dial) {
            let problem = format!(
                "{addr} cannot be listened on: dial.transports has no {transport}; add it, or remove the address"
            );
            reader.contradiction("listen", Some(index), problem);
        }
    }
    for (index, relay) in config.relays.iter().enumerate() {
        let mut addresses = config
            .relays
            .iter()
            .filter(|other| other.peer == relay.peer);
        if addresses.all(|other| unusable(&other.addr, &config.dial).is_some())
            && let Some(why) = unusable(&relay.addr, &config.dial)
        {
            let problem = format!("relay {relay} cannot be dialed: {why}");
            reader.contradiction("relays", Some(index), problem);
        }
    }
    discovery(reader, &config.discovery, &config.dial);
    for (index, template) in config.punch.advertise.iter().enumerate() {
        if let Some(why) = unusable(&template.with_port(1), &config.dial) {
            let problem = format!("{template} cannot be punched: {why}");
            reader.contradiction("punch.advertise", Some(index), problem);
        }
    }
    punch(reader, &config.punch, &config.dial);
}

impl Config {
    /// The addresses of relays that are dialed: those over a transport that is switched on. Each relay has one.
    pub(crate) fn dialed_relays(&self) -> Vec<RelayAddr> {
        let relays = self.relays.iter().cloned();
        let (on, off): (Vec<_>, Vec<_>) =
            relays.partition(|relay| disabled(&relay.addr, &self.dial).is_none());
        for relay in off {
            tracing::info!(own = tracing::field::Empty, %relay, "an address of a relay is skipped: dial.transports does not name its transport");
        }
        on
    }
}

/// A forward in the dial range would take a port that a punch needs.
fn services(reader: &mut Reader<'_>, config: &Config) {
    let forwards = config.services.forwards.iter().enumerate();
    let listens = forwards.filter_map(|(index, forward)| {
        let socket = forward.listen.socket()?;
        Some((p2pnode_services::config::listener(reader, index), socket))
    });
    let socks = config.services.socks;
    let socks = socks.map(|at| ("socks.listen".to_owned(), at));
    for (key, socket) in listens.chain(socks).collect::<Vec<_>>() {
        if let Some(problem) = in_dial_range(socket, &config.dial) {
            reader.contradiction_of(&key, None, &["dial.port_range"], problem);
        }
    }
}

/// Listeners of which only one can be there.
fn listeners(reader: &mut Reader<'_>, config: &Config) {
    let tcp = |at: SocketAddr| Listen::Tcp(at.ip(), at.port());
    let socks = config.services.socks.map(tcp);
    if let Some(admin) = config.admin_listen.map(tcp) {
        let is_socks = socks.as_ref().is_some_and(|socks| socks.clashes(&admin));
        let taken = is_socks
            .then(|| format!("socks.listen is {admin} as well; choose another address for one"));
        if let Some(problem) = taken.or_else(|| config.services.taken(&admin)) {
            reader.contradiction("admin.listen", None, problem);
        }
    }
    let control = Listen::Unix(config.control_socket.clone());
    if let Some(problem) = config.services.taken(&control) {
        reader.contradiction_of("control.socket", None, &["control.socket"], problem);
    }
    for (index, addr) in config.listen.iter().enumerate() {
        let (Some(transport), Some(at)) = (Transport::of(addr), to_socket_addr(addr)) else {
            continue;
        };
        let own = match transport {
            Transport::Tcp => tcp(at),
            Transport::Quic => Listen::Udp(at.ip(), at.port()),
        };
        if let Some(problem) = config.services.taken(&own) {
            reader.contradiction("listen", Some(index), problem);
        }
    }
}

/// What is wrong with a listener in the dial range.
pub(crate) fn in_dial_range(socket: SocketAddr, dial: &Dial) -> Option<String> {
    let range = &dial.shared_range;
    range.contains(socket.port()).then(|| {
        format!("{socket} is in the dial range {range}, whose ports are for dialing and punching; listen on a port outside it")
    })
}

/// Settings of a punch that leave nothing of each other.
fn punch(reader: &mut Reader<'_>, punch: &Punch, dial: &Dial) {
    for (index, template) in punch.advertise.iter().enumerate() {
        if !punch.permits(&template.with_port(1)) {
            let problem = format!(
                "{template} is never sent, because punch.allow or punch.deny forbids it; change one of them"
            );
            reader.contradiction("punch.advertise", Some(index), problem);
        }
    }
    for (index, allow) in punch.allow.iter().enumerate() {
        if let Some(deny) = punch.deny.iter().find(|deny| deny.covers(allow)) {
            let problem = format!(
                "{allow} has no effect, because {deny} of punch.deny covers it; remove one of them"
            );
            reader.contradiction("punch.allow", Some(index), problem);
        }
        let off = allow
            .transport()
            .filter(|of| is_off(*of, dial) && (dial.quic || dial.tcp));
        if let Some(transport) = off {
            let problem = format!(
                "{allow} has no effect, because dial.transports has no {transport}; add it, or remove the filter"
            );
            reader.contradiction("punch.allow", Some(index), problem);
        }
    }
}

fn discovery(reader: &mut Reader<'_>, discovery: &Discovery, dial: &Dial) {
    let services = &discovery.dns;
    for (index, service) in services.iter().enumerate() {
        if services[..index].iter().any(|other| other.is_same(service)) {
            let problem = format!("{service} is given twice; give it once");
            reader.contradiction("discovery.dns", Some(index), problem);
        }
    }
    if services.len() > SERVICES {
        let problem = format!(
            "has {} names, and each dial resolves all of them; put the peers behind at most {SERVICES} names",
            services.len()
        );
        reader.contradiction("discovery.dns", None, problem);
    }
    if discovery.mdns != Mdns::Off && dial.port_range.len() == 1 {
        let problem = format!(
            "is true and needs a second port, and dial.port_range {} has one; widen the range, or set false",
            dial.port_range
        );
        reader.contradiction("discovery.mdns", None, problem);
    }
}

/// Why `addr` cannot be dialed with these transports and families. A name counts as both families.
fn unusable(addr: &libp2p::Multiaddr, dial: &Dial) -> Option<String> {
    Transport::of(addr)?;
    if let Some(transport) = disabled(addr, dial) {
        return Some(format!(
            "dial.transports has no {transport}; add it, or give an address of another transport"
        ));
    }
    let family = Family::of(addr).filter(|family| !dial.family.allows(*family))?;
    Some(format!(
        "dial.family is {} and the address is {family}; change one of them",
        dial.family
    ))
}

/// The transport of `addr`, if it is switched off. An empty list of transports is reported as a fault of its own.
fn disabled(addr: &libp2p::Multiaddr, dial: &Dial) -> Option<Transport> {
    Transport::of(addr).filter(|of| is_off(*of, dial) && (dial.quic || dial.tcp))
}

const fn is_off(transport: Transport, dial: &Dial) -> bool {
    match transport {
        Transport::Quic => !dial.quic,
        Transport::Tcp => !dial.tcp,
    }
}
