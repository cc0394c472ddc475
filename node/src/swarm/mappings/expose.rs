//! Ports of the range that lead to a target, for clients that are not p2pnode.
//!
//! Nothing leaves from such a port but answers. So a nonce that comes in proves that the port is open to everybody.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use p2pnode_protocol::{
    mapping::Protocol,
    stun::{self, Message},
};
use p2pnode_services::{
    config::{Address, Host},
    identity::proxy::{self, Follows},
};
use p2pnode_transports::{ClaimedUdp, Family, Handle, StunClient, StunHandler as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::hold::Port;
use crate::{config::Expose, core::mappings::Inside};

/// Clients at once of one port. Beyond that, connections are closed and datagrams dropped.
const CLIENTS: usize = 1024;

/// How long a target may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection is held that may be a nonce: a relay sends it at once.
const NONCE: Duration = Duration::from_millis(300);

/// How long a flow of datagrams lives without one.
const IDLE: Duration = Duration::from_secs(60);

/// The longest datagram of UDP.
const DATAGRAM: usize = 65_507;

/// How long the port waits after an error of its socket.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that is open. Its clients are served as long as it lives.
pub(super) struct Exposed {
    pub(super) expose: Expose,
    pub(super) inside: Inside,
    pub(super) port: Port,
    _tasks: JoinSet<()>,
}

impl Exposed {
    /// Takes a port of the range.
    pub(super) fn open(expose: Expose, sockets: &Handle) -> Result<Self, String> {
        let mut tasks = JoinSet::new();
        let (stun, exposed) = (Arc::clone(sockets.stun()), Arc::new(expose.clone()));
        let (number, port) = match expose.protocol {
            Protocol::Tcp => {
                let claim = sockets.claim_tcp(Family::Ip4).map_err(|e| e.to_string())?;
                let listener = claim.listen().map_err(|error| error.to_string())?;
                tasks.spawn(accept(listener, exposed, stun));
                (claim.port(), Port::Tcp(Arc::new(claim)))
            }
            Protocol::Udp => {
                let claim = sockets.claim_udp(Family::Ip4).map_err(|e| e.to_string())?;
                let claim = Arc::new(claim);
                tasks.spawn(receive(Arc::clone(&claim), exposed, stun));
                (claim.port(), Port::Udp(claim))
            }
        };
        let protocol = expose.protocol;
        Ok(Self {
            expose,
            inside: Inside {
                protocol,
                port: number,
            },
            port,
            _tasks: tasks,
        })
    }
}

async fn accept(listener: TcpListener, expose: Arc<Expose>, stun: Arc<StunClient>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        continue;
                    };
                    let (expose, stun) = (Arc::clone(&expose), Arc::clone(&stun));
                    clients.spawn(async move {
                        let _place = place;
                        if let Err(error) = serve(stream, &expose, &stun).await {
                            tracing::debug!(name = %expose.name, %error, "a client of an exposed port");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(name = %expose.name, %error, "cannot accept");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, expose: &Expose, stun: &StunClient) -> io::Result<()> {
    if stun.is_awaited() && is_nonce(&client).await {
        stun.stream(client);
        return Ok(());
    }
    let (from, to) = (client.peer_addr()?, client.local_addr()?);
    client.set_nodelay(true)?;
    let connecting = timeout(CONNECT, connect(expose)).await;
    let mut target = connecting.unwrap_or_else(|elapsed| Err(elapsed.into()))?;
    if expose.proxy {
        let header = proxy::header(Some((from, to)), Follows::Stream, None, &expose.name);
        target.write_all(&header).await?;
    }
    copy_bidirectional(&mut client, &mut target).await.map(drop)
}

/// Whether the first bytes are those of a message that carries a nonce. A protocol in which the server speaks first waits here.
async fn is_nonce(client: &TcpStream) -> bool {
    let mut first = [0; 8];
    let peeked = timeout(NONCE, async {
        loop {
            match client.peek(&mut first).await {
                Ok(length) if length == first.len() || length == 0 => return,
                Ok(_) => sleep(Duration::from_millis(10)).await,
                Err(_) => return,
            }
        }
    });
    peeked.await.is_ok() && first[..2] == [1, 1] && first[4..] == stun::COOKIE
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(expose: &Expose) -> io::Result<Box<dyn Stream>> {
    let connected = match &expose.target {
        Address::Tcp(Host::Ip(ip), port) => TcpStream::connect((*ip, *port)).await?,
        Address::Tcp(Host::Name(name), port) => TcpStream::connect((name.as_str(), *port)).await?,
        Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Udp(..) => return Err(io::ErrorKind::Unsupported.into()),
    };
    connected.set_nodelay(true)?;
    Ok(Box::new(connected))
}

/// The socket at the target for one client, and when its last datagram came.
struct Flow {
    socket: Arc<UdpSocket>,
    seen: Instant,
    is_new: bool,
    _answers: JoinSet<()>,
}

async fn receive(claim: Arc<ClaimedUdp>, expose: Arc<Expose>, stun: Arc<StunClient>) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let received = tokio::select! {
            received = claim.socket().recv_from(&mut buffer) => received,
            () = sleep(IDLE / 4) => {
                flows.retain(|_, flow| flow.seen.elapsed() < IDLE);
                continue;
            }
        };
        let Ok((length, from)) = received else {
            sleep(PAUSE).await;
            continue;
        };
        let datagram = &buffer[..length];
        if stun::is_stun(datagram)
            && let Ok(message) = Message::decode(datagram)
            && stun.came(message, from)
        {
            continue;
        }
        if flows.len() >= CLIENTS && !flows.contains_key(&from) {
            flows.retain(|_, flow| flow.seen.elapsed() < IDLE);
            if flows.len() >= CLIENTS {
                continue;
            }
        }
        if let Err(error) = pass(&mut flows, &claim, &expose, from, datagram).await {
            tracing::debug!(name = %expose.name, %error, "a datagram of an exposed port");
        }
    }
}

async fn pass(
    flows: &mut HashMap<SocketAddr, Flow>,
    claim: &Arc<ClaimedUdp>,
    expose: &Expose,
    from: SocketAddr,
    datagram: &[u8],
) -> io::Result<()> {
    let flow = match flows.entry(from) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(open(Arc::clone(claim), expose, from).await?),
    };
    flow.seen = Instant::now();
    let is_first = std::mem::take(&mut flow.is_new);
    if is_first && expose.proxy {
        let to = claim.socket().local_addr()?;
        let header = proxy::header(Some((from, to)), Follows::Datagrams, None, &expose.name);
        let first = [&header, datagram].concat();
        return flow.socket.send(&first).await.map(drop);
    }
    flow.socket.send(datagram).await.map(drop)
}

async fn open(claim: Arc<ClaimedUdp>, expose: &Expose, from: SocketAddr) -> io::Result<Flow> {
    let (host, port) = match &expose.target {
        Address::Udp(Host::Ip(ip), port) => (ip.to_string(), *port),
        Address::Udp(Host::Name(name), port) => (name.clone(), *port),
        Address::Tcp(..) | Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut found = timeout(CONNECT, tokio::net::lookup_host((host, port))).await??;
    let target = found.next().ok_or(io::ErrorKind::NotFound)?;
    let any: std::net::IpAddr = match target {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Arc::new(UdpSocket::bind((any, 0)).await?);
    socket.connect(target).await?;
    let mut answers = JoinSet::new();
    let answering = Arc::clone(&socket);
    answers.spawn(async move {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            match answering.recv(&mut buffer).await {
                // What cannot be sent is lost, as datagrams are.
                Ok(length) => drop(claim.socket().send_to(&buffer[..length], from).await),
                // The target refuses, and may be there later.
                Err(_) => sleep(PAUSE).await,
            }
        }
    });
    Ok(Flow {
        socket,
        seen: Instant::now(),
        is_new: true,
        _answers: answers,
    })
}
