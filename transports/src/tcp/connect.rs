//! The TCP connection of an ordinary dial: from which port of the range it leaves.
//!
//! The punch port comes first, so that the remote sees the mapping that a punch needs. Where the kernel holds the 4-tuple, or a device
//! on the way remembers it, another port takes its place. The kernel is asked before that ([`sock_diag`]).

use std::{io, time::Duration};

use libp2p::core::transport::PortUse;
use p2pnode_protocol::Transport;
use tokio::{net::TcpStream, time::Instant};

use super::{
    dial::{AGAIN, Dial, is_in_use},
    moves::{Proposal, Source, Why},
    stream::Stream,
};
use crate::net::{
    error::Error,
    holder::{HeldBy, Holder},
    learned::Trouble,
    pool::Exhausted,
    ports::{self, Lease},
    silence, sock_diag,
    socket::{self, Segments},
};

/// How long a dial waits for a 4-tuple that is still in use, if no other port is free. Closing a connection takes a round trip or
/// two, in which nobody uses its 4-tuple and nobody else can have it.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the punch port's SYN stays without an answer before another port is tried alongside, and after it the next: the kernel has
/// repeated it by then. Late packets of an earlier connection with this 4-tuple may have made a NAT forget the new one, the remote may
/// still hold the earlier one, or a firewall drops a part of the range.
const SILENT: Duration = Duration::from_millis(1500);

/// How long three SYNs may take: the kernel repeats one after 1 and 3 s, and the third is given a second.
const THREE_SYNS: Duration = Duration::from_secs(4);

impl Dial {
    /// Connects from the punch port, or from another port of the range where the punch port has this very connection already, or where
    /// a NAT still remembers an earlier one.
    pub(super) async fn connect(&self, segments: Segments) -> Result<(Stream, Source), Error> {
        let give_up = Instant::now() + CLOSING_TIMEOUT;
        loop {
            // Ports whose 4-tuple is in use: held until the end of the round, so that each is tried once.
            let mut refused = Vec::new();
            let mut in_use = false;
            let mut why = None;
            if self.port_use == PortUse::Reuse && !self.was_reset {
                let port = self.shared.ports.punch_port(Transport::Tcp, self.family());
                let port = port.ok_or_else(|| self.no_socket())?;
                let now = Instant::now().into_std();
                let is_resting = self.shared.lessons().is_resting(port, self.remote, now);
                why = Some(if is_resting { Why::Resting } else { Why::InUse });
                if !is_resting {
                    match self.connect_from(port, segments).await {
                        Ok((stream, lease)) => {
                            return self.connected(stream, lease, Some(Why::Silent));
                        }
                        Err(error) if is_in_use(&error) => in_use = true,
                        Err(error) => return Err(self.failed(error)),
                    }
                }
            }
            // The kernel takes milliseconds for this list, and most dials have left from the punch port by now.
            let held = self.held();
            let exhausted = loop {
                let lease = match self.shared.ports.lease_beside(&held, self.family()) {
                    Ok(lease) => lease,
                    Err(exhausted) => break exhausted,
                };
                match socket::connect(lease.port(), self.remote, segments).await {
                    Ok(stream) => return self.connected(stream, Some(lease), why),
                    Err(error) if is_in_use(&error) => {
                        in_use = true;
                        refused.push(lease);
                    }
                    Err(error) => return Err(self.failed(error)),
                }
            };
            drop(refused);
            self.wait(exhausted, in_use, give_up).await?;
        }
    }

    /// The ports from which this remote cannot be dialed, because a connection to it has not ended.
    fn held(&self) -> Vec<u16> {
        let reusable = ports::timestamps();
        let held = sock_diag::toward(self.remote).into_iter();
        let held = held.filter(|connection| connection.is_in_the_way() || !reusable);
        held.map(|connection| connection.port).collect()
    }

    /// Connects from the punch port, and where it is silent also from others.
    async fn connect_from(
        &self,
        port: u16,
        segments: Segments,
    ) -> io::Result<(TcpStream, Option<Lease>)> {
        let (ports, remote, family) = (&self.shared.ports, self.remote, self.family());
        let first = || socket::connect(port, remote, segments);
        let others = || {
            let lease = ports.lease_far(Transport::Tcp, family)?;
            let connect = socket::connect(lease.port(), remote, segments);
            Some(async move { Some((connect.await.ok()?, lease)) })
        };
        let most = ports.range().len().ilog2();
        let (stream, lease) = silence::dial(SILENT, most, first, others).await?;
        ports.answered(Transport::Tcp, family);
        if let Some(lease) = &lease {
            tracing::info!(%remote, silent = port, port = lease.port(), "no answer to the punch port; connected from another port of the range");
            self.watch(port, segments);
        }
        Ok((stream, lease))
    }

    /// Another port was answered, and this one was not. It may only have been too early, so it is tried once more. If three SYNs in a row
    /// get no answer now, a NAT or a firewall on the way still remembers an earlier connection of this port, and SYNs keep that memory
    /// alive; or a firewall lets no packet of this port out. The port rests.
    fn watch(&self, port: u16, segments: Segments) {
        let (shared, remote) = (self.shared.clone(), self.remote);
        tokio::spawn(async move {
            let again = socket::connect(port, remote, segments);
            match tokio::time::timeout(THREE_SYNS, again).await {
                Ok(Ok(stream)) => {
                    if let Err(error) = socket::reset_on_close(&stream) {
                        tracing::debug!(%error, "cannot reset a connection that nobody needs");
                    }
                }
                Ok(Err(error)) => tracing::debug!(%remote, port, %error, "a port that was silent"),
                Err(_) => {
                    tracing::warn!(%remote, port, reason = "conntrack", "a NAT or firewall on the way drops packets from this port to this remote, and none from another port: it remembers an earlier connection; the port is not used there for 5 minutes");
                    shared.learn(remote, Trouble::Conntrack { port });
                }
            }
        });
    }

    /// Waits if that may help: a 4-tuple in use or a cooling port becomes free by itself, a port of another program does not.
    async fn wait(
        &self,
        exhausted: Exhausted,
        in_use: bool,
        give_up: Instant,
    ) -> Result<(), Error> {
        let left = give_up.saturating_duration_since(Instant::now());
        let cooled = self
            .shared
            .ports
            .next_free_in()
            .filter(|cooled| *cooled <= left);
        let again = if in_use { Some(AGAIN) } else { cooled };
        match again {
            Some(again) if !left.is_zero() => {
                tokio::time::sleep(again.min(left)).await;
                Ok(())
            }
            Some(_) | None => {
                let holders = sock_diag::toward(self.remote).into_iter();
                Err(Error::Exhausted(exhausted.held_by(holders.map(
                    |connection| Holder {
                        transport: Transport::Tcp,
                        port: connection.port,
                        by: HeldBy::Connection {
                            state: connection.state,
                            left: connection.left,
                        },
                    },
                ))))
            }
        }
    }

    fn connected(
        &self,
        stream: TcpStream,
        mut lease: Option<Lease>,
        why: Option<Why>,
    ) -> Result<(Stream, Source), Error> {
        if let Some(lease) = &mut lease {
            lease.connected();
        }
        let proposal = lease.as_ref().zip(why);
        let source = Source {
            sockets: self.sockets(&stream)?,
            proposal: proposal.and_then(|(lease, why)| Proposal::new(lease, self.remote, why)),
        };
        Ok((Stream::new(stream, lease), source))
    }
}
