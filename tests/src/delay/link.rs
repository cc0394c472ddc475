//! What becomes of packets between sites.

use std::{net::IpAddr, time::Duration};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ip4,
    Ip6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::Ip4, Self::Ip6];
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// What is added to each round trip.
    pub rtt: Duration,
    /// How many packets of a hundred are lost, on each way, independently of each other.
    pub loss_percent: f64,
    /// The family that is slowed alone.
    pub only: Option<Family>,
    /// The queue of a site, which is slowed alone.
    pub uplink: Option<Uplink>,
}

/// A queue of bounded rate for what comes from one IPv4 address. A packet that does not fit into it is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uplink {
    pub from: IpAddr,
    /// How long each packet takes.
    pub each: Duration,
    /// How long a packet waits in a full queue.
    pub holds: Duration,
}

impl Link {
    pub const fn rtt(rtt: Duration) -> Self {
        Self {
            rtt,
            loss_percent: 0.0,
            only: None,
            uplink: None,
        }
    }

    pub const fn uplink(uplink: Uplink) -> Self {
        Self {
            only: Some(Family::Ip4),
            uplink: Some(uplink),
            ..Self::rtt(Duration::ZERO)
        }
    }

    pub const fn loss(mut self, percent: f64) -> Self {
        self.loss_percent = percent;
        self
    }

    pub const fn only(mut self, family: Family) -> Self {
        self.only = Some(family);
        self
    }

    pub(super) fn slows(self, family: Family) -> bool {
        self.only.is_none_or(|only| only == family)
    }

    pub(super) fn one_way(self) -> Duration {
        self.rtt / 2
    }
}
