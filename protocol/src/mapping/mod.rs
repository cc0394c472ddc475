//! Port mappings that a router grants on request: PCP, NAT-PMP and UPnP IGD, as messages without sockets.
//!
//! A router on the link is not to be trusted. Every reader here is bounded, panics on no input, and takes no address of another host
//! than the router's for one to ask.

#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod nat_pmp;
pub mod pcp;
pub mod ssdp;
pub mod upnp;

pub use http::{Http, Response};

/// A protocol whose ports are mapped.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// UDP, over which QUIC runs.
    Udp,
    /// TCP.
    Tcp,
}

impl Protocol {
    /// Its number in IP.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }

    /// Its name, as UPnP spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// The port on which a router answers PCP and NAT-PMP.
pub const ROUTER_PORT: u16 = 5351;

/// Reads big-endian integers from a datagram of known length.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}
