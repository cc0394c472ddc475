//! Binding: every configured address, or a one-line error that says which not, why, and what to do.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use libp2p::{
    Multiaddr, Swarm, TransportError, core::transport::ListenerId, multiaddr::Protocol,
    swarm::NetworkBehaviour,
};
use socket2::{Domain, Socket, Type};

/// An address on which the relay cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {problem}")]
pub struct Error {
    address: Multiaddr,
    problem: Problem,
}

/// Why, and the remedy.
#[derive(Debug)]
enum Problem {
    Occupied(Port),
    Privileged(Port),
    NotOurs,
    NoFamily,
    Unsupported,
    Other(io::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied(port) => write!(
                f,
                "{port} is in use by another process (`{}` names it); stop that process or give another port with --listen",
                port.holder()
            ),
            Self::Privileged(port) => write!(
                f,
                "{port} needs privilege; grant CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep` on the binary, or \
                 the capability in the pod's securityContext) or give a port from 1024 up with --listen"
            ),
            Self::NotOurs => f.write_str(
                "no interface of this host has that address; listen on /ip4/0.0.0.0 or /ip6/:: and give the address with \
                 --external",
            ),
            Self::NoFamily => {
                f.write_str("this host does not have that IP family; remove the address from `listen`")
            }
            Self::Unsupported => f.write_str(
                "neither QUIC nor TCP on an IP address; give /ip4/ADDRESS/udp/PORT/quic-v1 or /ip4/ADDRESS/tcp/PORT (or \
                 /ip6)",
            ),
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Port {
    Udp(u16),
    Tcp(u16),
}

impl Port {
    fn of(address: &Multiaddr) -> Option<Self> {
        address.iter().find_map(|part| {
            if let Protocol::Udp(port) = part {
                Some(Self::Udp(port))
            } else if let Protocol::Tcp(port) = part {
                Some(Self::Tcp(port))
            } else {
                None
            }
        })
    }

    fn number(self) -> u16 {
        match self {
            Self::Udp(port) | Self::Tcp(port) => port,
        }
    }

    fn holder(self) -> String {
        match self {
            Self::Udp(port) => format!("ss -ulpn sport = :{port}"),
            Self::Tcp(port) => format!("ss -tlpn sport = :{port}"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(port) => write!(f, "UDP port {port}"),
            Self::Tcp(port) => write!(f, "TCP port {port}"),
        }
    }
}

/// The listeners and the addresses that each has reported.
///
/// A listener on a wildcard address reports one address per interface, and only once it has looked.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    reported: HashMap<ListenerId, (Multiaddr, BTreeSet<Multiaddr>)>,
}

impl Listeners {
    /// Binds all of `addresses`; the first that cannot be bound is the error.
    pub(crate) fn bind<B: NetworkBehaviour>(
        swarm: &mut Swarm<B>,
        addresses: &[Multiaddr],
    ) -> Result<Self, Error> {
        let mut reported = HashMap::new();
        for address in addresses {
            let failed = |problem| Error {
                address: address.clone(),
                problem,
            };
            probe(address).map_err(|error| failed(problem(address, error)))?;
            let id = swarm.listen_on(address.clone()).map_err(|error| {
                failed(match error {
                    TransportError::MultiaddrNotSupported(_) => Problem::Unsupported,
                    TransportError::Other(error) => problem(address, error),
                })
            })?;
            reported.insert(id, (address.clone(), BTreeSet::new()));
        }
        Ok(Self { reported })
    }

    /// A listener reported an address.
    pub(crate) fn up(&mut self, id: ListenerId, address: Multiaddr) {
        if let Some((_, addresses)) = self.reported.get_mut(&id) {
            addresses.insert(address);
        }
    }

    /// A listener lost an address.
    pub(crate) fn down(&mut self, id: ListenerId, address: &Multiaddr) {
        if let Some((_, addresses)) = self.reported.get_mut(&id) {
            addresses.remove(address);
        }
    }

    /// What it means that the listener on `addresses` is gone for good.
    pub(crate) fn closed(
        &self,
        addresses: &[Multiaddr],
        reason: Result<(), io::Error>,
    ) -> anyhow::Error {
        let addresses: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
        let addresses = addresses.join(", ");
        match reason {
            Ok(()) => anyhow::anyhow!("the listener on {addresses} closed; start the relay again"),
            Err(error) => anyhow::anyhow!(
                "the listener on {addresses} failed: {error}; start the relay again"
            ),
        }
    }

    /// The configured addresses on which nothing listens at the moment.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Multiaddr> {
        self.reported
            .values()
            .filter(|(_, addresses)| addresses.is_empty())
            .map(|(configured, _)| configured)
    }
}

/// Tries to bind `address` before libp2p does.
///
/// libp2p's TCP listeners set SO_REUSEPORT, so a second relay of the same user would bind an occupied port without an
/// error and take part of the connections of the first. Its QUIC transport wraps the system's error so that its number
/// cannot be had.
fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    let (kind, port) = match parts.next() {
        Some(Protocol::Tcp(port)) => (Type::STREAM, port),
        Some(Protocol::Udp(port)) => (Type::DGRAM, port),
        _ => return Ok(()),
    };
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // As libp2p's listeners: the wildcard of IPv6 leaves IPv4 alone.
        socket.set_only_v6(true)?;
    }
    if kind == Type::DGRAM {
        return socket.bind(&address.into());
    }
    // A port that only TIME_WAIT holds is free.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn problem(address: &Multiaddr, error: io::Error) -> Problem {
    match (error.kind(), Port::of(address)) {
        (io::ErrorKind::AddrInUse, Some(port)) => Problem::Occupied(port),
        (io::ErrorKind::PermissionDenied, Some(port)) if port.number() < 1024 => {
            Problem::Privileged(port)
        }
        // The wildcard of a family that is switched off (net.ipv6.conf.all.disable_ipv6) gives this error too.
        (io::ErrorKind::AddrNotAvailable, _) if is_wildcard(address) => Problem::NoFamily,
        (io::ErrorKind::AddrNotAvailable, _) => Problem::NotOurs,
        _ if error.raw_os_error() == Some(EAFNOSUPPORT) => Problem::NoFamily,
        _ => Problem::Other(error),
    }
}

