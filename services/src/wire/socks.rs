//! SOCKS5 ([RFC 1928](https://www.rfc-editor.org/rfc/rfc1928)), as much as a local client needs: `CONNECT` without authentication.
//!
//! The host is `SERVICE.PEER.p2p`. PEER is a name of `peers`, or a peer id as a CID in base 36, which fits in a label and has one
//! case. The port is of no importance: a service has a name.

use libp2p::PeerId;
use p2pnode_protocol::addr;

use crate::config::{Peers, ServiceName};

/// What a client sent, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// At least so many bytes further belong to the message, which has at most 262.
    Incomplete(usize),
    /// The message, and how many bytes it took.
    Complete(T, usize),
}

/// The answer to a request, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The session is open.
    Succeeded = 0,
    /// Anything that has no number of its own.
    Failed = 1,
    /// The host is no `SERVICE.PEER.p2p`.
    NotAllowed = 2,
    /// No path to the peer, or no peer of that name.
    HostUnreachable = 4,
    /// The peer refuses.
    Refused = 5,
    /// Only `CONNECT` is known.
    CommandNotSupported = 7,
    /// Services have names, not addresses.
    AddressNotSupported = 8,
}

p2pnode_protocol::named! {
    /// A client that is not served, whatever it wants. Each is a value of the label `reason` of `p2pnode_socks_refused_total`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    pub enum Refused {
        /// An earlier version, which has no names.
        #[error("it speaks SOCKS4: configure it for SOCKS5 with names, such as socks5h://")]
        Socks4 => "socks4",
        /// A request of HTTP.
        #[error("it speaks HTTP: configure it for SOCKS5 with names, such as socks5h://")]
        Http => "http",
        /// Anything else.
        #[error("it does not speak SOCKS5: configure it for SOCKS5 with names, such as socks5h://")]
        Other => "other",
        /// It offers no way without authentication.
        #[error("it wants to authenticate, and this server has no users: remove user and password from its configuration")]
        Authentication => "authentication",
        /// It sends nothing for too long.
        #[error("it did not ask in time")]
        Silent => "silent",
    }
}

impl Refused {
    /// What a client of this kind shows its user.
    #[must_use]
    pub const fn answer(self) -> &'static [u8] {
        match self {
            // Rejected, by any port of any address.
            Self::Socks4 => &[0, 91, 0, 0, 0, 0, 0, 0],
            Self::Http => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 31\r\nConnection: close\r\n\r\nThis is a SOCKS5 proxy server.\n"
            }
            Self::Authentication => &[VERSION, 0xff],
            Self::Other | Self::Silent => &[],
        }
    }
}

/// The answer to a greeting: no authentication.
pub const NO_AUTHENTICATION: [u8; 2] = [VERSION, 0];

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const IP4: u8 = 1;
const NAME: u8 = 3;
const IP6: u8 = 4;

/// The shortest request: a name without a letter, and the port.
const LEAST: usize = 7;

/// The greeting of a client that can do without authentication.
///
/// # Errors
/// If it is none.
pub fn greeting(bytes: &[u8]) -> Result<Step<()>, Refused> {
    match bytes {
        [] | [VERSION] => Ok(Step::Incomplete(2 - bytes.len())),
        [VERSION, count, rest @ ..] => match rest.get(..usize::from(*count)) {
            None => Ok(Step::Incomplete(usize::from(*count) - rest.len())),
            Some(methods) if methods.contains(&0) => Ok(Step::Complete((), 2 + methods.len())),
            Some(_) => Err(Refused::Authentication),
        },
        [4, ..] => Err(Refused::Socks4),
        // The name of a method.
        [b'A'..=b'Z', ..] => Err(Refused::Http),
        _ => Err(Refused::Other),
    }
}

/// The request: the host to connect to, or the reply that it gets instead.
///
/// # Errors
/// If it is none.
pub fn request(bytes: &[u8]) -> Result<Step<Result<String, Reply>>, Refused> {
    let (command, kind, rest) = match bytes {
        [VERSION, command, 0, kind, rest @ ..] => (*command, *kind, rest),
        [] | [VERSION] | [VERSION, _] | [VERSION, _, 0] => {
            return Ok(Step::Incomplete(LEAST - bytes.len()));
        }
        // What follows a reserved byte that is not 0, nobody knows: the reply ends the connection.
        [VERSION, ..] => return Ok(Step::Complete(Err(Reply::Failed), 3)),
        _ => return Err(Refused::Other),
    };
    let length = match (kind, rest.first()) {
        (IP4, _) => 4,
        (IP6, _) => 16,
        (NAME, None) => return Ok(Step::Incomplete(LEAST - bytes.len())),
        (NAME, Some(length)) => 1 + usize::from(*length),
        // How long the address is, nobody knows: the reply ends the connection.
        _ => return Ok(Step::Complete(Err(Reply::AddressNotSupported), 4)),
    };
    // Then the port.
    let Some(host) = rest.get(..length + 2).map(|_| &rest[..length]) else {
        return Ok(Step::Incomplete(length + 2 - rest.len()));
    };
    let wanted = match (command, kind) {
        (CONNECT, NAME) => match std::str::from_utf8(&host[1..]) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(Reply::NotAllowed),
        },
        (CONNECT, _) => Err(Reply::AddressNotSupported),
        _ => Err(Reply::CommandNotSupported),
    };
    Ok(Step::Complete(wanted, 4 + length + 2))
}

/// The answer to a request.
#[must_use]
pub fn reply(reply: Reply) -> [u8; 10] {
    // The address that the client is bound to is nobody's business: 0.0.0.0:0.
    [VERSION, reply as u8, 0, IP4, 0, 0, 0, 0, 0, 0]
}

