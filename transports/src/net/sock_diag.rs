//! Asks the kernel which TCP connections hold ports: `sock_diag` ([sock_diag(7)](https://man7.org/linux/man-pages/man7/sock_diag.7.html), `linux/inet_diag.h`).
//!
//! That needs no privilege, and sees the connections of other processes and those that nobody owns any more. Where the kernel lacks it,
//! nothing is known.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use p2pnode_protocol::Family;

use super::{
    interfaces::netlink::{self, AF_INET, AF_INET6, HEADER},
    socket::{is_taken, wildcard},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
/// `struct inet_diag_msg`, in which the 4-tuple begins at 4 and has 48 bytes.
const FIXED: usize = 72;
const INET_DIAG_INFO: u16 = 2;
/// `tcpi_unacked` in `struct tcp_info`.
const UNACKED: usize = 24;
const TIMER_TIME_WAIT: u8 = 3;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A state of a connection, by its number in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State(u8);

impl State {
    const ESTABLISHED: Self = Self(1);
    pub(in crate::net) const TIME_WAIT: Self = Self(6);
    const LISTEN: Self = Self(10);

    /// All states of connections: a listener is none.
    const ALL: u32 = 0x1ffe & !(1 << Self::LISTEN.0);
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            1 => "ESTABLISHED",
            2 => "SYN_SENT",
            3 | 12 => "SYN_RECV",
            4 => "FIN_WAIT1",
            5 => "FIN_WAIT2",
            6 => "TIME_WAIT",
            8 => "CLOSE_WAIT",
            9 => "LAST_ACK",
            11 => "CLOSING",
            _ => return write!(f, "state {}", self.0),
        };
        f.write_str(name)
    }
}

/// A TCP connection of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The local port.
    pub(crate) port: u16,
    remote: SocketAddr,
    /// Its state.
    pub(crate) state: State,
    /// How long it lasts, if only a timer ends it.
    pub(crate) left: Option<Duration>,
    /// Segments that have left and are not acknowledged.
    unacked: Option<u32>,
}

impl Connection {
    /// Whether another connection with its 4-tuple can be made. In TIME_WAIT that depends on what the remote has sent.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.state != State::TIME_WAIT
    }
}

/// The connections of this host with this remote, by port.
pub(crate) fn toward(remote: SocketAddr) -> Vec<Connection> {
    let found = list(0, remote).unwrap_or_else(|error| {
        tracing::debug!(%error, "the kernel does not list its tcp connections");
        Vec::new()
    });
    let mut found: Vec<_> = found.iter().filter_map(|message| parse(message)).collect();
    found.retain(|connection| same(connection.remote, remote));
    found.sort_unstable_by_key(|connection| connection.port);
    found
}

/// How many segments of this connection have left and are not acknowledged. `None` if that is not known.
pub(crate) fn unacked(port: u16, remote: SocketAddr) -> Option<u32> {
    let found = list(port, remote).ok()?;
    let mut found = found.iter().filter_map(|message| parse(message));
    let of = |connection: &Connection| connection.port == port && same(connection.remote, remote);
    found.find(of)?.unacked
}

/// Whether the kernel keeps a connection of this port, in either family. One in TIME_WAIT does not count: its 4-tuple can be connected
/// again. The kernel walks over the table of all connections for a list, so a port that can be bound is asked for no list.
pub(crate) fn is_held(port: u16) -> bool {
    let mut taken = Family::ALL.into_iter();
    taken.any(|family| {
        if !is_taken(family, port) {
            return false;
        }
        // With the port 0, to any remote.
        let found = list(port, wildcard(family, 0)).unwrap_or_default();
        let mut found = found.iter().filter_map(|message| parse(message));
        found.any(|connection| connection.port == port && connection.is_in_the_way())
    })
}

/// Whether both ends have a connection of this port, or the kernel does not list any.
pub(crate) fn is_connected(port: u16, family: Family) -> bool {
    let Ok(found) = list(port, wildcard(family, 0)) else {
        return true;
    };
    let mut found = found.iter().filter_map(|message| parse(message));
    found.any(|connection| connection.port == port && connection.state == State::ESTABLISHED)
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip(), a.port()) == (b.ip(), b.port())
}

/// The messages about connections from this port, if it is not 0, to the port of the remote.
fn list(port: u16, remote: SocketAddr) -> io::Result<Vec<Vec<u8>>> {
    let mut list = Vec::new();
    let request = request(port, remote);
    netlink::read(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, &request, &mut list)?;
    Ok(list)
}

