//! From where targets are dialed: any port, a port of the range, or an address of its own for each peer, which a file keeps.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use libp2p::PeerId;
use nix::errno::Errno;
use p2pnode_services::{
    config::{Allow, Identity, Services},
    identity::address::Addresses,
};
use p2pnode_transports::{ClaimedTcp, ClaimedUdp, Family, Handle};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};

/// From where a target is dialed.
#[derive(Debug, Clone)]
pub(super) enum Sources {
    /// The system's choice.
    Any,
    /// The address of the peer that calls.
    Peer(Ipv4Addr),
    /// A port of the range, which no other connection has.
    Range(Handle),
}

/// A connection to a target.
pub(super) struct Dialed {
    pub(super) stream: TcpStream,
    /// The port of the range that it has.
    pub(super) port: Option<ClaimedTcp>,
    /// The target has reset it already.
    pub(super) was_reset: bool,
}

/// A socket of a flow at its target.
#[derive(Debug)]
pub(super) enum TargetSocket {
    /// From any port.
    Any(UdpSocket),
    /// From a port of the range.
    Ranged(ClaimedUdp),
}

impl Deref for TargetSocket {
    type Target = UdpSocket;

    fn deref(&self) -> &UdpSocket {
        match self {
            Self::Any(socket) => socket,
            Self::Ranged(claimed) => claimed.socket(),
        }
    }
}

impl Sources {
    /// A connection to `remote`.
    pub(super) async fn connect_tcp(&self, remote: SocketAddr) -> io::Result<Dialed> {
        match self {
            Self::Any => connect(tcp(remote)?, remote).await,
            Self::Peer(ip) => {
                let socket = tcp(remote)?;
                socket.bind(&SocketAddr::from((*ip, 0)).into())?;
                connect(socket, remote).await
            }
            Self::Range(ports) => {
                let family = Family::from(remote.ip());
                // Ports whose last connection to this remote is not yet forgotten: another one does.
                let mut resting = Vec::new();
                loop {
                    let mut claim = ports.claim_tcp(family).map_err(io::Error::other)?;
                    match claim.connect_to_end(remote).await {
                        Ok(stream) => {
                            return Ok(Dialed {
                                stream,
                                port: Some(claim),
                                was_reset: false,
                            });
                        }
                        Err(error) if is_about_the_port(&error) => resting.push(claim),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// A socket that sends to `remote`.
    pub(super) async fn connect_udp(&self, remote: SocketAddr) -> io::Result<TargetSocket> {
        let ip = match (self, remote) {
            (Self::Peer(ip), _) => (*ip).into(),
            (_, SocketAddr::V4(_)) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            (_, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = match self {
            Self::Any | Self::Peer(_) => TargetSocket::Any(UdpSocket::bind((ip, 0)).await?),
            Self::Range(ports) => {
                let claimed = ports.claim_udp(Family::from(remote.ip()));
                TargetSocket::Ranged(claimed.map_err(io::Error::other)?)
            }
        };
        socket.connect(remote).await?;
        Ok(socket)
    }
}

fn tcp(remote: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(remote);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connects. A target may have sent something and reset the connection before this task looks: what it sent is still to be read.
async fn connect(socket: Socket, remote: SocketAddr) -> io::Result<Dialed> {
    match socket.connect(&remote.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        connected => connected?,
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    let error = match stream.peer_addr() {
        Ok(_) => None,
        Err(_) => stream.take_error()?,
    };
    match error {
        // Nobody was connected: that is another error.
        Some(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        error => Ok(Dialed {
            stream,
            port: None,
            was_reset: error.is_some(),
        }),
    }
}

fn is_about_the_port(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

/// The addresses of peers, and the file that keeps them.
#[derive(Debug, Default)]
pub(crate) struct PeerAddresses {
    table: Addresses,
    /// Where they are kept.
    path: Option<PathBuf>,
    file: Option<File>,
}

impl PeerAddresses {
    /// The file beside that of the key.
    pub(crate) fn path(key: &Path) -> PathBuf {
        key.with_extension("addresses")
    }

    /// Reads the file, which is made with the first peer. Without a path nothing is kept.
    ///
    /// # Errors
    /// If it cannot be read, or is not what this program wrote.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let shown = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read the addresses of peers in {shown}"));
            }
        };
        let table = Addresses::read(&text).map_err(|problem| {
            anyhow::anyhow!(
                "the addresses of peers in {shown} are damaged, {problem}; restore the file, or remove the line"
            )
        })?;
        let path = Some(path.to_owned());
        let file = None;
        Ok(Self { table, path, file })
    }

    /// The address of `peer`, which gets one if it has none. The configuration may name it.
    ///
    /// # Errors
    /// If as many peers as may be have one.
    pub(crate) fn assign(&mut self, peer: PeerId, is_named: bool) -> io::Result<Ipv4Addr> {
        let assigned = self.table.assign(peer, is_named);
        let assigned = assigned.map_err(io::Error::other)?;
        if let (Some(line), Some(path)) = (assigned.line, self.path.clone())
            && let Err(error) = self.add(&path, &line)
        {
            // It is the peer's as long as this process runs.
            tracing::warn!(%peer, %error, "the address of a peer is not kept: {} cannot be written", path.display());
        }
        Ok(assigned.address)
    }

    /// Peers that a service of `config` names get their addresses before any other one, in the order of their ids.
    ///
    /// # Errors
    /// If as many peers as may be have one.
    pub(super) fn assign_named(&mut self, config: &Services) -> io::Result<()> {
        let with_addresses = config.services.values();
        let with_addresses = with_addresses.filter(|service| service.identity == Identity::Address);
        let mut named = BTreeSet::new();
        for service in with_addresses {
            match &service.allow {
                Allow::Peers(peers) => named.extend(peers),
                Allow::Any => {}
            }
        }
        named
            .into_iter()
            .try_for_each(|peer| self.assign(peer, true).map(drop))
    }

    fn add(&mut self, path: &Path, line: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(path)?),
        };
        file.write_all(line.as_bytes())
    }

    /// Which peer has which.
    pub(crate) fn table(&self) -> &Addresses {
        &self.table
    }
}

/// Opens the file at the end of its last whole line: a crash may have torn the one behind.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_file_keeps_addresses_over_restarts_and_mends_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = PeerAddresses::path(&directory.path().join("identity.key"));
        assert_eq!(path, directory.path().join("identity.addresses"));
        let [one, other] = [PeerId::random(), PeerId::random()];
        let mut addresses = PeerAddresses::open(Some(&path)).unwrap();
        let first = addresses.assign(one, false).unwrap();
        drop(addresses);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}127.64.9.9 12D3")).unwrap();
        let mut addresses = PeerAddresses::open(Some(&path)).unwrap();
        assert_eq!(addresses.assign(one, false).unwrap(), first);
        let second = addresses.assign(other, false).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{first} {one}\n{second} {other}\n"));

        fs::write(&path, "127.0.0.1 me\n").unwrap();
        let error = PeerAddresses::open(Some(&path)).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && error.contains("identity.addresses"),
            "{error}"
        );
        assert!(
            PeerAddresses::open(None)
                .unwrap()
                .assign(one, false)
                .is_ok()
        );
    }
}
