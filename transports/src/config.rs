//! What a node configures.

use crate::{
    net::{family::FamilyPolicy, range::PortRange},
    quic::congestion::Congestion,
};

/// What [`build`](crate::build) builds.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The source ports of all dials.
    pub range: PortRange,
    /// Whether QUIC is dialed and listened on.
    pub quic: bool,
    /// Whether TCP is dialed and listened on.
    pub tcp: bool,
    /// Which IP families are dialed. Public listeners are not subject to it.
    pub family: FamilyPolicy,
    /// The congestion control of QUIC.
    pub congestion: Congestion,
}
