//! Transport addresses as users write them: a host, a transport and a port, with an optional peer id at the end.
//!
//! Other [multiaddrs](https://github.com/multiformats/multiaddr), which these programs can neither dial nor listen on, are
//! errors with the remedy.

use std::{fmt, net::IpAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::{Transport, quote};

/// Whether an address leads through a relay.
pub fn is_circuit(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Host, transport and port, and the expected peer if the address names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address without `/p2p`.
    pub addr: Multiaddr,
    /// The peer named by `/p2p` at the end.
    pub peer: Option<PeerId>,
    /// The host.
    pub host: Host,
    /// The transport.
    pub transport: Transport,
    /// The UDP or TCP port.
    pub port: u16,
}

/// The host of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name to resolve.
    Name(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        match self.peer {
            Some(peer) => write!(f, "/p2p/{peer}"),
            None => Ok(()),
        }
    }
}

/// Why a text is not a valid address or peer id. Prints the text and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {problem}; {remedy}", quote(.text))]
pub struct AddrError {
    text: String,
    problem: String,
    remedy: String,
}

impl AddrError {
    fn new(text: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            text: text.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// Parses a peer id: base58 (`12D3KooW...`) or a CID of version 1 (`bafz...`).
///
/// # Errors
/// If `text` is neither.
pub fn peer_id(text: &str) -> Result<PeerId, AddrError> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    peer_id_of_cid(text).ok_or_else(|| {
        AddrError::new(
            text,
            "is not a peer id",
            "give one such as 12D3KooW..., as `id` prints it on that host",
        )
    })
}

/// A peer id as a CID of version 1 in base 36 (`k51...`): one case, and short enough for a label of a host name.
#[must_use]
pub fn base36(peer: &PeerId) -> String {
    let bytes = [&VERSION_1_LIBP2P_KEY[..], &peer.to_bytes()].concat();
    multibase::encode(multibase::Base::Base36Lower, bytes)
}

/// Parses an address that these programs can use, with or without `/p2p/<id>` at the end.
///
/// # Errors
/// If `text` is not a multiaddr, or is neither QUIC v1 nor TCP.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "multiaddr has forty protocols, of which these programs support a few"
)]
pub fn endpoint(text: &str) -> Result<Endpoint, AddrError> {
    let wrong = |problem: &str, remedy: &str| Err(AddrError::new(text, problem, remedy));
    if text.is_empty() || !text.starts_with('/') {
        return wrong("is not a multiaddr", EXAMPLE);
    }
    let addr: Multiaddr = text
        .parse()
        .map_err(|error| AddrError::new(text, format!("is not a multiaddr: {error}"), EXAMPLE))?;
    let parts: Vec<Protocol<'_>> = addr.iter().collect();
    if is_circuit(&addr) {
        return wrong(
            "is a circuit through a relay",
            "give the transport address alone, without /p2p-circuit",
        );
    }
    let (parts, peer) = match parts.split_last() {
        Some((Protocol::P2p(peer), rest)) => (rest, Some(*peer)),
        _ => (parts.as_slice(), None),
    };
    let Some((host, rest)) = parts.split_first() else {
        return wrong("names no host", EXAMPLE);
    };
    let (transport, port) = match rest {
        [Protocol::Udp(port), Protocol::QuicV1] => (Transport::Quic, *port),
        [Protocol::Tcp(port)] => (Transport::Tcp, *port),
        [Protocol::Udp(port)] => {
            return Err(AddrError::new(
                text,
                "names no transport over UDP",
                format!("append /quic-v1: {host}/udp/{port}/quic-v1"),
            ));
        }
        [Protocol::Udp(_), Protocol::Quic] => {
            return wrong(
                "is QUIC draft 29, which is obsolete",
                "write /quic-v1 for /quic",
            );
        }
        [] => return wrong("names neither transport nor port", EXAMPLE),
        _ => {
            return wrong(
                "is not a supported transport",
                "use /udp/PORT/quic-v1 or /tcp/PORT after the host",
            );
        }
    };
    let host = match host {
        Protocol::Ip4(ip) => Host::Ip(IpAddr::V4(*ip)),
        Protocol::Ip6(ip) => Host::Ip(IpAddr::V6(*ip)),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            if !is_host_name(name) {
                return wrong(
                    "has no valid host name",
                    "give a name such as relay.example.net",
                );
            }
            Host::Name(name.to_string())
        }
        Protocol::Dnsaddr(_) => {
            return wrong(
                "needs a TXT lookup, which is not supported",
                "give the addresses themselves, or /dns/NAME",
            );
        }
        _ => return wrong("names no host", "begin with /ip4, /ip6 or /dns"),
    };
    Ok(Endpoint {
        addr: parts.iter().cloned().collect(),
        peer,
        host,
        transport,
        port,
    })
}

/// Parses an address to listen on: an IP address of this host, without a name or a peer id.
///
/// # Errors
/// As [`endpoint`], and if the address has a name or a peer id.
pub fn listen(text: &str) -> Result<Endpoint, AddrError> {
    let endpoint = endpoint(text)?;
    if let Host::Name(name) = &endpoint.host {
        return Err(AddrError::new(
            text,
            format!("names {name}, and a socket binds to an IP address"),
            "listen on an IP address, such as 0.0.0.0 or ::",
        ));
    }
    if endpoint.peer.is_some() {
        return Err(AddrError::new(
            text,
            "names a peer id",
            "listen addresses have none; drop /p2p/<id>",
        ));
    }
    Ok(endpoint)
}

/// Parses an address to dial: one host and one port.
///
/// # Errors
/// As [`endpoint`], and if only a listener can use the address.
pub fn dialable(text: &str) -> Result<Endpoint, AddrError> {
    let endpoint = endpoint(text)?;
    if endpoint.port == 0 {
        return Err(AddrError::new(
            text,
            "has port 0, which cannot be dialed",
            "give the port of the listener",
        ));
    }
    match endpoint.host {
        Host::Ip(ip) if ip.is_unspecified() => Err(AddrError::new(
            text,
            format!("has the address {ip}, which cannot be dialed"),
            "give the address of the host",
        )),
        Host::Ip(ip) if ip.is_multicast() => Err(AddrError::new(
            text,
            format!("has the multicast address {ip}, which cannot be dialed"),
            "give the address of one host",
        )),
        Host::Ip(_) | Host::Name(_) => Ok(endpoint),
    }
}

const EXAMPLE: &str = "write /ip4/203.0.113.10/udp/4001/quic-v1 or /dns/relay.example.net/tcp/4001";

/// Whether `name` can be a host's name: labels of 1 to 63 letters, digits, hyphens and underscores, 253 in all
/// ([RFC 1123](https://www.rfc-editor.org/rfc/rfc1123#page-13); the underscore is not part of it, but occurs inside clusters).
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// The peer of a CID: multibase, version 1, codec libp2p-key, multihash
/// (<https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#string-representation>).
/// A CID of version 1, and its codec.
const VERSION_1_LIBP2P_KEY: [u8; 2] = [0x01, 0x72];

fn peer_id_of_cid(text: &str) -> Option<PeerId> {
    let (_, bytes) = multibase::decode(text).ok()?;
    PeerId::from_bytes(bytes.strip_prefix(&VERSION_1_LIBP2P_KEY)?).ok()
}

#[cfg(test)]
mod tests;
