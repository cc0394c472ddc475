//! Reading the configuration again while the relay runs: on SIGHUP, and when its file changes or one that it names.
//!
//! The relay checks the files every second and does not use inotify. A ConfigMap changes by a symbolic link two directories up, which
//! a watch of the file does not see. Network file systems send no events at all. A check costs a microsecond.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use p2pnode_daemon::{
    config::{Fault, Faults, Loaded, Place},
    fingerprint::FileFingerprint,
    logging,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};

use crate::config::{Access, Config};

/// Between two looks at the files. A change is read one look after it was seen, so that a file that is just being written is
/// not read half.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keys that come into force at once, all others with the next start.
const AT_ONCE: [&str; 2] = ["access.", "log.level"];

const ALLOW: &str = "access.allow";
const TOKENS: &str = "access.tokens";

/// How the configuration is read again.
pub type Load = Arc<dyn Fn() -> Result<Loaded<Config>, Faults> + Send + Sync>;

/// Configurations that were read again, as they come.
#[derive(Debug)]
pub struct Reloads(mpsc::Receiver<Reload>);

/// What came of reading it.
#[derive(Debug)]
pub(crate) enum Reload {
    /// It is right.
    Read {
        /// Who may use the relay from now on.
        access: Access,
        /// The keys that have changed since the start and need another one.
        restart: BTreeSet<String>,
    },
    /// It is not, and changes nothing.
    Refused(Faults),
}

impl Reloads {
    /// None ever.
    #[must_use]
    pub fn never() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// Those of the configuration that was `loaded` at the start, from the file at `path` among others, and that `load` reads
    /// again.
    ///
    /// # Errors
    /// If the system refuses a handler of SIGHUP.
    pub fn watch(path: Option<PathBuf>, loaded: Loaded<Config>, load: Load) -> io::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, receiver) = mpsc::channel(1);
        let mut files = Files::new(path, &loaded.config.access);
        let mut access = loaded.config.access.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let why = tokio::select! {
                    _ = hangup.recv() => {
                        files.read();
                        "SIGHUP"
                    }
                    _ = ticks.tick() => match files.look() {
                        true => "a file has changed",
                        false => continue,
                    },
                };
                tracing::info!(
                    own = tracing::field::Empty,
                    why,
                    "reading the configuration again"
                );
                let reload = match files.load(&load).and_then(|new| files.check(&access, new)) {
                    Ok(new) => {
                        files.follow(&new.config.access);
                        let changed = loaded.changed(&new).into_iter();
                        let is_at_once =
                            |key: &String| AT_ONCE.iter().any(|at| key.starts_with(at));
                        let restart = changed.filter(|key| !is_at_once(key)).collect();
                        logging::set(&new.config.log.level);
                        access = keep_revoked(access, new.config.access);
                        Reload::Read {
                            restart,
                            access: access.clone(),
                        }
                    }
                    Err(faults) => Reload::Refused(faults),
                };
                if sender.send(reload).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(receiver))
    }

    /// The next one; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Reload> {
        self.0.recv().await
    }
}

/// The files that the configuration is made of.
#[derive(Debug)]
struct Files {
    config: Option<PathBuf>,
    revoked: Option<PathBuf>,
    /// As they were read.
    read: Vec<FileFingerprint>,
    /// As they were seen last.
    seen: Vec<FileFingerprint>,
}

impl Files {
    fn new(config: Option<PathBuf>, access: &Access) -> Self {
        let mut files = Self {
            config,
            revoked: access.revoked_file.clone(),
            read: Vec::new(),
            seen: Vec::new(),
        };
        files.read();
        files
    }

    fn fingerprints(&self) -> Vec<FileFingerprint> {
        let paths = self.config.iter().chain(&self.revoked);
        paths.map(|path| FileFingerprint::of(path)).collect()
    }

    /// They are read now.
    fn read(&mut self) {
        self.read = self.fingerprints();
        self.seen.clone_from(&self.read);
    }

    /// Whether they are to be read: they are others than were read, and have been since the last look.
    fn look(&mut self) -> bool {
        let now = self.fingerprints();
        let settled = now == self.seen && now != self.read;
        if settled {
            self.read.clone_from(&now);
        }
        self.seen = now;
        settled
    }

    /// From now on the file of `access` counts.
    fn follow(&mut self, access: &Access) {
        if self.revoked != access.revoked_file {
            self.revoked.clone_from(&access.revoked_file);
            self.read();
        }
    }

    fn load(&self, load: &Load) -> Result<Loaded<Config>, Faults> {
        match &self.config {
            Some(path) if is_empty(path) => Err(Faults::from(Fault {
                place: Place::File {
                    path: path.clone(),
                    at: None,
                },
                key: None,
                problem:
                    "is empty, which would admit anybody; write access.allow: [] if that is meant"
                        .to_owned(),
            })),
            _ => load(),
        }
    }

    /// Refuses what would open a relay that is closed, unless it says so in as many words: a file that is cut short, or lost,
    /// leaves keys out, and without `access` any peer may use a relay.
    fn check(&self, old: &Access, new: Loaded<Config>) -> Result<Loaded<Config>, Faults> {
        let says_so = new.is_given(ALLOW) && (!old.tokens || new.is_given(TOKENS));
        if is_open(old) || !is_open(&new.config.access) || says_so {
            return Ok(new);
        }
        let place = match &self.config {
            Some(path) => Place::File {
                path: path.clone(),
                at: None,
            },
            None => Place::Default,
        };
        Err(Faults::from(Fault {
            place,
            key: Some(ALLOW.to_owned()),
            problem: "is missing, which would open the relay to any peer; restore the file, or write access: { allow: [], \
                      tokens: false } if that is meant"
                .to_owned(),
        }))
    }
}

