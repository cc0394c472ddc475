//! When work can be given to the relay: it listens wherever it was told to, and can say where it is.

use libp2p::Multiaddr;
use p2pnode_daemon::admin::Readiness;

use crate::swarm::{external::ExternalAddresses, listen::Listeners};

const LISTENING: &str = "listening";
const EXTERNAL: &str = "external address";

const DRAIN: &str = "draining";

/// Nothing is there yet.
pub(crate) fn new() -> Readiness {
    Readiness::new([(LISTENING, "not bound yet"), (EXTERNAL, "none yet")])
}

/// The relay was asked to end, and will never be ready again.
pub(crate) fn draining(readiness: &Readiness) {
    readiness.missing(
        DRAIN,
        "takes no reservations and no circuits, because it was asked to end",
    );
}

/// Tells `readiness` what is there now.
pub(crate) fn update(readiness: &Readiness, listeners: &Listeners, external: &ExternalAddresses) {
    let missing: Vec<_> = listeners.missing().map(Multiaddr::to_string).collect();
    if missing.is_empty() {
        readiness.present(LISTENING);
    } else {
        readiness.missing(LISTENING, format!("not on {}", missing.join(", ")));
    }
    if external.is_empty() {
        readiness.missing(
            EXTERNAL,
            "none, and so no reservations; configure `external` or give --external",
        );
    } else {
        readiness.present(EXTERNAL);
    }
}
