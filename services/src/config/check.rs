//! Services and forwards as written, and what contradicts itself in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use libp2p::PeerId;
use p2pnode_protocol::{addr, quote};

use super::{
    Address, Allow, Destination, Forward, Host, Identity, Listen, RawProtocol, Service,
    ServiceName, Source, Target, UDP_IDLE,
};

/// The peers that have a name.
pub type Peers = BTreeMap<String, PeerId>;

/// What the entries of services and forwards may name.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The peers that have a name.
    pub peers: Peers,
    /// Whether there are others whose entry is wrong: a name that is not known may be theirs.
    pub lacks_peers: bool,
    /// This node, if its id is known.
    pub own: Option<PeerId>,
    /// The addresses of this host.
    pub addresses: Vec<IpAddr>,
}

/// The entry of a service. Each value is valid alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawService {
    /// `target`.
    pub target: Target,
    /// `allow`: peer ids, names of `peers`, or `any`. Empty if it is not given.
    pub allow: Vec<String>,
    /// `identity`.
    pub identity: Identity,
    /// `protocol`.
    pub protocol: Option<RawProtocol>,
    /// `source`.
    pub source: Source,
    /// `udp_idle`, if it is given.
    pub udp_idle: Option<Duration>,
}

/// The entry of a forward. Each value is valid alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawForward {
    /// `listen`.
    pub listen: Listen,
    /// `to`.
    pub to: Vec<Destination>,
}

/// What is wrong: the key within the entry, the item if the key is a list, and the problem with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `allow`.
    pub key: &'static str,
    /// Which item of the key.
    pub item: Option<usize>,
    /// The value, why it is wrong, and the remedy.
    pub problem: String,
}

/// The service that `raw` describes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn service(name: ServiceName, raw: RawService, known: &Known) -> Result<Service, Vec<Fault>> {
    let mut faults = Vec::new();
    let allow = allow(&raw.allow, known, &mut faults);
    if raw.identity == Identity::Address {
        faults.extend(address_fault(&raw.target, &known.addresses));
    }
    if let (Some(protocol), true) = (&raw.protocol, raw.target.is_udp()) {
        let problem = format!(
            "{protocol} is a stream, and {} takes datagrams; drop protocol or give a tcp target",
            raw.target
        );
        faults.push(fault("protocol", problem));
    }
    if let (Some(idle), false) = (raw.udp_idle, raw.target.is_udp()) {
        let problem = format!(
            "{idle:?} is for datagrams, and {} takes none; drop udp_idle",
            raw.target
        );
        faults.push(fault("udp_idle", problem));
    }
    if let (Source::Range, Address::Unix(_)) = (raw.source, &raw.target) {
        let problem = format!(
            "range is for ports, and {} has none; drop source",
            raw.target
        );
        faults.push(fault("source", problem));
    }
    if raw.source == Source::Range && raw.identity == Identity::Address {
        let problem = "range dials from the node's own addresses, and identity: address from one for each peer; drop one of them";
        faults.push(fault("source", problem.to_owned()));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Service {
        name,
        target: raw.target,
        allow,
        identity: raw.identity,
        protocol: raw.protocol,
        source: raw.source,
        udp_idle: raw.udp_idle.unwrap_or(UDP_IDLE),
    })
}

