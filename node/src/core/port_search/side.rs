//! How this side's NAT maps, from a sample of the range.

use std::net::SocketAddr;

use p2pnode_protocol::port_search::{FRESH, LOWEST_PORT, MAX_SOCKETS, Ports, Side};

use crate::core::netcheck::{Allocation, AllocationKind};

/// What a relay has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The punch socket, at two ports of the relay or at two relays.
    pub(crate) punch: Vec<SocketAddr>,
    /// Other ports of the range in the order in which they asked, and what they are mapped to. Empty if the punch socket has one
    /// mapping.
    pub(crate) ports: Vec<(u16, u16)>,
    /// The ports of the range that a search may open.
    pub(crate) free: usize,
}

/// This side, for an offer; `None` if the relay has seen nothing.
pub(crate) fn side(sample: &Sample) -> Option<Side> {
    let mapped = *sample.punch.first()?;
    let is_hard = sample.punch.iter().any(|other| *other != mapped);
    let ports = is_hard.then(|| ports(&sample.ports));
    let sockets = u16::try_from(sample.free).map_or(MAX_SOCKETS, |free| free.min(MAX_SOCKETS));
    Some(Side {
        mapped,
        ports,
        sockets: if is_hard { sockets } else { 0 },
        fresh: None,
    })
}

/// The same with the next port of the range in place of the punch port, to which a path moves; `None` behind a symmetric NAT.
pub(crate) fn next_side(sample: &Sample) -> Option<Side> {
    let punch = sample.punch.first()?;
    let is_hard = sample.punch.iter().any(|other| other != punch);
    let (_, next) = sample.ports.first().filter(|_| !is_hard)?;
    Some(Side {
        mapped: SocketAddr::new(punch.ip(), *next),
        ports: Some(Ports::Block {
            from: *next,
            to: *next,
        }),
        sockets: 1,
        fresh: None,
    })
}

/// Where a relay sees the fresh sockets of this side, if at the same address as the punch socket.
pub(super) fn fresh(sample: &Sample, side: Side) -> Option<[u16; FRESH]> {
    let punch = sample.punch.first()?;
    let ports = sample.ports.iter().map(|(_, mapped)| *mapped);
    let ports: Vec<u16> = ports.filter(|_| punch.ip() == side.mapped.ip()).collect();
    ports.try_into().ok()
}

fn ports(sample: &[(u16, u16)]) -> Ports {
    let allocation = Allocation::of_ports(sample);
    let mapped = || sample.iter().map(|(_, mapped)| *mapped);
    match (allocation.kind, allocation.step) {
        (AllocationKind::Sequential, Some(step)) => Ports::Sequential {
            last: mapped().next_back().unwrap_or(LOWEST_PORT),
            step,
        },
        (AllocationKind::Block | AllocationKind::Preserved, _) => {
            block(mapped().min(), mapped().max(), sample.len())
        }
        (AllocationKind::Sequential | AllocationKind::Random | AllocationKind::Unknown, _) => {
            Ports::Random
        }
    }
}

/// How sure the class is, in percent: 100 less the chance that random ports would have looked alike. Of random ports 100, if
/// there are enough of them to show another class.
pub(crate) fn confidence(sample: &Sample) -> u8 {
    let ports = u16::MAX - LOWEST_PORT;
    let others = i32::try_from(sample.ports.len()).unwrap_or(i32::MAX) - 1;
    let share = |ports_of: u16| f64::from(ports_of) / f64::from(ports);
    let is_hard = sample.punch.iter().any(|other| *other != sample.punch[0]);
    let alike = match is_hard.then(|| self::ports(&sample.ports)) {
        // Each further place of the relay has seen the same port.
        None => share(1).powi(i32::try_from(sample.punch.len()).unwrap_or(i32::MAX) - 1),
        Some(Ports::Block { from, to }) => share(to - from).powi(others),
        Some(Ports::Sequential { step, .. }) => share(step).powi(others),
        Some(Ports::Random) if others < 3 => 1.0,
        Some(Ports::Random) => 0.0,
    };
    (100.0 * (1.0 - alike)).floor() as u8
}

/// The block of which these are the lowest and the highest port of a sample. Each of its ends lies about one gap further.
fn block(from: Option<u16>, to: Option<u16>, sampled: usize) -> Ports {
    let (Some(from), Some(to)) = (from, to) else {
        return Ports::Random;
    };
    let gaps = u16::try_from(sampled.saturating_sub(1).max(1)).unwrap_or(u16::MAX);
    let margin = (to - from) / gaps;
    Ports::Block {
        from: from.saturating_sub(margin).max(LOWEST_PORT.min(from)),
        to: to.saturating_add(margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(punch: &[u16], ports: impl Fn(u16) -> u16) -> Sample {
        let at = |port: &u16| SocketAddr::from(([203, 0, 113, 7], *port));
        Sample {
            punch: punch.iter().map(at).collect(),
            ports: (40001..40051).map(|port| (port, ports(port))).collect(),
            free: 48,
        }
    }

    #[test]
    fn a_punch_socket_with_one_mapping_is_easy_whatever_the_others_are() {
        let side =
            side(&sample(&[40000, 40000], |port| port)).map(|side| (side.ports, side.sockets));
        assert_eq!(side, Some((None, 0)));
        assert_eq!(super::side(&sample(&[], |port| port)), None);
    }

    #[test]
    fn a_class_is_as_sure_as_random_ports_are_unlike_it() {
        let of = |punch: &[u16], ports: fn(u16) -> u16, count: usize| {
            let mut sample = sample(punch, ports);
            sample.ports.truncate(count);
            confidence(&sample)
        };
        let random = |port: u16| 1024 + port.wrapping_mul(40503) % 64000;
        let block = |port: u16| 20_000 + port.wrapping_mul(40503) % 1024;
        assert_eq!(of(&[40000], |port| port, 0), 0, "seen once");
        assert_eq!(of(&[40000, 40000], |port| port, 0), 99);
        assert_eq!(of(&[1, 2], random, 50), 100);
        assert_eq!(of(&[1, 2], random, 3), 0, "too few");
        assert_eq!(of(&[1, 2], block, 50), 100);
        assert!((90..100).contains(&of(&[1, 2], block, 4)));
        assert_eq!(of(&[1, 2], |port| port - 10_000, 4), 99);
    }

    #[test]
    fn a_hard_side_says_how_its_nat_allocates() {
        let ports = |of: fn(u16) -> u16| side(&sample(&[1, 2], of)).and_then(|side| side.ports);
        let random = |port: u16| 1024 + port.wrapping_mul(40503) % 64000;
        assert_eq!(ports(random), Some(Ports::Random));
        assert_eq!(
            ports(|port| 20000 + (port - 40001) * 2),
            Some(Ports::Sequential {
                last: 20098,
                step: 2
            })
        );
        let Some(Ports::Block { from, to }) = ports(|port| 20000 + port.wrapping_mul(40503) % 1024)
        else {
            panic!("no block");
        };
        assert!((19800..=20050).contains(&from) && (20974..=21224).contains(&to));
    }
}
