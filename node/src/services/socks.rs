//! The SOCKS5 server: local clients name a service and a peer as a host.

use std::{io, net::SocketAddr, time::Duration};

use p2pnode_services::{
    config::Peers,
    core::{
        session::End,
        sockets::{Holder, Place},
    },
    wire::{
        Refusal, ResetReason,
        socks::{self, Refused, Reply, Step},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use super::{
    Hub, driver::Outcome, forwards::ForwardError, local::Socket, places::Pauses,
    servers::SocksServer,
};

/// How long a client may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(10);

/// The most clients that have not said what they want.
const ASKING: usize = 256;

/// A client, and the host that it wants or the reply that it gets instead.
type Asked = Result<(TcpStream, Result<String, Reply>), Refused>;

impl Hub {
    /// Serves SOCKS5 there from now on.
    pub(super) fn configure_socks(&self, at: Option<SocketAddr>) -> Option<ForwardError> {
        let mut servers = self.servers();
        if servers.socks.as_ref().map(|server| server.wanted) == at {
            return None;
        }
        let before = servers.socks.take();
        // The end of its sessions takes the lock of the state.
        drop(servers);
        if let Some(server) = before {
            let number = server.number;
            // From now on its clients that still ask get no session.
            drop(server);
            self.end_sessions_of(number);
        }
        let at = at?;
        match self.serve_socks(at) {
            Ok(server) => {
                self.servers().socks = Some(server);
                None
            }
            Err(source) => Some(ForwardError::of_tcp(at, source)),
        }
    }

    /// Serves SOCKS5 at `at`.
    ///
    /// # Errors
    /// If it cannot listen.
    fn serve_socks(&self, wanted: SocketAddr) -> io::Result<SocksServer> {
        let listener = std::net::TcpListener::bind(wanted)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let at = listener.local_addr()?;
        tracing::info!(own = tracing::field::Empty, listen = %at, "serving SOCKS5");
        let number = self.number();
        let (alive, gone) = watch::channel(());
        let task = tokio::spawn(accept(self.clone(), (number, gone), listener));
        Ok(SocksServer {
            wanted,
            number,
            _alive: alive,
            task: task.abort_handle(),
        })
    }
}

async fn accept(hub: Hub, (number, gone): (u64, watch::Receiver<()>), listener: TcpListener) {
    let asking = std::sync::Arc::new(tokio::sync::Semaphore::new(ASKING));
    let mut pauses = Pauses::default();
    loop {
        hub.has_place(Holder::Socks, "SOCKS5").await;
        // It is never closed.
        let Ok(place) = std::sync::Arc::clone(&asking).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                pauses.works();
                let socket = hub.sockets().take(Holder::Socks);
                let (hub, mut gone) = (hub.clone(), gone.clone());
                tokio::spawn(async move {
                    let asked = tokio::select! {
                        // An error: the server is gone, and its clients that still ask with it.
                        _ = gone.changed() => return,
                        asked = timeout(REQUEST, ask(stream)) => asked,
                    };
                    drop(place);
                    let served = match asked.unwrap_or(Ok(Err(Refused::Silent))) {
                        Ok(Ok((stream, wanted))) => {
                            serve(&hub, number, (stream, socket), wanted).await
                        }
                        Ok(Err(refused)) => {
                            hub.metrics().socks_refused(refused);
                            tracing::info!(%client, reason = %refused, "a client of the SOCKS5 server was refused");
                            Ok(())
                        }
                        Err(error) => Err(error),
                    };
                    if let Err(error) = served {
                        tracing::debug!(%client, %error, "a client of SOCKS5 was not served");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the SOCKS5 server cannot accept a client and goes on");
                tokio::time::sleep(pauses.next()).await;
            }
        }
    }
}

/// What the client wants.
async fn ask(mut stream: TcpStream) -> io::Result<Asked> {
    let wanted = match read(&mut stream, socks::greeting).await? {
        Ok(()) => {
            stream.write_all(&socks::NO_AUTHENTICATION).await?;
            read(&mut stream, socks::request).await?
        }
        Err(refused) => Err(refused),
    };
    if let Err(refused) = wanted {
        stream.write_all(refused.answer()).await?;
        stream.shutdown().await?;
        // A close before all is read would reset the connection, and the client might miss the answer.
        while stream.read(&mut [0; 1024]).await? > 0 {}
    }
    Ok(wanted.map(|wanted| (stream, wanted)))
}

/// Reads one message, and not a byte beyond: what is behind belongs to the session.
async fn read<T>(
    stream: &mut TcpStream,
    parse: impl Fn(&[u8]) -> Result<Step<T>, Refused>,
) -> io::Result<Result<T, Refused>> {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes) {
            Err(refused) => return Ok(Err(refused)),
            Ok(Step::Complete(message, _)) => return Ok(Ok(message)),
            Ok(Step::Incomplete(least)) => {
                let have = bytes.len();
                bytes.resize(have + least, 0);
                stream.read_exact(&mut bytes[have..]).await?;
            }
        }
    }
}

async fn serve(
    hub: &Hub,
    number: u64,
    (mut stream, place): (TcpStream, Place),
    wanted: Result<String, Reply>,
) -> io::Result<()> {
    let peers: Peers = hub.peer_names();
    let destination = wanted.and_then(|host| socks::destination(&host, &peers));
    let reply = match destination {
        Err(reply) => reply,
        Ok(to) => {
            let greeting = socks::reply(Reply::Succeeded).to_vec();
            match hub
                .session_with_greeting(to, Socket::tcp(stream, place), greeting, number)
                .await
            {
                Ok(Outcome {
                    socket: Some(kept),
                    end,
                }) => {
                    stream = kept.into_tcp()?;
                    of_end(end)
                }
                Ok(_) => return Ok(()),
                Err(kept) => {
                    stream = kept.into_tcp()?;
                    Reply::Failed
                }
            }
        }
    };
    stream.write_all(&socks::reply(reply)).await?;
    stream.shutdown().await
}

/// What a client learns of a session that was not opened.
fn of_end(end: End) -> Reply {
    match end {
        // SOCKS5 has a command for datagrams, which this server does not take.
        End::Refused(Refusal::TakesDatagrams) => Reply::CommandNotSupported,
        End::Refused(_) | End::ResetByPeer(_) => Reply::Refused,
        End::NoAnswer
        | End::Unanswered
        | End::Expired
        | End::ExpiredAtPeer
        | End::PathLost
        | End::PeerRestarted
        // This node has no target: it is the peer that cannot be reached.
        | End::Reset(ResetReason::TargetUnreachable) => Reply::HostUnreachable,
        End::Completed | End::Reset(_) | End::NoMemory => Reply::Failed,
    }
}