fn is_wildcard(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => ip.is_unspecified(),
        _ => false,
    }
}

/// Linux's number for "address family not supported by protocol", for which [`io::ErrorKind`] has no stable name.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    fn message(text: &str, error: io::Error) -> String {
        let address = address(text);
        Error {
            problem: problem(&address, error),
            address,
        }
        .to_string()
    }

    #[test]
    fn an_occupied_port_is_named_with_the_remedy() {
        let text = message(
            "/ip4/0.0.0.0/udp/443/quic-v1",
            io::Error::from_raw_os_error(98),
        );
        assert_eq!(
            text,
            "cannot listen on /ip4/0.0.0.0/udp/443/quic-v1: UDP port 443 is in use by another process \
             (`ss -ulpn sport = :443` names it); stop that process or give another port with --listen"
        );
    }

    #[test]
    fn a_privileged_port_names_the_capability() {
        let text = message("/ip4/0.0.0.0/tcp/443", io::Error::from_raw_os_error(13));
        assert!(
            text.contains("TCP port 443") && text.contains("CAP_NET_BIND_SERVICE"),
            "{text}"
        );
    }

    #[test]
    fn an_address_of_another_host_and_a_missing_family_say_so() {
        let text = message("/ip4/192.0.2.1/tcp/443", io::Error::from_raw_os_error(99));
        assert!(text.contains("no interface of this host"), "{text}");
        for (address, code) in [("/ip6/::/tcp/443", 97), ("/ip6/::/udp/443/quic-v1", 99)] {
            let text = message(address, io::Error::from_raw_os_error(code));
            assert!(text.contains("IP family"), "{text}");
        }
    }

    #[test]
    fn a_port_that_another_socket_holds_is_refused_by_the_probe() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let tcp_port = tcp.local_addr().expect("bound").port();
        let udp_port = udp.local_addr().expect("bound").port();
        for taken in [
            format!("/ip4/127.0.0.1/tcp/{tcp_port}"),
            format!("/ip4/127.0.0.1/udp/{udp_port}/quic-v1"),
        ] {
            let error = probe(&address(&taken)).expect_err("occupied");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
