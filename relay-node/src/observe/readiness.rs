//! When work can be given to the relay: it listens wherever it was told to, and can say where it is.

use libp2p::Multiaddr;
use p2pnode_daemon::admin::Readiness;

use crate::core::Hop;

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

/// Takes over into `readiness` what is there now, and which configured addresses have no listener.
pub(crate) fn update<'a>(
    readiness: &Readiness,
    missing: impl Iterator<Item = &'a Multiaddr>,
    hop: Hop,
) {
    let missing: Vec<_> = missing.map(Multiaddr::to_string).collect();
    if missing.is_empty() {
        readiness.present(LISTENING);
    } else {
        readiness.missing(LISTENING, format!("not on {}", missing.join(", ")));
    }
    match hop {
        Hop::Withheld => readiness.missing(
            EXTERNAL,
            "none, and so no reservations; configure `external` or give --external",
        ),
        Hop::Offered => readiness.present(EXTERNAL),
    }
}
