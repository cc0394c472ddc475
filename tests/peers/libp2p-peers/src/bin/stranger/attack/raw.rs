//! A libp2p connection without a swarm: its owner opens what it likes, writes what it likes and reads nothing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, future::poll_fn};
use libp2p::{
    Multiaddr, PeerId,
    core::{StreamMuxer, upgrade::OutboundConnectionUpgrade as _},
    identity::Keypair,
    multiaddr::Protocol,
    noise, tcp, tls, yamux,
};
use libp2p_peers::{read_message, take_varint, varint};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::{
    net::TcpSocket,
    sync::{mpsc, oneshot},
    time::timeout,
};

pub(crate) const HOP: &str = "/libp2p/circuit/relay/0.2.0/hop";
pub(crate) const STOP: &str = "/libp2p/circuit/relay/0.2.0/stop";
pub(crate) const PING: &str = "/ipfs/ping/1.0.0";
pub(crate) const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub(crate) const MEET: &str = "/p2pnode/meet/1";
const MULTISTREAM: &str = "/multistream/1.0.0";
/// For a handshake, or an answer, of a remote that means to give one.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
pub(crate) type Stream = Box<dyn Duplex>;

/// Who connects, and what it says of itself.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) key: Keypair,
    pub(crate) agent: String,
    /// Besides ping and identify.
    pub(crate) speaks: Vec<String>,
    /// Where it says it listens.
    pub(crate) listens: Vec<Multiaddr>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        Self {
            key: Keypair::generate_ed25519(),
            agent: "stranger".to_owned(),
            speaks: Vec::new(),
            listens: Vec::new(),
        }
    }

    pub(crate) fn speaking(mut self, protocols: &[&str]) -> Self {
        self.speaks = protocols.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    pub(crate) fn id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// The message `Identify`, without its length.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = field(1, &self.key.public().encode_protobuf());
        for address in &self.listens {
            body.extend(field(2, &address.to_vec()));
        }
        for name in [PING, IDENTIFY]
            .into_iter()
            .chain(self.speaks.iter().map(String::as_str))
        {
            body.extend(field(3, name.as_bytes()));
        }
        body.extend(field(5, b"ipfs/0.1.0"));
        body.extend(field(6, self.agent.as_bytes()));
        body
    }
}

/// A field of bytes of a protocol buffer.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len()), bytes.to_vec()].concat()
}

pub(crate) fn with_length(body: &[u8]) -> Vec<u8> {
    [varint(body.len()), body.to_vec()].concat()
}

/// A connection, until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Wire {
    open: Opener,
    inbound: Arc<tokio::sync::Mutex<mpsc::Receiver<(String, Stream)>>>,
}

#[derive(Clone)]
enum Opener {
    Muxer(mpsc::Sender<oneshot::Sender<io::Result<Stream>>>),
    Quic(quinn::Connection),
}

impl Wire {
    /// Connects over the transport of the address, from `source` if there is one.
    pub(crate) async fn connect(
        to: &Multiaddr,
        identity: &Identity,
        source: Option<IpAddr>,
    ) -> Result<Self> {
        let remote = socket(to)?;
        let connect = async {
            if to.iter().any(|part| part == Protocol::QuicV1) {
                return Self::quic(remote, identity, source).await;
            }
            let stream = tcp::tokio::TcpStream(tcp_stream(remote, source).await?);
            Self::muxed(Self::tls(stream, identity).await?, identity).await
        };
        timeout(ANSWER, connect).await.context("no handshake")?
    }

