//! Who holds a port, as far as this process may read it from the kernel. Best effort and for people: no decision depends on it.

use std::{
    collections::HashSet,
    fmt, fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use p2pnode_protocol::{Family, Transport};

use crate::net::sock_diag::State;

/// A port that could not be had, and what is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The transport that wanted the port.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// What is in the way.
    pub by: HeldBy,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carrier = match self.transport {
            Transport::Quic => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{carrier} {} {}", self.port, self.by)
    }
}

/// How long one search of `/proc` may take: the event loop waits for it, and a host may have a hundred thousand open files.
const SEARCH: Duration = Duration::from_millis(100);

/// How long what it has found is kept. A socket that is opened again has another number.
const KEPT: Duration = Duration::from_secs(60);

/// How many searches are remembered; the oldest is forgotten first.
const SEARCHES: usize = 16;

/// What is in the way of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldBy {
    /// A process whose sockets we may see.
    Process {
        /// Its id.
        pid: u32,
        /// Its name as in `/proc/PID/comm`.
        comm: String,
    },
    /// A process whose sockets we may not see, or none that can be found.
    Unseen,
    /// This node: a punch port, or the port of an open connection.
    ThisNode,
    /// A connection that ended and whose port the kernel keeps for up to a minute.
    TimeWait,
    /// A port that was in use a short while ago, or could not be bound then.
    Cooling,
    /// A connection to the same remote, which may be nobody's any more.
    Connection {
        /// Its state.
        state: State,
        /// How long it lasts, if only a timer ends it.
        left: Option<Duration>,
    },
    /// The kernel does not let us bind it, for another reason than that it is taken.
    Refused(String),
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, comm } => write!(f, "held by pid {pid} ({comm})"),
            Self::Unseen => f.write_str("held by another process"),
            Self::ThisNode => f.write_str("in use by this node"),
            Self::TimeWait => f.write_str("in TIME_WAIT"),
            Self::Cooling => f.write_str("cooling down after use"),
            Self::Connection { state, left } => {
                write!(f, "held by a connection to the same remote in {state}")?;
                match left {
                    Some(left) => write!(f, ", {} s left", left.as_secs()),
                    None => Ok(()),
                }
            }
            Self::Refused(reason) => write!(f, "not to be had: {reason}"),
        }
    }
}

/// Finds out who has bound `port`. Reads `/proc`, for [`SEARCH`] at the most.
pub(crate) fn find(transport: Transport, family: Family, port: u16) -> HeldBy {
    // An IPv6 wildcard socket without IPV6_V6ONLY holds the IPv4 port too, so IPv4 looks at both tables.
    let tables: &[&str] = match (transport, family) {
        (Transport::Quic, Family::Ip4) => &["udp", "udp6"],
        (Transport::Quic, Family::Ip6) => &["udp6"],
        (Transport::Tcp, Family::Ip4) => &["tcp", "tcp6"],
        (Transport::Tcp, Family::Ip6) => &["tcp6"],
    };
    let mut holders = Sockets::default();
    for table in tables {
        if let Ok(text) = fs::read_to_string(Path::new("/proc/net").join(table)) {
            holders.add(&text, transport, port);
        }
    }
    let now = Instant::now();
    let look = || owner(&holders.inodes, || now.elapsed() < SEARCH);
    // Nothing panics while it holds the lock.
    let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    match owners.of(&holders.inodes, now, look) {
        Some((pid, _)) if pid == std::process::id() => HeldBy::ThisNode,
        Some((pid, comm)) => HeldBy::Process { pid, comm },
        None if holders.inodes.is_empty() && holders.time_wait => HeldBy::TimeWait,
        None => HeldBy::Unseen,
    }
}

/// A process and its name.
type Owner = (u32, String);

/// The owners of sockets, as they were found last.
#[derive(Debug, Default)]
struct Owners(Vec<(HashSet<u64>, Option<Owner>, Instant)>);

static OWNERS: Mutex<Owners> = Mutex::new(Owners(Vec::new()));

