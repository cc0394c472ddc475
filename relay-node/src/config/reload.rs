//! Reading the configuration again while the relay runs: on SIGHUP, and when its file changes or one that it names.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use p2pnode_daemon::{
    config::{Fault, Faults, Loaded, Place},
    logging,
    reload::{Held, Triggers},
};
use tokio::sync::mpsc;

use crate::config::{Access, Config};

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
        let (sender, receiver) = mpsc::channel(1);
        let mut access = loaded.config.access.clone();
        let mut triggers = Triggers::new(files(path.as_deref(), &access))?;
        let mut last = loaded.clone();
        tokio::spawn(async move {
            loop {
                let why = triggers.next().await;
                tracing::info!(
                    own = tracing::field::Empty,
                    %why,
                    "reading the configuration again"
                );
                let read = read(path.as_deref(), &load);
                let read = read.and_then(|new| check(path.as_deref(), &access, new));
                let held = read.as_ref().ok();
                let held = held.and_then(|new| triggers.hold(why, &last, new, &[ALLOW, TOKENS]));
                let reload = match (read, held) {
                    (Err(faults), _) => Reload::Refused(faults),
                    (Ok(_), Some(Held::CutShort)) => continue,
                    (Ok(new), Some(Held::Allowed)) => {
                        access = keep_revoked(access.clone(), stated(access, &new));
                        Reload::Read {
                            restart: BTreeSet::new(),
                            access: access.clone(),
                        }
                    }
                    (Ok(new), None) => {
                        let is_at_once =
                            |key: &String| AT_ONCE.iter().any(|at| key.starts_with(at));
                        let changed = loaded.changed(&new).into_iter();
                        let restart = changed.filter(|key| !is_at_once(key)).collect();
                        logging::set(&new.config.log.level);
                        access = keep_revoked(access, new.config.access.clone());
                        triggers.follow(files(path.as_deref(), &access));
                        last = new;
                        Reload::Read {
                            restart,
                            access: access.clone(),
                        }
                    }
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
fn files(config: Option<&Path>, access: &Access) -> Vec<PathBuf> {
    let files = config.into_iter().chain(access.revoked_file.as_deref());
    files.map(Path::to_owned).collect()
}

fn read(file: Option<&Path>, load: &Load) -> Result<Loaded<Config>, Faults> {
    match file {
        Some(path) if is_empty(path) => Err(Faults::from(Fault {
            place: Place::File {
                path: path.to_owned(),
                at: None,
            },
            key: None,
            problem: "is empty, which would admit anybody; write access.allow: [] if that is meant"
                .to_owned(),
        })),
        _ => load(),
    }
}

/// Refuses what would open a relay that is closed, unless it says so in as many words: a file that is cut short, or lost,
/// leaves keys out, and without `access` any peer may use a relay.
fn check(file: Option<&Path>, old: &Access, new: Loaded<Config>) -> Result<Loaded<Config>, Faults> {
    let says_so = new.is_given(ALLOW) && (!old.tokens || new.is_given(TOKENS));
    if is_open(old) || !is_open(&new.config.access) || says_so {
        return Ok(new);
    }
    let place = match file {
        Some(path) => Place::File {
            path: path.to_owned(),
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

/// `access`, with what `new` states of it: its file leaves something out.
fn stated(mut access: Access, new: &Loaded<Config>) -> Access {
    if new.is_given(ALLOW) {
        access.allow.clone_from(&new.config.access.allow);
    }
    if new.is_given(TOKENS) {
        access.tokens = new.config.access.tokens;
    }
    access.revoked.clone_from(&new.config.access.revoked);
    access
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
    fn an_empty_file_is_refused_and_not_taken_for_the_defaults() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("relay.yaml");
        fs::write(&path, "").unwrap();
        let load: Load = Arc::new(|| unreachable!("it is not read"));
        let faults = super::read(Some(&path), &load).unwrap_err().to_string();
        assert!(faults.contains("relay.yaml: is empty"), "{faults}");
    }

    fn loaded(path: &Path, text: &str) -> Result<Loaded<Config>, Faults> {
        fs::write(path, text).unwrap();
        let sources = Sources {
            file: Some(Document::read(path)?),
            env: [("HOME".to_owned(), "/nowhere".to_owned())].into(),
            ..Sources::default()
        };
        config::load(&crate::config::PROGRAM, &sources, |reader| {
            Config::read(reader)
        })
    }

    /// What comes of a file that changes from one text to another.
    fn reload(old: &str, new: &str) -> Result<Access, String> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("relay.yaml");
        let old = loaded(&path, old).unwrap().config.access;
        let new = loaded(&path, new).and_then(|new| check(Some(&path), &old, new));
        let new = new.map_err(|faults| faults.to_string())?;
        Ok(keep_revoked(old, new.config.access))
    }

    #[test]
    fn a_file_that_lacks_the_line_of_the_tokens_states_only_whom_it_allows() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("relay.yaml");
        let [one, two] = [(); 2].map(|()| libp2p::PeerId::random());
        let old = format!("access: {{ allow: [{one}, {two}], tokens: true }}\n");
        let old = loaded(&path, &old).unwrap();
        let new = loaded(&path, &format!("access: {{ allow: [{two}] }}\n")).unwrap();
        assert_eq!(old.lost(&new), [TOKENS]);
        let access = stated(old.config.access.clone(), &new);
        assert_eq!((access.allow, access.tokens), (vec![two], true));
        let closed = loaded(&path, "access: { tokens: false, allow: [] }\n").unwrap();
        assert!(old.lost(&closed).is_empty());
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