    async fn quic(remote: SocketAddr, identity: &Identity, source: Option<IpAddr>) -> Result<Self> {
        let bound = UdpSocket::bind((source.unwrap_or_else(|| any(remote)), 0))?;
        let mut endpoint = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            None,
            bound,
            Arc::new(quinn::TokioRuntime),
        )?;
        let crypto = tls::make_client_config(&identity.key, None)?;
        let crypto = QuicClientConfig::try_from(crypto).context("cipher suites")?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport
            .keep_alive_interval(Some(Duration::from_secs(3)))
            // So that a remote whose answers are not read soon has to wait.
            .stream_receive_window(4096_u32.into())
            .max_concurrent_bidi_streams(1000_u32.into());
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(remote, "l")?.await?;
        let (came, inbound) = mpsc::channel(64);
        let (accepting, identity) = (connection.clone(), Arc::new(identity.clone()));
        tokio::spawn(async move {
            while let Ok((send, receive)) = accepting.accept_bi().await {
                let stream: Stream = Box::new(Both { send, receive });
                tokio::spawn(answer(stream, Arc::clone(&identity), came.clone()));
            }
        });
        Ok(Self {
            open: Opener::Quic(connection),
            inbound: Arc::new(inbound.into()),
        })
    }

    async fn tls(mut stream: impl Duplex + 'static, identity: &Identity) -> Result<Stream> {
        negotiate(&mut stream, "/tls/1.0.0").await?;
        let config = tls::Config::new(&identity.key)?;
        let (_, mut stream) = config.upgrade_outbound(stream, "/tls/1.0.0").await?;
        negotiate(&mut stream, "/yamux/1.0.0").await?;
        Ok(Box::new(stream))
    }

    /// As [`Self::frames`], inside a circuit.
    pub(crate) async fn frames_inside(mut circuit: Stream, identity: &Identity) -> Result<Stream> {
        let upgrade = async {
            negotiate(&mut circuit, "/noise").await?;
            let config = noise::Config::new(&identity.key)?;
            let (_, mut stream) = config.upgrade_outbound(circuit, "/noise").await?;
            negotiate(&mut stream, "/yamux/1.0.0").await?;
            Ok(Box::new(stream) as Stream)
        };
        timeout(ANSWER, upgrade)
            .await
            .context("no handshake in the circuit")?
    }

    /// A connection over TCP whose frames its owner writes.
    pub(crate) async fn frames(
        to: &Multiaddr,
        identity: &Identity,
        source: Option<IpAddr>,
    ) -> Result<Stream> {
        let stream = tcp::tokio::TcpStream(tcp_stream(socket(to)?, source).await?);
        timeout(ANSWER, Self::tls(stream, identity))
            .await
            .context("no handshake")?
    }

    /// The connection inside a circuit.
    pub(crate) async fn inside(circuit: Stream, identity: &Identity) -> Result<Self> {
        Self::muxed(Self::frames_inside(circuit, identity).await?, identity).await
    }

    async fn muxed(stream: Stream, identity: &Identity) -> Result<Self> {
        let mut muxer = yamux::Config::default()
            .upgrade_outbound(stream, "/yamux/1.0.0")
            .await?;
        let (open, mut asked) = mpsc::channel::<oneshot::Sender<io::Result<Stream>>>(1);
        let (came, inbound) = mpsc::channel(64);
        let identity = Arc::new(identity.clone());
        tokio::spawn(async move {
            let mut waiting: Option<oneshot::Sender<io::Result<Stream>>> = None;
            poll_fn(|cx| {
                loop {
                    let mut muxer = Pin::new(&mut muxer);
                    match muxer.as_mut().poll_inbound(cx) {
                        Poll::Ready(Ok(stream)) => {
                            let stream: Stream = Box::new(stream);
                            tokio::spawn(answer(stream, Arc::clone(&identity), came.clone()));
                            continue;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                    if waiting.is_none() {
                        match asked.poll_recv(cx) {
                            Poll::Ready(Some(asked)) => waiting = Some(asked),
                            Poll::Ready(None) => return Poll::Ready(()),
                            Poll::Pending => {}
                        }
                    }
                    if waiting.is_some()
                        && let Poll::Ready(opened) = muxer.as_mut().poll_outbound(cx)
                    {
                        let failed = opened.is_err();
                        let opened = opened.map(|stream| Box::new(stream) as Stream);
                        if let Some(waiting) = waiting.take() {
                            // Who asked may have lost patience.
                            let _gone = waiting.send(opened.map_err(io::Error::other));
                        }
                        if failed {
                            return Poll::Ready(());
                        }
                        continue;
                    }
                    match muxer.poll(cx) {
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        });
        Ok(Self {
            open: Opener::Muxer(open),
            inbound: Arc::new(inbound.into()),
        })
    }

    pub(crate) fn is_quic(&self) -> bool {
        matches!(self.open, Opener::Quic(_))
    }

    /// A stream on which nothing was said.
    pub(crate) async fn stream(&self) -> Result<Stream> {
        match &self.open {
            Opener::Muxer(open) => {
                let (asked, opened) = oneshot::channel();
                open.send(asked).await.ok().context("closed")?;
                opened.await.context("closed")?.context("no stream")
            }
            Opener::Quic(connection) => {
                let (send, receive) = connection.open_bi().await.context("closed")?;
                Ok(Box::new(Both { send, receive }))
            }
        }
    }

    pub(crate) async fn speak(&self, protocol: &str) -> Result<Stream> {
        let open = async {
            let mut stream = self.stream().await?;
            negotiate(&mut stream, protocol).await?;
            anyhow::Ok(stream)
        };
        timeout(ANSWER, open).await.context("no stream")?
    }

    /// The next stream that the remote has opened, but for ping and identify, which are answered.
    pub(crate) async fn accept(&self) -> Option<(String, Stream)> {
        self.inbound.lock().await.recv().await
    }

    pub(crate) async fn closed(&self) {
        match &self.open {
            Opener::Muxer(open) => open.closed().await,
            Opener::Quic(connection) => drop(connection.closed().await),
        }
    }

    /// Ends a QUIC connection with these bytes as its reason.
    pub(crate) fn close(&self, reason: &[u8]) {
        if let Opener::Quic(connection) = &self.open {
            connection.close(0_u32.into(), reason);
        }
    }

    /// Asks the relay at the other end for a circuit, and returns it with nothing said in it.
    pub(crate) async fn circuit(&self, to: PeerId) -> Result<Stream> {
        let mut stream = self.speak(HOP).await?;
        stream.write_all(&connect_message(to)).await?;
        stream.flush().await?;
        match status(&mut stream).await? {
            100 => Ok(stream),
            other => bail!("status {other}"),
        }
    }

    pub(crate) async fn reserve(&self) -> Result<()> {
        let mut stream = self.speak(HOP).await?;
        stream.write_all(&RESERVE).await?;
        stream.flush().await?;
        let status = status(&mut stream).await?;
        ensure!(status == 100, "status {status}");
        Ok(())
    }
}

/// `HopMessage { type: RESERVE }`, with its length before it.
pub(crate) const RESERVE: [u8; 3] = [2, 0x08, 0];

/// `HopMessage { type: CONNECT, peer: Peer { id } }`.
pub(crate) fn connect_message(to: PeerId) -> Vec<u8> {
    let peer = field(1, &to.to_bytes());
    with_length(&[vec![0x08, 1], field(2, &peer)].concat())
}

/// The status in a `HopMessage`.
pub(crate) async fn status(stream: &mut Stream) -> Result<u64> {
    let body = timeout(ANSWER, read_message(stream))
        .await
        .context("no answer")??;
    let mut rest = body.as_slice();
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        let value = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (5, 0) => return Ok(value),
            (_, 0) => {}
            (_, 2) => {
                let after = rest.get(usize::try_from(value)?..);
                rest = after.context("a field is cut off")?;
            }
            other => bail!("field and type {other:?}"),
        }
    }
    bail!("no status")
}

/// Proposes one protocol and waits for consent ([multistream-select](https://github.com/multiformats/multistream-select)).
pub(crate) async fn negotiate(stream: &mut (impl Duplex + ?Sized), protocol: &str) -> Result<()> {
    let proposal = [line(MULTISTREAM), line(protocol)].concat();
    stream.write_all(&proposal).await.context("no proposal")?;
    stream.flush().await.context("no proposal")?;
    for wanted in [MULTISTREAM, protocol] {
        let said = read_line(stream).await.context("no consent")?;
        ensure!(said == wanted, "{protocol}: the remote says {said:?}");
    }
    Ok(())
}

pub(crate) fn line(text: &str) -> Vec<u8> {
    with_length(format!("{text}\n").as_bytes())
}

async fn read_line(stream: &mut (impl Duplex + ?Sized)) -> Result<String> {
    let mut length = Vec::new();
    while length.last().is_none_or(|byte| byte & 0x80 != 0) {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length.push(byte[0]);
        ensure!(length.len() < 4, "a line that does not end");
    }
    let mut line = vec![0; usize::try_from(take_varint(&mut length.as_slice())?)?];
    stream.read_exact(&mut line).await?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Does for an inbound stream what a peer has to do to be believed: ping and identify. Others go to whom they are for.
async fn answer(
    mut stream: Stream,
    identity: Arc<Identity>,
    came: mpsc::Sender<(String, Stream)>,
) -> Result<()> {
    let protocol = loop {
        let proposed = read_line(&mut stream).await?;
        let known = [MULTISTREAM, PING, IDENTIFY].contains(&proposed.as_str())
            || identity.speaks.contains(&proposed);
        let reply = if known { proposed.as_str() } else { "na" };
        stream.write_all(&line(reply)).await?;
        stream.flush().await?;
        if known && proposed != MULTISTREAM {
            break proposed;
        }
    };
    match protocol.as_str() {
        PING => loop {
            let mut bytes = [0; 32];
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
        },
        IDENTIFY => {
            stream.write_all(&with_length(&identity.message())).await?;
            stream.close().await?;
        }
        _ => drop(came.send((protocol, stream)).await),
    }
    Ok(())
}

struct Both {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl AsyncRead for Both {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, bytes)
    }
}

impl AsyncWrite for Both {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncWrite::poll_close(Pin::new(&mut self.send), cx)
    }
}

pub(crate) async fn tcp_stream(
    remote: SocketAddr,
    source: Option<IpAddr>,
) -> io::Result<tokio::net::TcpStream> {
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(remote).await
}

fn any(remote: SocketAddr) -> IpAddr {
    if remote.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

pub(crate) fn socket(address: &Multiaddr) -> Result<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => bail!("{address} begins with no IP address"),
    };
    match parts.next() {
        Some(Protocol::Tcp(port) | Protocol::Udp(port)) => Ok(SocketAddr::new(ip, port)),
        _ => bail!("{address} has no port"),
    }
}