/// Whether any peer may use the relay.
fn is_open(access: &Access) -> bool {
    access.allow.is_empty() && !access.tokens
}

/// `new`, where the tokens that `old` revokes stay revoked: a list that is cut short is as valid as a whole one.
fn keep_revoked(old: Access, mut new: Access) -> Access {
    let listed: BTreeSet<_> = new.revoked.iter().copied().collect();
    let before = new.revoked.len();
    new.revoked
        .extend(old.revoked.into_iter().filter(|id| !listed.contains(id)));
    let kept = new.revoked.len() - before;
    if kept > 0 {
        tracing::warn!(
            kept,
            "tokens that are no longer listed as revoked stay revoked until the relay starts again"
        );
    }
    new
}

/// Whether there is nothing in a file: it was truncated, to be written next or because the disk is full.
fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use p2pnode_daemon::config::{self, Document, Sources};

    use super::*;

    #[test]
    fn a_file_is_read_once_it_has_stayed_as_it_is_for_a_look() {
        let home = tempfile::tempdir().unwrap();
        let (config, revoked) = (home.path().join("relay.yaml"), home.path().join("revoked"));
        fs::write(&config, "a").unwrap();
        let access = Access {
            revoked_file: Some(revoked.clone()),
            ..Access::default()
        };
        let mut files = Files::new(Some(config.clone()), &access);
        assert!(!files.look());
        fs::write(&config, "ab").unwrap();
        assert!(!files.look(), "it may still be written");
        fs::write(&config, "abc").unwrap();
        assert!(!files.look(), "it was");
        assert!(files.look());
        assert!(!files.look(), "once");
        fs::write(&revoked, "x").unwrap();
        assert_eq!(
            [files.look(), files.look(), files.look()],
            [false, true, false]
        );
        // What a signal had read is not read again.
        fs::write(&config, "abcd").unwrap();
        files.read();
        assert_eq!([files.look(), files.look()], [false, false]);
        files.follow(&Access::default());
        fs::write(&revoked, "xy").unwrap();
        assert_eq!([files.look(), files.look()], [false, false]);
    }

    #[test]
    fn an_empty_file_is_refused_and_not_taken_for_the_defaults() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("relay.yaml");
        fs::write(&path, "").unwrap();
        let files = Files::new(Some(path), &Access::default());
        let load: Load = Arc::new(|| unreachable!("it is not read"));
        let faults = files.load(&load).unwrap_err().to_string();
        assert!(faults.contains("relay.yaml: is empty"), "{faults}");
    }

    /// What comes of a file that changes from one text to another.
    fn reload(old: &str, new: &str) -> Result<Access, String> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("relay.yaml");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            let sources = Sources {
                file: Some(Document::read(&path)?),
                env: [("HOME".to_owned(), "/nowhere".to_owned())].into(),
                ..Sources::default()
            };
            config::load(&crate::config::PROGRAM, &sources, |reader| {
                Config::read(reader)
            })
        };
        let old = read(old).unwrap().config.access;
        let files = Files::new(Some(path.clone()), &old);
        let new = read(new).and_then(|new| files.check(&old, new));
        let new = new.map_err(|faults| faults.to_string())?;
        Ok(keep_revoked(old, new.config.access))
    }

    #[test]
    fn a_relay_opens_only_if_its_file_says_so() {
        let allow = format!("access: {{ allow: [{}] }}\n", libp2p::PeerId::random());
        let (tokens, both) = (
            "access: { tokens: true }\n",
            format!("{}\n", allow.trim_end().replace(" }", ", tokens: true }")),
        );
        // Cut short, truncated to nothing, or written by halves.
        for old in [&allow, tokens, &both] {
            for new in [
                "",
                "# access\n",
                "access:\n",
                "access: {}\n",
                "access:\n  allow:\n",
                "access: { tokens: false }\n",
                "access: { revoked: [] }\n",
                "listen: [/ip4/0.0.0.0/tcp/4001]\n",
            ] {
                let fault = reload(old, new).unwrap_err();
                assert!(fault.contains("access.allow"), "{new:?}: {fault}");
                assert!(
                    new.contains("allow") || fault.contains("allow: []"),
                    "{new:?}: {fault}"
                );
            }
        }
        // The line of the tokens is missing.
        for old in [tokens, &both] {
            assert!(reload(old, "access:\n  allow: []\n").is_err());
        }
        assert!(is_open(&reload(&allow, "access: { allow: [] }\n").unwrap()));
        for old in [&allow, tokens, &both] {
            let open = "access: { allow: [], tokens: false }\n";
            assert!(is_open(&reload(old, open).unwrap()));
            assert!(!is_open(&reload(old, &allow).unwrap()));
            assert!(!is_open(&reload(old, tokens).unwrap()));
        }
        // One that is open is closed and changed as before.
        assert!(!is_open(&reload("", &allow).unwrap()));
        assert!(is_open(&reload("", "limits: { circuits: 7 }\n").unwrap()));
    }

    #[test]
    fn a_list_that_is_cut_short_gives_no_token_back() {
        let listed = |ids: &str| format!("access: {{ tokens: true, revoked: [{ids}] }}\n");
        let (one, two) = ("00000000000000f1", "00000000000000f2");
        let access = reload(&listed(&format!("{one}, {two}")), &listed(two)).unwrap();
        let revoked: Vec<String> = access.revoked.iter().map(ToString::to_string).collect();
        assert_eq!(revoked, [two, one]);
    }
}
