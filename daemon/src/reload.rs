//! When a running program reads its configuration again, and what of a changed file waits.
//!
//! The files are compared every second, without inotify. A ConfigMap changes by a symbolic link two directories up, which a watch of
//! the file does not see. Network file systems send no events at all. A comparison costs a microsecond.
//!
//! A file that is just being written, or that a full disk has cut short, can be valid and lack most of what it had. So what a file
//! leaves out waits for [`HOLD`]. What an `allow` in it says takes effect at once, unless the file is only the beginning of the one
//! before. A file that sets no key changes nothing. SIGHUP applies every file at once. See decision 0735.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::field::Empty;

use crate::{config::Loaded, fingerprint::FileFingerprint};

/// Between two looks at the files. A change is read one look after it was seen, so that a file that is just being written is not
/// read half. See decision 0014.
const LOOK: Duration = Duration::from_secs(1);

/// How long a file has to stay as it is before what it leaves out is taken away. An editor writes for less, and a person who has
/// removed something waits so long.
pub const HOLD: Duration = Duration::from_secs(5);

/// How many keys a line of the log names.
const NAMED: usize = 8;

/// Why a configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// SIGHUP.
    Hangup,
    /// A file is another one than was read.
    Changed,
    /// It has stayed so for [`HOLD`].
    Stayed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Changed => "a file has changed",
            Self::Stayed => "a file has stayed as it is",
        })
    }
}

/// What takes effect of a configuration that leaves something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Its lists of who is allowed, where it has them.
    Allowed,
    /// Nothing: the file is only the beginning of the one before.
    CutShort,
}

/// When to read the configuration again.
#[derive(Debug)]
pub struct Triggers {
    hangup: Signal,
    looks: Interval,
    files: Files,
}

impl Triggers {
    /// SIGHUP, and changes of the files at `paths`, which were read just now.
    ///
    /// # Errors
    /// If the system refuses a handler of SIGHUP.
    pub fn new(paths: Vec<PathBuf>) -> io::Result<Self> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            looks,
            files: Files::new(paths),
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Why {
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => {
                    self.files.read();
                    return Why::Hangup;
                }
                _ = self.looks.tick() => {
                    if let Some(why) = self.files.look(Instant::now()) {
                        return why;
                    }
                }
            }
        }
    }

    /// From now on these are the files.
    pub fn follow(&mut self, paths: Vec<PathBuf>) {
        if self.files.paths != paths {
            self.files = Files::new(paths);
        }
    }

    /// What takes effect of `new`, which was read because of `why`, if not the whole of it. `kept` are the beginnings of the keys
    /// whose loss ends something. Logs what waits, and for what.
    pub fn hold<C>(
        &mut self,
        why: Why,
        current: &Loaded<C>,
        new: &Loaded<C>,
        kept: &[&str],
    ) -> Option<Held> {
        let is_kept = |key: &String| kept.iter().any(|kept| key.starts_with(kept));
        let lost: Vec<_> = current.lost(new).into_iter().filter(is_kept).collect();
        if lost.is_empty() || why == Why::Hangup || why == Why::Stayed {
            return None;
        }
        let (file, keys) = (new.file().unwrap_or(Path::new("")).display(), named(&lost));
        if new.is_empty_file() {
            tracing::warn!(
                own = Empty,
                keys,
                "{file}: sets no key, so all stays as it was; restore the file, or send SIGHUP if that is meant"
            );
            return Some(Held::CutShort);
        }
        tracing::warn!(
            own = Empty,
            keys,
            "{file}: some keys are missing, and the file may be half written, so they stay for {} s; restore them, or send SIGHUP to \
             apply the file at once",
            HOLD.as_secs()
        );
        self.files.held = Some(Instant::now() + HOLD);
        Some(match current.is_cut_short_in(new) {
            true => Held::CutShort,
            false => Held::Allowed,
        })
    }
}

