//! When the node is ready: its punch sockets are bound, and peers can reach it.

use p2pnode_daemon::admin::Readiness;
use p2pnode_transports::Exhausted;

use crate::core::relays::RelayKeeper;

const SOCKETS: &str = "punch sockets";
const RESERVATION: &str = "reservation";
const NODE: &str = "node";

/// Nothing is there yet.
pub(crate) fn new() -> Readiness {
    Readiness::new([(SOCKETS, "not bound yet"), (RESERVATION, "none held yet")])
}

/// Updates `readiness`. `listens`: whether the node listens publicly.
pub(crate) fn update(
    readiness: &Readiness,
    sockets: &p2pnode_transports::Handle,
    relays: &RelayKeeper,
    listens: bool,
) {
    let bound = sockets.punch_ports().len();
    set(readiness, SOCKETS, no_socket(bound, sockets.unbound()));
    let connected = |relay: &_| relays.is_connected(relay);
    let refused = relays.relays().filter_map(|relay| {
        let reason = relays.refusal(&relay)?;
        Some(format!("; relay {relay} refused us: {reason}"))
    });
    let refused: String = refused.collect();
    let unreserved = relays.relays().filter_map(|relay| {
        let reason = relays.reservation_failure(&relay)?;
        Some(format!("; relay {relay} gave no reservation: {reason}"))
    });
    let unreserved: String = unreserved.collect();
    let reach = Reach {
        listens,
        relays: relays.relays().count(),
        connected: relays.relays().filter(connected).count(),
        wanted: relays.wanted(),
        held: relays.held(),
    };
    let missing = reach
        .missing()
        .map(|missing| missing + &refused + &unreserved);
    set(readiness, RESERVATION, missing);
}

/// The node shuts down and takes no further work.
pub(crate) fn stopping(readiness: &Readiness) {
    readiness.missing(NODE, "shutting down");
}

fn set(readiness: &Readiness, name: &'static str, missing: Option<String>) {
    match missing {
        Some(why) => readiness.missing(name, why),
        None => readiness.present(name),
    }
}

/// The problem with the punch sockets, of which `bound` are bound. A socket for which no port was left is missing. A socket that
/// the host cannot have, such as one of an IP family that it lacks, is not.
fn no_socket(bound: usize, unbound: Option<Exhausted>) -> Option<String> {
    match unbound {
        Some(exhausted) => Some(format!(
            "{exhausted}: stop the programs that hold the ports, or set dial.port_range to another range"
        )),
        None if bound == 0 => Some("none is bound".to_owned()),
        None => None,
    }
}

/// How others may reach the node.
#[derive(Debug, Clone, Copy)]
struct Reach {
    listens: bool,
    /// Relays that are configured.
    relays: usize,
    /// Those of them to which a connection is open.
    connected: usize,
    /// Reservations that the node is to hold.
    wanted: usize,
    /// Those that it holds.
    held: usize,
}

impl Reach {
    /// Why peers cannot reach the node. A node that listens publicly needs no reservation.
    fn missing(self) -> Option<String> {
        let Self {
            listens,
            relays,
            connected,
            wanted,
            held,
        } = self;
        if listens || held > 0 {
            None
        } else if relays == 0 {
            Some(
                "no relay is configured and the node does not listen: give --relay or --listen"
                    .to_owned(),
            )
        } else if wanted == 0 {
            Some(
                "reservations is 0 and the node does not listen: raise it, or give --listen"
                    .to_owned(),
            )
        } else {
            Some(format!(
                "held on none of {relays} relay(s), of which {connected} are connected"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const HIDDEN: Reach = Reach {
        listens: false,
        relays: 2,
        connected: 1,
        wanted: 2,
        held: 0,
    };

    #[test]
    fn a_node_that_no_peer_can_reach_reports_what_is_missing() {
        assert_eq!(
            HIDDEN.missing().unwrap(),
            "held on none of 2 relay(s), of which 1 are connected"
        );
        let alone = Reach {
            relays: 0,
            connected: 0,
            ..HIDDEN
        };
        assert!(
            alone
                .missing()
                .unwrap()
                .contains("give --relay or --listen")
        );
        let unwilling = Reach {
            wanted: 0,
            ..HIDDEN
        };
        assert!(
            unwilling
                .missing()
                .unwrap()
                .starts_with("reservations is 0")
        );
    }

    #[test]
    fn one_reservation_or_a_public_listener_is_enough() {
        let held = Reach { held: 1, ..HIDDEN };
        assert_eq!(held.missing(), None);
        let listens = Reach {
            listens: true,
            relays: 0,
            connected: 0,
            ..HIDDEN
        };
        assert_eq!(listens.missing(), None);
    }

    #[test]
    fn a_range_without_a_port_left_for_a_socket_is_named_with_the_remedy() {
        let exhausted = Exhausted {
            range: "40000-40001".parse().unwrap(),
            holders: Vec::new(),
        };
        let missing = no_socket(2, Some(exhausted)).unwrap();
        assert!(
            missing.starts_with("port range 40000-40001 exhausted: ")
                && missing.contains("dial.port_range"),
            "{missing}"
        );
        assert_eq!(no_socket(0, None).unwrap(), "none is bound");
        assert_eq!(no_socket(1, None), None);
    }

    #[test]
    fn a_node_that_ends_is_no_longer_ready() {
        let readiness = Readiness::new([]);
        assert!(readiness.is_ready());
        stopping(&readiness);
        assert_eq!(readiness.to_string(), "not ready\nnode: shutting down\n");
    }
}