impl Owners {
    fn of(
        &mut self,
        inodes: &HashSet<u64>,
        now: Instant,
        look: impl FnOnce() -> Option<Owner>,
    ) -> Option<Owner> {
        self.0
            .retain(|(_, _, since)| now.saturating_duration_since(*since) < KEPT);
        if let Some((_, owner, _)) = self.0.iter().find(|(known, _, _)| known == inodes) {
            return owner.clone();
        }
        let owner = look();
        if self.0.len() == SEARCHES {
            self.0.remove(0);
        }
        self.0.push((inodes.clone(), owner.clone(), now));
        owner
    }
}

/// The sockets on a port in tables of `/proc/net`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sockets {
    inodes: HashSet<u64>,
    time_wait: bool,
}

impl Sockets {
    /// Lines are `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`, see
    /// [proc_pid_net(5)](https://man7.org/linux/man-pages/man5/proc_pid_net.5.html).
    fn add(&mut self, table: &str, transport: Transport, port: u16) {
        const TCP_TIME_WAIT: &str = "06";
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let on = local
                .rsplit_once(':')
                .and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
            if on != Some(port) {
                continue;
            }
            if transport == Transport::Tcp && *state == TCP_TIME_WAIT {
                self.time_wait = true;
            } else if let Ok(inode @ 1..) = inode.parse() {
                self.inodes.insert(inode);
            }
        }
    }
}

/// The first process that has one of these sockets open, as long as there `is_time`.
fn owner(inodes: &HashSet<u64>, is_time: impl Fn() -> bool) -> Option<Owner> {
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path(),
            ))
        })
        .take_while(|_| is_time())
        .find(|(_, path)| has_socket(path, inodes, &is_time))
        .map(|(pid, path)| {
            // A name may hold any byte; it goes into a one-line message.
            let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
            (pid, comm.trim_end().escape_debug().to_string())
        })
}

fn has_socket(process: &Path, inodes: &HashSet<u64>, is_time: impl Fn() -> bool) -> bool {
    let Ok(fds) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    fds.flatten()
        .take_while(|_| is_time())
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|link| {
            let inode = link.to_str().and_then(|link| {
                link.strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            inode.is_some_and(|inode: u64| inodes.contains(&inode))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_owner_of_a_socket_is_looked_for_once_a_minute_and_in_bounded_time() {
        let (now, looks) = (Instant::now(), std::cell::Cell::new(0));
        let mut owners = Owners::default();
        let mut look = |inode: u64, after: Duration| {
            owners.of(&HashSet::from([inode]), now + after, || {
                looks.set(looks.get() + 1);
                None
            });
            looks.get()
        };
        assert_eq!(look(1, Duration::ZERO), 1);
        assert_eq!(look(1, KEPT - Duration::from_millis(1)), 1);
        assert_eq!(look(2, Duration::from_secs(1)), 2, "another socket");
        assert_eq!(look(1, KEPT), 3);
        // Once the time is over, no further process is read, and no further file of one.
        let held = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let table = fs::read_to_string("/proc/net/udp").unwrap();
        let mut sockets = Sockets::default();
        sockets.add(&table, Transport::Quic, port);
        assert!(owner(&sockets.inodes, || true).is_some());
        assert!(owner(&sockets.inodes, || false).is_none());
    }

    #[test]
    fn sockets_are_found_by_port_and_time_wait_is_told_apart() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 00000000:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0        0 4711 1 0000 100\n\
            1: 0100007F:9C40 0100007F:01BB 06 00000000:00000000 00:00000000 00000000  0        0 0 1 0000 100\n\
            2: 0100007F:01BB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  0        0 4712 1 0000 100\n";
        let mut sockets = Sockets::default();
        sockets.add(table, Transport::Tcp, 40000);
        assert_eq!(
            sockets,
            Sockets {
                inodes: HashSet::from([4711]),
                time_wait: true
            }
        );
    }

    #[test]
    fn our_own_sockets_are_found_in_the_kernels_tables() {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(find(Transport::Quic, Family::Ip4, port), HeldBy::ThisNode);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(find(Transport::Tcp, Family::Ip4, port), HeldBy::ThisNode);
    }

    proptest! {
        #[test]
        fn junk_in_a_table_never_panics(table in "(.*\n){0,5}", port: u16) {
            Sockets::default().add(&table, Transport::Tcp, port);
        }
    }
}
