//! The two transports, as addresses and in JSON.

use std::{fmt, time::Duration};

use serde::Serialize;

/// For what a healthy process does in a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Quic,
    Tcp,
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }

    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Quic => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The address of a port, which may stand in braces, on an IP address.
    pub fn addr(self, ip: impl fmt::Display, port: impl fmt::Display) -> String {
        let ip = ip.to_string();
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        match self {
            Self::Quic => format!("/{family}/{ip}/udp/{port}/quic-v1"),
            Self::Tcp => format!("/{family}/{ip}/tcp/{port}"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
