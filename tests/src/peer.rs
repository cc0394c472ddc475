//! A peer behind its NAT, with captures on both sides of it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    capture::Capture,
    host::Host,
    lab::{Lab, Site},
    nat::{NatKind, RANGE},
};

pub struct Peer {
    pub site: Site,
    pub host: Host,
    /// The capture whose inside is the LAN.
    pub home: Capture,
    carrier: Option<Capture>,
}

impl Peer {
    pub async fn new(lab: &Lab, name: &str, kind: NatKind) -> Result<Self> {
        let (site, host) = lab.home(name, kind).await?;
        Self::of(lab, site, host).await
    }

    /// A host in a site that is there.
    pub(crate) async fn of(lab: &Lab, site: Site, host: Host) -> Result<Self> {
        Ok(Self {
            host,
            home: lab.capture(&site).await?,
            carrier: lab.capture_carrier(&site).await?,
            site,
        })
    }

    /// The capture whose outside is the internet.
    pub fn edge(&self) -> &Capture {
        self.carrier.as_ref().unwrap_or(&self.home)
    }

    pub async fn settle(&self) -> Result<()> {
        self.home.settle().await?;
        self.edge().settle().await
    }

    pub async fn keeps_range(&self) -> Result<()> {
        self.home.keeps(&self.host, &RANGE).await
    }
}

pub fn sockets(path: &Value) -> Result<(SocketAddr, SocketAddr)> {
    let socket = |end: &str| {
        let text = path["hops"][0][end].as_str().unwrap_or("unknown");
        let socket = text.parse::<SocketAddr>();
        socket.with_context(|| format!("the {end} socket of {path}"))
    };
    Ok((socket("local")?, socket("remote")?))
}

pub fn protocol(path: &Value) -> &'static str {
    if path["hops"][0]["transport"] == "tcp" {
        "tcp"
    } else {
        "udp"
    }
}

/// Asserts that two direct paths are one connection, between sockets that are on the wire: what each side calls its remote is what
/// the other's packets left its NAT as.
pub async fn same_connection(
    (a, a_path): (&Peer, &Value),
    (b, b_path): (&Peer, &Value),
) -> Result<()> {
    let protocol_of = protocol(a_path);
    ensure!(protocol(b_path) == protocol_of, "A: {a_path}, B: {b_path}");
    let ((a_local, a_remote), (b_local, b_remote)) = (sockets(a_path)?, sockets(b_path)?);
    for (side, local, remote, mapped) in [
        (a, a_local, a_remote, b_remote),
        (b, b_local, b_remote, a_remote),
    ] {
        let flow = (local, remote);
        side.home.has_flow(&side.host, protocol_of, flow).await?;
        side.settle().await?;
        let outside = side.edge().left_as(protocol_of, remote);
        ensure!(
            outside.contains(&mapped),
            "{local} left its NAT as {outside:?} towards {remote}; the other side says it talks to {mapped}"
        );
    }
    Ok(())
}
