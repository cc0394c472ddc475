//! When work can be given to the node: its punch sockets are bound, and others can reach it.

use p2pnode_bin_shared::admin::Readiness;

use crate::relays::RelayKeeper;

const SOCKETS: &str = "punch sockets";
const RESERVATION: &str = "reservation";

/// Nothing is there yet.
pub(crate) fn new() -> Readiness {
    Readiness::new([(SOCKETS, "not bound yet"), (RESERVATION, "none held yet")])
}

/// Tells `readiness` what is there now. A node that listens publicly is reachable without a reservation.
pub(crate) fn update(
    readiness: &Readiness,
    sockets: &p2pnode_transports::Handle,
    relays: &RelayKeeper,
    listens: bool,
) {
    match sockets.exhausted() {
        Some(exhausted) => readiness.missing(SOCKETS, exhausted.to_string()),
        None if sockets.punch_ports().is_empty() => readiness.missing(SOCKETS, "none is bound"),
        None => readiness.present(SOCKETS),
    }
    let relay_count = relays.relays().count();
    if listens || relays.held() > 0 {
        readiness.present(RESERVATION);
    } else if relay_count == 0 {
        readiness.missing(
            RESERVATION,
            "no relay is configured and nothing is listened on: give --relay or --listen",
        );
    } else {
        readiness.missing(
            RESERVATION,
            format!("held on none of {relay_count} relay(s)"),
        );
    }
}
