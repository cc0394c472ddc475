//! How the router is asked: the port of the range that requests leave from, over UDP and over TCP.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use p2pnode_protocol::mapping::Response;
use p2pnode_transports::{ClaimedUdp, Family, Handle, Interfaces};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};

use crate::core::mappings::Gateway;

/// A router's web server answers within this time.
const CALL: Duration = Duration::from_secs(5);
/// Calls that wait: as many as the machine leaves open.
pub(super) const CALLS: usize = 32;

pub(super) type Answer = (u64, Option<Vec<u8>>);
type Call = (u64, SocketAddr, Vec<u8>);

/// The port of the range that requests leave from.
pub(super) struct Io {
    pub(super) socket: Arc<ClaimedUdp>,
    pub(super) calls: mpsc::Sender<Call>,
}

pub(super) fn claim(sockets: &Handle, answers: &mpsc::Sender<Answer>) -> Option<Io> {
    let socket = sockets.claim_udp(Family::Ip4);
    let socket = socket
        .inspect_err(
            |error| tracing::debug!(%error, "no port of the range is left to ask the router from"),
        )
        .ok()?;
    let socket = Arc::new(socket);
    let (calls, queue) = mpsc::channel(CALLS);
    tokio::spawn(answer(queue, Arc::clone(&socket), answers.clone()));
    Some(Io { socket, calls })
}

/// Carries out calls, one at a time: all of them have one port, and a router one address.
async fn answer(
    mut calls: mpsc::Receiver<Call>,
    socket: Arc<ClaimedUdp>,
    answers: mpsc::Sender<Answer>,
) {
    while let Some((id, to, request)) = calls.recv().await {
        let answer = timeout(CALL, call(&socket, to, &request)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let answer =
            answer.inspect_err(|error| tracing::debug!(%error, %to, "the router does not answer"));
        if answers.send((id, answer.ok())).await.is_err() {
            return;
        }
    }
}

/// The router of IPv4.
pub(super) fn gateway(interfaces: &Interfaces, sockets: &Handle) -> Option<Gateway> {
    let router = interfaces
        .gateways()
        .iter()
        .copied()
        .find(IpAddr::is_ipv4)?;
    let own = sockets.source_ip(router)?;
    Some(Gateway { router, own })
}

pub(super) async fn receive(io: Option<&Io>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match io {
        Some(io) => io.socket.socket().recv_from(buffer).await,
        None => pending().await,
    }
}

async fn call(socket: &ClaimedUdp, to: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = socket.connect_tcp(to).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    while !Response::is_whole(&answer) && answer.len() < Response::LARGEST {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

pub(super) async fn send(io: &Io, datagram: &[u8], to: SocketAddr) {
    if let Err(error) = io.socket.socket().send_to(datagram, to).await {
        tracing::debug!(%error, %to, "cannot ask the router");
    }
}