/// `struct inet_diag_req_v2`. A list is filtered by the ports alone.
fn request(port: u16, remote: SocketAddr) -> Vec<u8> {
    let family = match Family::from(remote.ip()) {
        Family::Ip4 => AF_INET,
        Family::Ip6 => AF_INET6,
    };
    let mut request = vec![family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
    request.extend(State::ALL.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend([0; 36]);
    request.extend(NO_COOKIE);
    request
}

fn parse(message: &[u8]) -> Option<Connection> {
    if netlink::u16_at(message, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let fixed = message.get(HEADER..HEADER + FIXED)?;
    let port_at = |at: usize| Some(u16::from_be_bytes(fixed.get(at..at + 2)?.try_into().ok()?));
    let length = match fixed[0] {
        AF_INET => 4,
        AF_INET6 => 16,
        _ => return None,
    };
    let remote: IpAddr = netlink::ip(fixed.get(24..24 + length)?)?;
    let state = State(fixed[1]);
    let expires = netlink::u32_at(fixed, 52)?;
    let info = message.get(HEADER + FIXED..).unwrap_or_default();
    let info = netlink::attribute(info, INET_DIAG_INFO);
    Some(Connection {
        port: port_at(4)?,
        remote: SocketAddr::new(remote, port_at(6)?),
        state,
        left: (fixed[2] == TIMER_TIME_WAIT).then(|| Duration::from_millis(expires.into())),
        unacked: info.and_then(|info| netlink::u32_at(info, UNACKED)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// A message about a connection from port 40000.
    fn message(state: u8, timer: u8, expires: u32, unacked: u32) -> Vec<u8> {
        let mut fixed = vec![AF_INET, state, timer, 0];
        fixed.extend(40_000_u16.to_be_bytes());
        fixed.extend(4001_u16.to_be_bytes());
        fixed.extend([10, 0, 0, 1]);
        fixed.extend([0; 12]);
        fixed.extend([192, 0, 2, 1]);
        fixed.extend([0; 12 + 12]);
        fixed.extend(expires.to_ne_bytes());
        fixed.resize(FIXED, 0);
        let mut info = vec![0; UNACKED];
        info.extend(unacked.to_ne_bytes());
        let length = u16::try_from(4 + info.len()).unwrap();
        fixed.extend(length.to_ne_bytes());
        fixed.extend(INET_DIAG_INFO.to_ne_bytes());
        fixed.extend(info);
        netlink::message(SOCK_DIAG_BY_FAMILY, 0, &fixed)
    }

    #[test]
    fn a_message_names_port_remote_state_and_what_is_left_of_a_time_wait() {
        let of = |state, timer| parse(&message(state, timer, 37_000, 5)).unwrap();
        let waits = of(6, TIMER_TIME_WAIT);
        assert_eq!(waits.port, 40_000);
        assert_eq!(waits.remote, "192.0.2.1:4001".parse().unwrap());
        assert_eq!(waits.left, Some(Duration::from_secs(37)));
        assert_eq!(waits.state.to_string(), "TIME_WAIT");
        assert!(!waits.is_in_the_way());
        // The timer of a retransmission is not the end.
        let closes = of(4, 1);
        assert_eq!((closes.left, closes.unacked), (None, Some(5)));
        assert!(closes.is_in_the_way());
        assert_eq!(closes.state.to_string(), "FIN_WAIT1");
    }

    #[test]
    fn a_port_is_held_until_its_last_connection_is_in_time_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = stream.local_addr().unwrap().port();
        let (mut accepted, _) = listener.accept().unwrap();
        assert!(is_held(port));
        // This side closes first. The kernel keeps the connection until the remote has closed, and its 4-tuple a minute longer.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        accepted.read_to_end(&mut Vec::new()).unwrap();
        assert!(is_held(port));
        drop(accepted);
        stream.read_to_end(&mut Vec::new()).unwrap();
        drop(stream);
        assert!(!is_held(port));
    }

    #[test]
    fn a_message_that_is_cut_short_names_nothing() {
        let whole = message(1, 0, 0, 0);
        for cut in 0..HEADER + FIXED {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        let of_another_family = [&whole[..HEADER], &[1], &whole[HEADER + 1..]].concat();
        assert_eq!(parse(&of_another_family), None);
    }

    #[test]
    fn the_kernel_knows_a_connection_and_that_all_of_it_is_acknowledged() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                continue;
            };
            let remote = listener.local_addr().unwrap();
            let mut stream = TcpStream::connect(remote).unwrap();
            let mut accepted = listener.accept().unwrap().0;
            stream.write_all(b"a").unwrap();
            accepted.read_exact(&mut [0]).unwrap();
            accepted.write_all(b"b").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let port = stream.local_addr().unwrap().port();
            let found = toward(remote);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].port, port);
            assert_eq!(found[0].state.to_string(), "ESTABLISHED");
            assert_eq!(unacked(port, remote), Some(0));
            assert_eq!(unacked(port, SocketAddr::new(remote.ip(), 1)), None);
        }
    }
}
