//! How the socket of a flow at its target is made.

use std::{io, net::SocketAddr, sync::Arc};

use p2pnode_services::config::{Address, Host};

use crate::services::sources::{Sources, TargetSocket};

/// A socket that sends to `target`, as it is written, from one of `sources`.
pub(super) async fn connect(
    target: &p2pnode_services::config::Target,
    sources: Sources,
) -> io::Result<Arc<TargetSocket>> {
    let found: Vec<SocketAddr> = match target {
        Address::Udp(Host::Ip(ip), port) => vec![(*ip, *port).into()],
        Address::Udp(Host::Name(name), port) => tokio::net::lookup_host((name.as_str(), *port))
            .await?
            .collect(),
        Address::Tcp(..) | Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for remote in found {
        match sources.connect_udp(remote).await {
            Ok(socket) => return Ok(Arc::new(socket)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
