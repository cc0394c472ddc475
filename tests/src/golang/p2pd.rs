//! go-libp2p-daemon, and its control protocol (<https://github.com/libp2p/go-libp2p-daemon/blob/master/specs/CONTROL.md>).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use super::wire::{self, Message, Value};
use crate::{
    args::PATIENCE,
    artifacts::Artifacts,
    host::Host,
    node::{Launch, Process, control_socket},
};

/// A running daemon. Killed when dropped.
pub(super) struct P2pd {
    pub(super) process: Process,
    pub(super) id: String,
    socket: PathBuf,
}

/// The types of [`Message`]s that ask the daemon for something.
#[derive(Clone, Copy)]
enum Request {
    Identify = 0,
    Connect = 1,
    StreamOpen = 2,
    StreamHandler = 3,
    ListPeers = 5,
}

impl P2pd {
    pub(super) async fn start(
        program: &Path,
        name: &str,
        host: &Host,
        args: &[String],
    ) -> Result<Self> {
        let socket = control_socket(&host.artifacts, name);
        let launch = Launch::new(name, program)
            .args(["-listen", &format!("/unix{}", socket.display())])
            .args(args)
            .env(
                "GOLOG_LOG_LEVEL",
                "error,basichost=debug,p2p-holepunch=debug,autorelay=debug,net/identify=debug,swarm2=debug",
            );
        let mut daemon = Self {
            process: launch.on(host)?,
            id: String::new(),
            socket,
        };
        let own = timeout(PATIENCE, async {
            loop {
                match daemon.ask(Request::Identify, None).await {
                    Ok((own, _)) => return own,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let own = own.await.context("p2pd does not answer")?;
        let own = wire::all(&own, 4)
            .next()
            .context("p2pd does not name itself")?;
        let id = wire::fields(own)?;
        daemon.id = wire::peer_text(wire::all(&id, 1).next().context("p2pd has no id")?);
        Ok(daemon)
    }

    /// The addresses that it gives out.
    pub(super) async fn addresses(&self) -> Result<Vec<String>> {
        let (own, _) = self.ask(Request::Identify, None).await?;
        let own = wire::fields(wire::all(&own, 4).next().context("no answer")?)?;
        wire::all(&own, 2).map(wire::multiaddr_text).collect()
    }

    /// Connects to the peer whose id ends `address`.
    pub(super) async fn connect(&self, address: &str) -> Result<()> {
        let (at, peer) = address
            .rsplit_once("/p2p/")
            .context("an address with an id")?;
        let seconds = PATIENCE.as_secs();
        let connect = Message::default()
            .bytes(1, wire::peer_id(peer)?)
            .bytes(2, wire::multiaddr(at)?)
            .number(3, seconds);
        let connected = self.ask(Request::Connect, Some((2, connect))).await;
        connected
            .map(drop)
            .with_context(|| format!("connect {address}"))
    }

    /// The remote addresses of its connections to a peer.
    pub(super) async fn connections(&self, peer: &str) -> Result<Vec<String>> {
        let (answer, _) = self.ask(Request::ListPeers, None).await?;
        let mut found = Vec::new();
        for info in wire::all(&answer, 6) {
            let info = wire::fields(info)?;
            if wire::all(&info, 1).any(|id| wire::peer_text(id) == peer) {
                let addresses = wire::all(&info, 2).map(wire::multiaddr_text);
                found.extend(addresses.collect::<Result<Vec<_>>>()?);
            }
        }
        Ok(found)
    }

    /// Waits until `look` finds something in its connections to a peer.
    pub(super) async fn until<T>(
        &self,
        peer: &str,
        what: &str,
        look: impl Fn(&[String]) -> Option<T>,
    ) -> Result<T> {
        let mut last = Vec::new();
        let found = timeout(PATIENCE, async {
            loop {
                last = self.connections(peer).await?;
                if let Some(found) = look(&last) {
                    return anyhow::Ok(found);
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => bail!("p2pd has not {what}: {last:?}"),
        }
    }

    /// Opens a stream to a peer.
    pub(super) async fn open(&self, peer: &str, protocol: &str) -> Result<UnixStream> {
        let open = Message::default()
            .bytes(1, wire::peer_id(peer)?)
            .bytes(2, protocol)
            .number(3, PATIENCE.as_secs());
        let (_, stream) = self.ask(Request::StreamOpen, Some((3, open))).await?;
        Ok(stream)
    }

    /// Returns what comes on streams of a protocol.
    pub(super) async fn echo(&self, artifacts: &Artifacts, protocol: &str) -> Result<()> {
        let path = control_socket(artifacts, "p2pd-echo");
        let listener = UnixListener::bind(&path)?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // First the daemon says which stream it is.
                    let _info = receive(&mut stream).await?;
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await?;
                    anyhow::Ok(())
                });
            }
        });
        let handler = Message::default()
            .bytes(1, wire::multiaddr(&format!("/unix{}", path.display()))?)
            .bytes(2, protocol)
            .number(3, 0);
        let set = self.ask(Request::StreamHandler, Some((4, handler))).await;
        set.map(drop)
    }

    /// It runs.
    pub(super) fn is_unharmed(&mut self) -> Result<()> {
        ensure!(
            self.process.is_alive()?,
            "p2pd has ended: {}",
            self.process.log()
        );
        Ok(())
    }

    async fn ask(
        &self,
        request: Request,
        details: Option<(u64, Message)>,
    ) -> Result<(Vec<(u64, Value)>, UnixStream)> {
        let mut message = Message::default().number(1, request as u64);
        if let Some((field, details)) = details {
            message = message.message(field, &details);
        }
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(&message.delimited()).await?;
        let answer = timeout(PATIENCE * 2, receive(&mut stream)).await;
        let answer = answer.context("p2pd does not answer")??;
        if let Some(error) = wire::all(&answer, 2).next() {
            let error = wire::fields(error)?;
            let error = wire::all(&error, 1).next().unwrap_or_default();
            bail!("p2pd: {}", String::from_utf8_lossy(error));
        }
        Ok((answer, stream))
    }
}

/// A message with its length before it.
async fn receive(stream: &mut UnixStream) -> Result<Vec<(u64, Value)>> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        ensure!(shift < 28, "a long message");
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    wire::fields(&bytes)
}