/// The service and peer that `host` names.
///
/// # Errors
/// The reply to the client.
pub fn destination(host: &str, peers: &Peers) -> Result<(ServiceName, PeerId), Reply> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let name = host.strip_suffix(".p2p").ok_or(Reply::NotAllowed)?;
    let (service, peer) = name.split_once('.').ok_or(Reply::NotAllowed)?;
    let service = service.parse().map_err(|_| Reply::NotAllowed)?;
    let mut named = peers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(peer))
        .map(|(_, id)| *id);
    // Names that differ by case only, which a host name cannot tell apart.
    let peer = match (named.next(), named.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Reply::HostUnreachable),
        (None, _) => addr::peer_id(peer).map_err(|_| Reply::HostUnreachable),
    };
    Ok((service, peer?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn of_name(command: u8, name: &str) -> Vec<u8> {
        let mut bytes = vec![5, command, 0, 3, name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes.extend([0x15, 0x38]);
        bytes
    }

    #[test]
    fn a_client_is_read_whatever_the_pieces_it_comes_in() {
        let longest = "a".repeat(255);
        for (bytes, wanted) in [
            (of_name(1, "db.west.p2p"), Ok("db.west.p2p".to_owned())),
            (of_name(1, &longest), Ok(longest.clone())),
            (of_name(1, ""), Ok(String::new())),
            (of_name(2, "db.west.p2p"), Err(Reply::CommandNotSupported)),
            (of_name(3, "db.west.p2p"), Err(Reply::CommandNotSupported)),
            (
                vec![5, 1, 0, 1, 127, 0, 0, 1, 0, 80],
                Err(Reply::AddressNotSupported),
            ),
            (
                [&[5, 1, 0, 4][..], &[0; 18]].concat(),
                Err(Reply::AddressNotSupported),
            ),
            (
                vec![5, 1, 0, 3, 2, 0xff, 0xfe, 0, 80],
                Err(Reply::NotAllowed),
            ),
        ] {
            for end in 0..bytes.len() {
                let Ok(Step::Incomplete(least)) = request(&bytes[..end]) else {
                    panic!("{end} of {bytes:?}");
                };
                assert!((1..=bytes.len() - end).contains(&least), "{end} {least}");
            }
            let complete = Ok(Step::Complete(wanted, bytes.len()));
            assert_eq!(request(&bytes), complete);
            let behind = [&bytes[..], b"hello"].concat();
            assert_eq!(request(&behind), complete, "its data comes at once");
        }
        assert_eq!(greeting(&[]), Ok(Step::Incomplete(2)));
        assert_eq!(greeting(&[5, 2, 2]), Ok(Step::Incomplete(1)));
        assert_eq!(greeting(&[5, 2, 2, 0, 5]), Ok(Step::Complete((), 4)));
        assert_eq!(greeting(&[5, 1, 2]), Err(Refused::Authentication));
        assert_eq!(greeting(&[5, 0]), Err(Refused::Authentication));
    }

    #[test]
    fn what_is_not_socks5_is_noticed_at_its_first_wrong_byte_and_gets_what_its_client_shows() {
        assert_eq!(greeting(b"GET"), Err(Refused::Http));
        assert_eq!(greeting(&[4, 1]), Err(Refused::Socks4));
        assert_eq!(greeting(&[0x16, 3, 1]), Err(Refused::Other));
        let answer = std::str::from_utf8(Refused::Http.answer()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(request(&[4]), Err(Refused::Other));
        let failed = Ok(Step::Complete(Err(Reply::Failed), 3));
        assert_eq!(request(&[5, 1, 1]), failed);
        let unknown = Ok(Step::Complete(Err(Reply::AddressNotSupported), 4));
        assert_eq!(request(&[5, 1, 0, 255]), unknown);
        assert_eq!(request(&[5, 1, 0, 2, 0]), unknown);
    }

    #[test]
    fn a_host_is_a_service_and_a_peer_by_name_or_by_id() {
        let [west, twin] = [PeerId::random(), PeerId::random()];
        let peers = [("West_1", west), ("twin", twin), ("TWIN", west)];
        let peers = peers
            .map(|(name, peer)| (name.to_owned(), peer))
            .into_iter()
            .collect();
        let of = |host: &str| destination(host, &peers);
        let db = "db".parse::<ServiceName>().unwrap();
        assert_eq!(of("db.West_1.p2p"), Ok((db.clone(), west)));
        assert_eq!(of("DB.west_1.P2P."), Ok((db.clone(), west)));
        let by_id = format!("db.{}.p2p", addr::base36(&twin));
        assert_eq!(of(&by_id), Ok((db.clone(), twin)));
        assert_eq!(of(&by_id.to_ascii_uppercase()), Ok((db, twin)));
        for (host, reply) in [
            ("db.twin.p2p", Reply::HostUnreachable),
            ("db.east.p2p", Reply::HostUnreachable),
            ("db..p2p", Reply::HostUnreachable),
            ("db.p2p", Reply::NotAllowed),
            (".p2p", Reply::NotAllowed),
            ("p2p", Reply::NotAllowed),
            ("", Reply::NotAllowed),
            ("example.com", Reply::NotAllowed),
            ("d_b.west_1.p2p", Reply::NotAllowed),
            ("127.0.0.1", Reply::NotAllowed),
        ] {
            assert_eq!(of(host), Err(reply), "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_client_makes_it_wait_for_more_than_it_may_send(
            bytes in proptest::collection::vec(any::<u8>(), 262..400),
        ) {
            prop_assert!(!matches!(greeting(&bytes), Ok(Step::Incomplete(_))));
            prop_assert!(!matches!(request(&bytes), Ok(Step::Incomplete(_))));
        }
    }
}