/// The forward that `raw` describes. Nodes may share a configuration: of several peers, this node is left out.
///
/// # Errors
/// Everything that is wrong with it.
pub fn forward(raw: RawForward, known: &Known) -> Result<Forward, Vec<Fault>> {
    let mut faults = Vec::new();
    if raw.to.is_empty() {
        let problem = format!("nothing is brought to {}; give a SERVICE@PEER", raw.listen);
        faults.push(fault("to", problem));
    }
    let (mut to, mut own, mut is_whole) = (Vec::new(), None, true);
    for (item, destination) in raw.to.into_iter().enumerate() {
        let mut wrong = |problem| {
            faults.push(Fault {
                key: "to",
                item: Some(item),
                problem,
            });
        };
        let Some(peer) = peer(&destination.peer, &known.peers) else {
            if known.lacks_peers {
                is_whole = false;
            } else {
                wrong(unknown(&destination.peer, &known.peers));
            }
            continue;
        };
        if Some(peer) == known.own {
            own = Some(destination);
            continue;
        }
        if raw.listen.is_udp() && matches!(destination.what, super::What::Raw(_)) {
            wrong(format!(
                "{destination} is a stream, and {} takes datagrams; name a service, or listen on tcp",
                raw.listen
            ));
        }
        if to.contains(&(destination.what.clone(), peer)) {
            wrong(format!("{destination} is listed twice; drop one"));
        }
        to.push((destination.what, peer));
    }
    if let (Some(own), true, true) = (own, is_whole && to.is_empty(), faults.is_empty()) {
        let problem = format!(
            "{own} is this node itself, which reaches no service of its own; connect to the service's target, or name another peer"
        );
        faults.push(fault("to", problem));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Forward {
        listen: raw.listen,
        to,
    })
}

fn allow(items: &[String], known: &Known, faults: &mut Vec<Fault>) -> Allow {
    if items.is_empty() {
        let problem =
            "is missing; list peer ids or names under `peers:`, or write any to admit every peer";
        faults.push(fault("allow", problem.to_owned()));
    }
    let any = items.iter().any(|item| item == "any");
    if any && items.len() > 1 {
        let problem = "\"any\" admits every peer, and others are listed; drop any, or the others";
        faults.push(fault("allow", problem.to_owned()));
    }
    if any {
        return Allow::Any;
    }
    let mut allowed = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        match peer(item, &known.peers) {
            Some(peer) => {
                allowed.insert(peer);
            }
            None if known.lacks_peers => {}
            None => faults.push(Fault {
                key: "allow",
                item: Some(index),
                problem: unknown(item, &known.peers),
            }),
        }
    }
    if let (Some(own), 1, false) = (known.own, allowed.len(), known.lacks_peers)
        && allowed.contains(&own)
    {
        let problem = format!(
            "{own} is this node itself, which calls no service of its own; list the peers that call, or write any"
        );
        faults.push(fault("allow", problem));
    }
    Allow::Peers(allowed)
}

/// The kernel sends from 127.64.0.0/10 to addresses of this host, over IPv4.
fn address_fault(target: &Target, own: &[IpAddr]) -> Option<Fault> {
    let why = match target {
        Address::Unix(_) => "has no addresses",
        Address::Tcp(Host::Ip(IpAddr::V6(_)), _) | Address::Udp(Host::Ip(IpAddr::V6(_)), _) => {
            "is IPv6, which has one loopback address only"
        }
        Address::Tcp(Host::Ip(ip), _) | Address::Udp(Host::Ip(ip), _)
            if ip.is_loopback() || own.contains(ip) =>
        {
            return None;
        }
        Address::Tcp(Host::Ip(_), _) | Address::Udp(Host::Ip(_), _) => {
            "is not an address of this host"
        }
        Address::Tcp(Host::Name(_), _) | Address::Udp(Host::Name(_), _) => {
            "is a name, which may lead elsewhere"
        }
    };
    let problem = format!(
        "address needs an IPv4 target on this host, and {target} {why}; use identity: proxy-v2, or a target in 127.0.0.0/8"
    );
    Some(fault("identity", problem))
}

fn fault(key: &'static str, problem: String) -> Fault {
    Fault {
        key,
        item: None,
        problem,
    }
}

fn peer(text: &str, peers: &Peers) -> Option<PeerId> {
    let named = peers.get(text).copied();
    named.or_else(|| addr::peer_id(text).ok())
}

fn unknown(text: &str, peers: &Peers) -> String {
    const MANY: usize = 8;
    let mut names: Vec<&str> = peers.keys().take(MANY).map(String::as_str).collect();
    if peers.len() > MANY {
        names.push("...");
    }
    let names = match names.is_empty() {
        true => String::new(),
        false => format!(", or one of {}", names.join(", ")),
    };
    format!(
        "{} is neither a peer id nor a name under `peers:`; give an id such as 12D3KooW...{names}",
        quote(text)
    )
}
