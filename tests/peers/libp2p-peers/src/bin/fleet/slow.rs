//! Connections that are begun and never finished.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use libp2p::{
    Multiaddr, Transport as _,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
    multiaddr::Protocol,
    quic,
};
use libp2p_peers::tell;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::OwnedSemaphorePermit,
};

use crate::{pace::Pace, tally::Tally};

/// The first line of multistream-select, of which `drip` sends a byte at a time.
const GREETING: &[u8] = b"\x13/multistream/1.0.0\n";
const DRIP: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The relay, of the transport that `how` is about.
    #[arg(long)]
    relay: Multiaddr,
    /// How many connections.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How.
    #[arg(long)]
    how: How,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// TCP connections on which nothing is said.
    Silent,
    /// TCP connections on which a byte is said now and then.
    Drip,
    /// First packets of QUIC connections, each complete and from a port of its own, and no second one.
    Initial,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let remote = socket(&args.relay)?;
    let tally = Tally::start(&["opened", "open"], 0);
    let mut starter = args.pace.start();
    for _ in 0..args.connections {
        let Some(place) = starter.next().await else {
            break;
        };
        let (tally, how) = (tally.clone(), args.how);
        if how == How::Initial {
            initial(remote).await?;
            tally.add("opened", 1);
            continue;
        }
        tokio::spawn(async move {
            match tcp(remote, how, &tally, place).await {
                Ok(()) => tally.because("ended", "closed"),
                Err(error) => tally.because("ended", &format!("{error:#}")),
            }
        });
    }
    tally.tell();
    tell(&json!({"event": "abused", "connections": args.connections}));
    std::future::pending().await
}

async fn tcp(
    remote: SocketAddr,
    how: How,
    tally: &Tally,
    place: OwnedSemaphorePermit,
) -> Result<()> {
    let mut stream = TcpStream::connect(remote).await.context("not connected")?;
    drop(place);
    tally.add("opened", 1);
    tally.add("open", 1);
    let ended = speak(&mut stream, how).await;
    tally.add("open", -1);
    ended
}

async fn speak(stream: &mut TcpStream, how: How) -> Result<()> {
    let (mut read, mut write) = stream.split();
    let drip = async {
        if how == How::Drip {
            for byte in GREETING {
                write.write_all(&[*byte]).await.context("closed")?;
                tokio::time::sleep(DRIP).await;
            }
        }
        std::future::pending::<Result<()>>().await
    };
    let listen = async {
        let mut buffer = [0; 256];
        while read.read(&mut buffer).await.context("closed")? > 0 {}
        anyhow::Ok(())
    };
    tokio::select! {
        ended = drip => ended,
        ended = listen => ended,
    }
}

/// Sends a first packet that is all that it should be. A client made it for a socket that answers nothing; QUIC binds it to no
/// address.
async fn initial(remote: SocketAddr) -> Result<()> {
    let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = Multiaddr::from(Ipv4Addr::LOCALHOST)
        .with(Protocol::Udp(trap.local_addr()?.port()))
        .with(Protocol::QuicV1);
    let mut transport =
        quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dial = transport.dial(address, opts)?;
    let mut packet = vec![0; 2048];
    let length = tokio::select! {
        length = trap.recv(&mut packet) => length?,
        ended = dial => {
            ended.map(drop).context("no first packet")?;
            anyhow::bail!("a socket that answers nothing was connected to");
        }
    };
    let any: SocketAddr = if remote.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.send_to(&packet[..length], remote).await?;
    Ok(())
}

fn socket(relay: &Multiaddr) -> Result<SocketAddr> {
    let mut parts = relay.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => anyhow::bail!("{relay} begins with no IP address"),
    };
    match parts.next() {
        Some(Protocol::Tcp(port) | Protocol::Udp(port)) => Ok(SocketAddr::new(ip, port)),
        _ => anyhow::bail!("{relay} has no port"),
    }
}
