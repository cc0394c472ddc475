//! Places that others need, taken and held.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
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
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    time::{interval, sleep},
};

use super::{
    Args, Tally, forever,
    raw::{Identity, Wire, socket, tcp_stream},
};

const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn silent(args: Arc<Args>, tally: Tally) -> Result<()> {
    for number in 0..args.connections {
        let (remote, source) = (socket(args.at(number)?)?, args.source(number));
        let tally = tally.clone();
        tokio::spawn(async move {
            loop {
                match tcp_stream(remote, source).await {
                    Ok(mut stream) => {
                        tally.add("opened", 1);
                        tally.add("open", 1);
                        let mut buffer = [0; 256];
                        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                        tally.add("open", -1);
                    }
                    Err(error) => tally.add(&format!("not opened: {error}"), 1),
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

/// TCP connections on which a byte of a handshake comes each second.
pub(super) async fn drip(args: Arc<Args>, tally: Tally) -> Result<()> {
    const HELLO: &[u8] =
        b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n\x16\x03\x01\x7f\xff\x01\x00\x7f\xfb\x03\x03";
    for number in 0..args.connections {
        let (remote, source) = (socket(args.at(number)?)?, args.source(number));
        let tally = tally.clone();
        tokio::spawn(async move {
            loop {
                match tcp_stream(remote, source).await {
                    Ok(mut stream) => {
                        tally.add("opened", 1);
                        for byte in HELLO.iter().chain(std::iter::repeat(&0)) {
                            if stream.write_all(&[*byte]).await.is_err() {
                                break;
                            }
                            sleep(Duration::from_secs(1)).await;
                        }
                        tally.add("closed", 1);
                    }
                    Err(error) => tally.add(&format!("not opened: {error}"), 1),
                }
                sleep(PAUSE).await;
            }
        });
    }
    forever().await
}

/// Packets of an unknown version, of a known one that mean nothing, and of connections that are not there, from one port.
pub(super) async fn stray_packets(args: Arc<Args>, tally: Tally) -> Result<()> {
    let remote = socket(args.at(0)?)?;
    let any = if remote.is_ipv4() { "0.0.0.0" } else { "::" };
    let bound = UdpSocket::bind(SocketAddr::new(any.parse()?, 0)).await?;
    bound.connect(remote).await?;
    let mut pace = interval(Duration::from_millis(1));
    let mut answer = [0; 2048];
    loop {
        pace.tick().await;
        for number in 0..args.per_second.unwrap_or(20_000) / 1000 {
            let mut packet: Vec<u8> = (0..1200).map(|_| fastrand::u8(..)).collect();
            match number % 3 {
                0 => packet[..6].copy_from_slice(&[0xc0, 0xfa, 0xce, 0, 1, 8]),
                1 => packet[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]),
                _ => packet[0] = 0x40 | packet[0] & 0x3f,
            }
            if bound.send(&packet).await.is_ok() {
                tally.add("sent", 1);
                tally.add("bytes sent", 1200);
            }
        }
        while let Ok(length) = bound.try_recv(&mut answer) {
            tally.add("answers", 1);
            tally.add("bytes answered", i64::try_from(length)?);
        }
    }
}

/// First packets at a pace, each complete, from a port of its own and of a client of its own.
pub(super) async fn initial(args: Arc<Args>, tally: Tally) -> Result<()> {
    let mut pace = interval(Duration::from_secs(1) / args.per_second.unwrap_or(100));
    for number in 0.. {
        pace.tick().await;
        let remote = socket(args.at(number)?)?;
        let packet = first_packet().await?;
        let any = if remote.is_ipv4() { "0.0.0.0" } else { "::" };
        let from = args.source(number).unwrap_or(any.parse()?);
        let bound = UdpSocket::bind(SocketAddr::new(from, 0)).await?;
        bound.send_to(&packet, remote).await?;
        tally.add("opened", 1);
    }
    Ok(())
}

/// What a client sends to a socket that answers nothing; QUIC binds it to no address.
async fn first_packet() -> Result<Vec<u8>> {
    let trap = UdpSocket::bind("127.0.0.1:0").await?;
    let address = Multiaddr::from(std::net::Ipv4Addr::LOCALHOST)
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
        _ended = dial => anyhow::bail!("a socket that answers nothing was connected to"),
    };
    packet.truncate(length);
    Ok(packet)
}

pub(super) async fn idle(args: Arc<Args>, tally: Tally) -> Result<()> {
    let mut pace = interval(Duration::from_secs(1) / args.per_second.unwrap_or(400));
    for number in 0..args.connections {
        pace.tick().await;
        let (args, tally) = (Arc::clone(&args), tally.clone());
        tokio::spawn(async move {
            let wire = args.connect(number, &Identity::new()).await;
            tally.outcome("opened", &wire);
            if let Ok(wire) = wire {
                tally.add("open", 1);
                wire.closed().await;
                tally.add("open", -1);
            }
        });
    }
    forever().await
}

pub(super) async fn silent_circuits(args: Arc<Args>, tally: Tally) -> Result<()> {
    let to = args.to()?;
    for number in 0..args.connections {
        let wire = args.connect(number, &Identity::new()).await;
        tally.outcome("connected", &wire);
        let wire: Wire = wire?;
        for _ in 0..args.streams {
            let (wire, tally) = (wire.clone(), tally.clone());
            tokio::spawn(async move {
                loop {
                    let circuit = wire.circuit(to).await;
                    tally.outcome("circuits", &circuit);
                    if let Ok(mut circuit) = circuit {
                        tally.add("open", 1);
                        let mut buffer = [0; 256];
                        while futures::AsyncReadExt::read(&mut circuit, &mut buffer)
                            .await
                            .is_ok_and(|read| read > 0)
                        {}
                        tally.add("open", -1);
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }
    forever().await
}
