//! The running node reads its configuration again: at SIGHUP, and when the file has changed.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use libp2p::PeerId;
use p2pnode_daemon::{
    config::{Fault, Faults, Loaded, Place},
    fingerprint::FileFingerprint,
    logging,
};
use tokio::{
    signal::unix::Signal,
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tracing::field::Empty;

use crate::{Handle, config::Config, services::ForwardError};

const ALLOW: &str = "access.allow";

/// Keys that come into force at once, all others with the next start. The node forgets the peers that `peers` no longer has.
const AT_ONCE: [&str; 6] = [
    ALLOW,
    "log.level",
    "peers.",
    "services.",
    "forwards",
    "socks.",
];

/// How often the file is compared. See decision 0014.
const LOOK: Duration = Duration::from_secs(1);

/// How often a forward is tried again that could not listen.
const AGAIN: Duration = Duration::from_secs(5);

/// When to read again.
pub(crate) struct Triggers {
    hangup: Signal,
    file: Option<PathBuf>,
    /// As it was read last, and as it was seen last.
    read: Option<FileFingerprint>,
    seen: Option<FileFingerprint>,
    looks: Interval,
}

impl Triggers {
    /// SIGHUP, and changes of `file`, which was read just now.
    pub(crate) fn new(hangup: Signal, file: Option<PathBuf>) -> Self {
        let now = file.as_deref().map(FileFingerprint::of);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            hangup,
            file,
            read: now,
            seen: now,
            looks,
        }
    }

    /// The name of what happened; `None`: nothing will any longer.
    async fn next(&mut self) -> Option<&'static str> {
        loop {
            tokio::select! {
                hangup = self.hangup.recv() => {
                    self.read = self.file.as_deref().map(FileFingerprint::of);
                    return hangup.map(|()| "SIGHUP");
                }
                _ = self.looks.tick(), if self.file.is_some() => {
                    let now = self.file.as_deref().map(FileFingerprint::of);
                    // A file that has just changed may be half written.
                    let is_settled = std::mem::replace(&mut self.seen, now) == now;
                    if is_settled && self.read != now {
                        self.read = now;
                        return Some("the file has changed");
                    }
                }
            }
        }
    }
}

/// Reads the configuration with `load` at each of `triggers` and applies to the node what it can apply.
pub(crate) async fn follow(
    mut triggers: Triggers,
    loaded: Loaded<Config>,
    load: impl Fn() -> Result<Loaded<Config>, Faults>,
    node: Handle,
) {
    let mut current = loaded.config.clone();
    let mut failed = Failed::default();
    loop {
        let why = tokio::select! {
            why = triggers.next() => why,
            () = sleep(AGAIN), if !failed.0.is_empty() => {
                failed.report(node.set_services(&current));
                continue;
            }
        };
        let Some(why) = why else { return };
        let new = match load().and_then(|new| check(&current, new)) {
            Ok(new) => new,
            Err(faults) => {
                for line in faults.to_string().lines() {
                    tracing::error!(
                        own = Empty,
                        "{why}: the configuration stays as it was: {line}"
                    );
                }
                continue;
            }
        };
        let access = new.config.allowed_peers != current.allowed_peers;
        let level = new.config.log.level != current.log.level;
        let services = new.config.services != current.services || new.config.peers != current.peers;
        let removed = removed(&current, &new.config);
        if access || new.config.peers != current.peers {
            current.allowed_peers.clone_from(&new.config.allowed_peers);
            current.peers.clone_from(&new.config.peers);
            // An error means that the node stops, and with it this task.
            let _ = node.reload(current.clone()).await;
        }
        for peer in removed {
            tracing::info!(own = Empty, %peer, "{why}: `peers` no longer has this peer; it is not dialed when it is lost");
            let _ = node.forget(peer).await;
        }
        if services {
            current.services.clone_from(&new.config.services);
            current.peers.clone_from(&new.config.peers);
            failed = Failed::default();
            failed.report(node.set_services(&current));
        }
        if level {
            logging::set(&new.config.log.level);
            current.log.level = new.config.log.level.clone();
        }
        let changed = loaded.changed(&new).into_iter();
        let restart: Vec<_> = changed
            .filter(|key| !AT_ONCE.iter().any(|at_once| key.starts_with(at_once)))
            .collect();
        tracing::info!(
            own = Empty,
            access,
            services,
            level,
            "{why}: read the configuration again"
        );
        if !restart.is_empty() {
            tracing::warn!(
                own = Empty,
                keys = restart.join(", "),
                "these keys have changed since the start and take effect with a restart"
            );
        }
    }
}

/// The forwards that could not listen, as they were reported last.
#[derive(Default)]
struct Failed(Vec<String>);

impl Failed {
    /// Reports those that were not reported before.
    fn report(&mut self, failed: Vec<ForwardError>) {
        let failed: Vec<_> = failed.iter().map(ToString::to_string).collect();
        for error in failed.iter().filter(|error| !self.0.contains(error)) {
            tracing::error!(
                own = Empty,
                "{error}; the node tries again every {} s, and the other services and forwards are as configured",
                AGAIN.as_secs()
            );
        }
        self.0 = failed;
    }
}

/// The peers that `peers` named before and names no longer.
fn removed(current: &Config, new: &Config) -> BTreeSet<PeerId> {
    let ids =
        |config: &Config| -> BTreeSet<_> { config.peers.values().map(|peer| peer.id).collect() };
    &ids(current) - &ids(new)
}

/// Refuses what would open a node that is closed, unless `access.allow` is there: a file that is cut short leaves keys out.
fn check(current: &Config, new: Loaded<Config>) -> Result<Loaded<Config>, Faults> {
    let opens = !current.allowed_peers.is_empty() && new.config.allowed_peers.is_empty();
    if !opens || new.is_given(ALLOW) {
        return Ok(new);
    }
    Err(Faults::from(Fault {
        place: Place::Default,
        key: Some(ALLOW.to_owned()),
        problem: "is missing, which would open the node to any peer; restore it, or write access: { allow: [] } if that is meant"
            .to_owned(),
    }))
}