/// The first of `keys`.
fn named(keys: &[String]) -> String {
    let named = keys[..keys.len().min(NAMED)].join(", ");
    match keys.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} others"),
    }
}

/// The files that a configuration is made of.
#[derive(Debug)]
struct Files {
    paths: Vec<PathBuf>,
    /// As they were read.
    read: Vec<FileFingerprint>,
    /// As they were seen last.
    seen: Vec<FileFingerprint>,
    /// When what they leave out is taken away.
    held: Option<Instant>,
}

impl Files {
    fn new(paths: Vec<PathBuf>) -> Self {
        let mut files = Self {
            paths,
            read: Vec::new(),
            seen: Vec::new(),
            held: None,
        };
        files.read();
        files
    }

    fn fingerprints(&self) -> Vec<FileFingerprint> {
        let paths = self.paths.iter();
        paths.map(|path| FileFingerprint::of(path)).collect()
    }

    /// They are read now.
    fn read(&mut self) {
        self.read = self.fingerprints();
        self.seen.clone_from(&self.read);
        self.held = None;
    }

    /// Why they are to be read: they are others than were read, and have been since the last look. Or they still are those of which
    /// something is held.
    fn look(&mut self, at: Instant) -> Option<Why> {
        let now = self.fingerprints();
        let is_settled = std::mem::replace(&mut self.seen, now) == self.seen;
        if self.seen == self.read {
            let is_over = self.held.take_if(|held| *held <= at).is_some();
            return is_over.then_some(Why::Stayed);
        }
        if !is_settled {
            return None;
        }
        self.read.clone_from(&self.seen);
        self.held = None;
        Some(Why::Changed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs;

    use super::*;
    use crate::config::{self, Document, Faults, Program, Reader, Sources, kind};

    const PROGRAM: Program = Program {
        name: "demo",
        env: "DEMO",
    };

    #[tokio::test]
    async fn a_file_is_read_once_it_has_stayed_as_it_is_for_a_look() {
        let home = tempfile::tempdir().unwrap();
        let (config, revoked) = (home.path().join("relay.yaml"), home.path().join("revoked"));
        fs::write(&config, "a").unwrap();
        let mut triggers = Triggers::new(vec![config.clone(), revoked.clone()]).unwrap();
        let now = Instant::now();
        let look = |triggers: &mut Triggers| triggers.files.look(now);
        assert_eq!(look(&mut triggers), None);
        fs::write(&config, "ab").unwrap();
        assert_eq!(look(&mut triggers), None, "it may still be written");
        fs::write(&config, "abc").unwrap();
        assert_eq!(look(&mut triggers), None, "it was");
        assert_eq!(look(&mut triggers), Some(Why::Changed));
        assert_eq!(look(&mut triggers), None, "once");
        fs::write(&revoked, "x").unwrap();
        let looks = [(); 3].map(|()| look(&mut triggers));
        assert_eq!(looks, [None, Some(Why::Changed), None]);
        // What a signal had read is not read again.
        fs::write(&config, "abcd").unwrap();
        triggers.files.read();
        assert_eq!([(); 2].map(|()| look(&mut triggers)), [None; 2]);
        triggers.follow(vec![config]);
        fs::write(&revoked, "xy").unwrap();
        assert_eq!([(); 2].map(|()| look(&mut triggers)), [None; 2]);
    }

    type Read = (Vec<String>, std::collections::BTreeMap<String, Vec<String>>);

    fn read(reader: &mut Reader<'_>) -> Read {
        let allow = reader.list("access.allow", "Who.", &kind::HOST_NAME, &[]);
        let services = reader.entries(
            "services",
            "Services.",
            |_| Ok(()),
            |reader| {
                let to = reader.one_or_more("to", "Where.", &kind::HOST_NAME);
                reader.one("on", "Whether.", &kind::BOOL, "false");
                reader.one_or_more("allow", "Who.", &kind::HOST_NAME);
                Some(to)
            },
        );
        (allow, services)
    }

    fn load(path: &Path) -> Result<Loaded<Read>, Faults> {
        let sources = Sources {
            file: Some(Document::read(path)?),
            ..Sources::default()
        };
        config::load(&PROGRAM, &sources, read)
    }

    const WHOLE: &str = "access:\n  allow:\n  - a\n  - b\nservices:\n  db:\n    on: true\n    allow:\n    - a\n    - b\n    to:\n    - x\n    - y\n  web: { to: z }\n";

    #[tokio::test]
    async fn what_a_changed_file_leaves_out_waits_and_a_shorter_list_of_who_is_allowed_does_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("demo.yaml");
        fs::write(&path, WHOLE).unwrap();
        let mut triggers = Triggers::new(vec![path.clone()]).unwrap();
        let current = load(&path).unwrap();
        let mut held = |text: &str, why| {
            fs::write(&path, text).unwrap();
            let new = load(&path).unwrap();
            triggers.hold(why, &current, &new, &["access.", "services."])
        };
        let without = |line: &str| WHOLE.replace(line, "");
        for (text, expected) in [
            (WHOLE.to_owned(), None),
            (format!("{WHOLE}  more: {{ to: z }}\n"), None),
            (without("    - b\n"), None),
            (
                WHOLE.replace("  allow:\n  - a\n  - b\nservices", "  allow: []\nservices"),
                None,
            ),
            (WHOLE.replace("to: z", "to: q"), None),
            (String::new(), Some(Held::CutShort)),
            ("# nothing\n".to_owned(), Some(Held::CutShort)),
            (without("  web: { to: z }\n"), Some(Held::CutShort)),
            (without("    - y\n"), Some(Held::Allowed)),
            (without("    on: true\n"), Some(Held::Allowed)),
            (without("  allow:\n  - a\n  - b\n"), Some(Held::Allowed)),
        ] {
            assert_eq!(held(&text, Why::Changed), expected, "{text}");
            assert_eq!(held(&text, Why::Hangup), None, "{text}");
        }
        // Wherever it is cut, it loses nothing but the last of a list of who is allowed.
        for (end, _) in WHOLE.match_indices('\n') {
            let text = &WHOLE[..=end];
            let expected = (text.len() < WHOLE.len()).then_some(Held::CutShort);
            assert_eq!(held(text, Why::Changed), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_file_that_stays_as_it_is_takes_effect_and_an_empty_one_never() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("demo.yaml");
        fs::write(&path, WHOLE).unwrap();
        let mut triggers = Triggers::new(vec![path.clone()]).unwrap();
        let current = load(&path).unwrap();
        for (text, stays) in [
            ("access: { allow: [a, b] }\n", Some(Why::Stayed)),
            ("services: {}\n", Some(Why::Stayed)),
            ("services:\naccess:\n", None),
            ("", None),
        ] {
            fs::write(&path, text).unwrap();
            let now = Instant::now();
            assert_eq!(triggers.files.look(now), None);
            assert_eq!(triggers.files.look(now), Some(Why::Changed));
            let new = load(&path).unwrap();
            assert!(
                triggers
                    .hold(Why::Changed, &current, &new, &["services."])
                    .is_some()
            );
            assert_eq!(triggers.files.look(now), None);
            let later = Instant::now() + HOLD;
            assert_eq!(triggers.files.look(later), stays);
            assert_eq!(triggers.files.look(later), None);
            assert_eq!(
                triggers.hold(Why::Stayed, &current, &new, &["services."]),
                None
            );
        }
    }

    #[test]
    fn a_line_of_the_log_names_a_few_keys() {
        let keys: Vec<_> = (0..10).map(|n| format!("services.s{n}")).collect();
        assert_eq!(named(&keys[..2]), "services.s0, services.s1");
        assert!(named(&keys).ends_with("services.s7 and 2 others"));
    }
}
