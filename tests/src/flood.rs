//! Sockets that say nothing, from inside a host of the lab.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{command::run, host::Host, lab::Lab, transport::PATIENCE};

/// Until a connection that was closed is made again. Sockets that say nothing are to be the attack, not a flood of SYNs, which the
/// kernel's queue and the CPU of the machine bound.
const REOPEN: Duration = Duration::from_millis(500);

/// Silent TCP connections, each made again when it was closed, until dropped.
pub struct Silent {
    tasks: Vec<JoinHandle<()>>,
    opened: watch::Sender<usize>,
}

impl Silent {
    /// So many at a time from `host` to `remote`, from these of its addresses in turn.
    pub fn start(host: &Host, remote: SocketAddr, from: &[IpAddr], count: usize) -> Result<Self> {
        let opened = watch::Sender::new(0);
        let mut tasks = Vec::new();
        for source in from.iter().copied().cycle().take(count) {
            let opened = opened.clone();
            let task = move |_| async move {
                loop {
                    if let Ok(mut stream) = connect(source, remote).await {
                        opened.send_modify(|opened| *opened += 1);
                        // It ends when the other side closes it.
                        let _closed = stream.read(&mut [0]).await;
                    }
                    sleep(REOPEN).await;
                }
            };
            tasks.push(host.device.spawn(task)?);
        }
        Ok(Self { tasks, opened })
    }

    /// Waits until so many were opened, again and again ones included.
    pub async fn opened(&self, count: usize) -> Result<()> {
        let mut opened = self.opened.subscribe();
        let reached = timeout(PATIENCE, opened.wait_for(|opened| *opened >= count)).await;
        reached.with_context(|| format!("{:?} of {count}", self.opened))??;
        Ok(())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn connect(source: IpAddr, remote: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if source.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(remote).await
}

/// Gives a public host more IPv6 addresses, each in a /64 of its own or not, and the way to them.
pub fn has_also(lab: &Lab, host: &Host, addresses: &[IpAddr]) -> Result<()> {
    let IpAddr::V6(gateway) = host.ip(true)? else {
        anyhow::bail!("no IPv6");
    };
    let texts: Vec<String> = addresses.iter().map(|ip| format!("{ip}/128")).collect();
    let own = texts.clone();
    host.device.run_sync(move || {
        for address in &own {
            run(
                "ip",
                &["-6", "addr", "add", address, "dev", "eth0", "nodad"],
            )?;
        }
        Ok(())
    })?;
    lab.route(&texts, gateway)
}
