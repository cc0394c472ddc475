//! A flow of datagrams through a forward, and the target that answers them.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, timeout};

use super::traffic::AGAIN;
use crate::host::Host;

/// Where they are sent to, as a forward listens.
pub const DATAGRAMS: &str = "udp://127.0.0.1:7000";
/// Where a service takes them to.
pub const DATAGRAM_TARGET: &str = "udp://127.0.0.1:7001";

/// After this a datagram, or its answer, counts as lost.
const LOST: Duration = Duration::from_millis(500);
/// The longest that UDP has over IPv4.
const LONGEST: usize = 65_507;
/// Those that every path carries as they are, and the longest.
const SIZES: [usize; 2] = [100, LONGEST];

fn at(address: &str) -> Result<SocketAddr> {
    let socket = address.strip_prefix("udp://").unwrap_or(address);
    socket.parse().with_context(|| address.to_owned())
}

/// A client, with a socket of its own: one flow.
pub struct Datagrams {
    socket: tokio::net::UdpSocket,
    number: u64,
}

impl Datagrams {
    /// Starts the target on `host`. An answer is the datagram without its last byte, so that the two ways carry unlike numbers of bytes.
    pub fn answers_on(host: &Host) -> Result<()> {
        let target = at(DATAGRAM_TARGET)?;
        let socket = host.device.run_sync(move || Ok(UdpSocket::bind(target)?))?;
        thread::spawn(move || {
            let mut bytes = vec![0; LONGEST];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                // What is lost is lost.
                let _ = socket.send_to(&bytes[..length.saturating_sub(1)], from);
            }
        });
        Ok(())
    }

    pub async fn start(host: &Host) -> Result<Self> {
        let to = at(DATAGRAMS)?;
        let connected = host.device.spawn(move |_| async move {
            let socket = tokio::net::UdpSocket::bind((to.ip(), 0)).await?;
            socket.connect(to).await?;
            anyhow::Ok(socket)
        })?;
        let socket = connected.await??;
        Ok(Self { socket, number: 0 })
    }

    /// Waits until a short datagram and one of the greatest length have come back, both sent from now on.
    pub async fn answered(&mut self) -> Result<()> {
        for size in SIZES {
            self.answers(size).await?;
        }
        Ok(())
    }

    async fn answers(&mut self, size: usize) -> Result<()> {
        let mut answer = vec![0; LONGEST];
        let until = Instant::now() + AGAIN;
        loop {
            let sent = self.send(size).await?;
            // Earlier answers come before.
            while let Ok(Ok(got)) = timeout(LOST, self.socket.recv(&mut answer)).await {
                if answer[..got] == sent[..size - 1] {
                    return Ok(());
                }
            }
            ensure!(
                Instant::now() < until,
                "a datagram of {size} bytes has no answer"
            );
        }
    }

    /// Sends another one.
    pub async fn send(&mut self, size: usize) -> Result<Vec<u8>> {
        self.number += 1;
        let number = self.number.to_be_bytes();
        let bytes: Vec<_> = number.into_iter().cycle().take(size).collect();
        // A forward that is gone refuses it.
        let _ = self.socket.send(&bytes).await;
        Ok(bytes)
    }

    /// Whether an answer has come that was not waited for.
    pub fn has_more(&self) -> bool {
        self.socket.try_recv(&mut [0; 1]).is_ok()
    }
}
