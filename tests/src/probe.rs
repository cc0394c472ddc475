//! Plain sockets inside the lab's hosts: to prove what a NAT does, without the programs under test.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use crate::host::Host;

/// The lab has no latency: what has not arrived after this long, on a busy machine too, never will.
const NEVER: Duration = Duration::from_millis(800);
/// For what must arrive: longer than a SYN's retransmissions on a busy machine.
const SOON: Duration = Duration::from_secs(15);

pub async fn udp(host: &Host, port: u16) -> Result<UdpSocket> {
    let local = SocketAddr::new(any(host), port);
    let bound = host.device.spawn(move |_| UdpSocket::bind(local))?.await?;
    bound.with_context(|| format!("udp {local} in {}", host.device.name()))
}

/// A TCP listener of the host on that port, which it shares with dials from the same port.
pub async fn listen(host: &Host, port: u16) -> Result<TcpListener> {
    let local = SocketAddr::new(any(host), port);
    let bound = host
        .device
        .spawn(move |_| async move { shared(local)?.listen(16) })?
        .await?;
    bound.with_context(|| format!("tcp {local} in {}", host.device.name()))
}

pub async fn connect(host: &Host, port: u16, remote: SocketAddr) -> Result<TcpStream> {
    let connected = connect_within(host, port, remote, SOON).await?;
    connected.with_context(|| {
        format!(
            "{}: no TCP connection from port {port} to {remote}",
            host.device.name()
        )
    })
}

pub async fn connects(host: &Host, port: u16, remote: SocketAddr) -> Result<bool> {
    Ok(connect_within(host, port, remote, NEVER).await?.is_some())
}

async fn connect_within(
    host: &Host,
    port: u16,
    remote: SocketAddr,
    within: Duration,
) -> Result<Option<TcpStream>> {
    let local = SocketAddr::new(any(host), port);
    let dial = host.device.spawn(move |_| async move {
        let socket = shared(local)?;
        match timeout(within, socket.connect(remote)).await {
            Ok(Ok(stream)) => Ok(Some(stream)),
            Ok(Err(_)) | Err(_) => Ok::<_, std::io::Error>(None),
        }
    })?;
    dial.await?
        .with_context(|| format!("tcp {local} in {}", host.device.name()))
}

/// The next packet: its first byte and its source.
pub async fn receive(socket: &UdpSocket) -> Result<(u8, SocketAddr)> {
    let received = receive_within(socket, SOON).await?;
    received.with_context(|| format!("no packet for {:?}", socket.local_addr()))
}

pub async fn drain(socket: &UdpSocket) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some((byte, _)) = receive_within(socket, NEVER).await? {
        bytes.push(byte);
    }
    Ok(bytes)
}

async fn receive_within(socket: &UdpSocket, within: Duration) -> Result<Option<(u8, SocketAddr)>> {
    let mut byte = [0; 1];
    match timeout(within, socket.recv_from(&mut byte)).await {
        Ok(received) => Ok(Some((byte[0], received?.1))),
        Err(_) => Ok(None),
    }
}

fn shared(local: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(local)?;
    Ok(socket)
}

fn any(host: &Host) -> IpAddr {
    match host.addresses.first() {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        Some(IpAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
    }
}
