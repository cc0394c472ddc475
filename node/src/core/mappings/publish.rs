//! What is published about mappings, one publication at a time.
//!
//! Each sink (the hook, the file, the DNS) has a [`Publisher`]. What is proved is wanted. A change waits [`SETTLE`] for others, then
//! goes out. While a publication is under way, later changes wait. One that fails is tried again, with a pause that doubles. What it
//! may have made all the same is in doubt until another publication has replaced it or taken it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use p2pnode_protocol::mapping::Protocol;

/// How long a change waits for others: a router that reboots changes everything within moments.
const SETTLE: Duration = Duration::from_millis(300);

/// The first and the longest pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A mapping that is proved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Its key under `expose`; `punch` for the ports of the node itself.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// Where it is reached.
    pub(crate) public: SocketAddr,
    /// The port of the range, at this host's address.
    pub(crate) private: SocketAddr,
}

/// What is different for one name and protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) before: Option<Entry>,
    pub(crate) now: Option<Entry>,
    /// What a publication that failed may have made.
    pub(crate) doubt: Option<Entry>,
}

impl Change {
    /// One of the entries, which have name and protocol in common.
    pub(crate) fn any(&self) -> Option<&Entry> {
        let entries = self.before.iter().chain(&self.now);
        entries.chain(&self.doubt).next()
    }
}

/// One publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) changes: Vec<Change>,
    /// All that holds from now on.
    pub(crate) entries: BTreeSet<Entry>,
}

/// What one sink is to be given, and when.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    wanted: BTreeSet<Entry>,
    published: BTreeSet<Entry>,
    /// What publications that failed may have made.
    doubtful: BTreeSet<Entry>,
    /// The changes of the publication under way.
    under_way: Option<Vec<Change>>,
    due: Option<Instant>,
    failures: u32,
}

impl Publisher {
    /// These mappings are proved.
    pub(crate) fn handle_wanted(&mut self, wanted: BTreeSet<Entry>, now: Instant) {
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        let soon = now + SETTLE;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// The publication has ended. So many of its changes are made.
    pub(crate) fn handle_done(&mut self, made: usize, now: Instant) {
        let Some(changes) = self.under_way.take() else {
            return;
        };
        let is_done = made >= changes.len();
        for (at, change) in changes.into_iter().enumerate() {
            let Change { before, now, doubt } = change;
            if at < made {
                let gone = [&before, &doubt].map(Option::as_ref);
                gone.into_iter().flatten().for_each(|gone| {
                    self.published.remove(gone);
                    self.doubtful.remove(gone);
                });
                self.published.extend(now);
            } else if let Some(now) = now {
                doubt.map(|doubt| self.doubtful.remove(&doubt));
                self.doubtful.insert(now);
            }
        }
        if is_done {
            self.failures = 0;
            self.due = self.due.or(Some(now));
        } else {
            let pause = RETRY * 2_u32.pow(self.failures.min(6));
            self.failures += 1;
            self.due = Some(now + pause.min(RETRY_MAX));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| self.under_way.is_none())
    }

    /// The publication that is due. [`Self::handle_done`] has to follow.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Publication> {
        self.poll_timeout().filter(|due| *due <= now)?;
        self.due = None;
        let changes = changes(&self.published, &self.doubtful, &self.wanted);
        if changes.is_empty() {
            return None;
        }
        self.under_way = Some(changes.clone());
        Some(Publication {
            changes,
            entries: self.wanted.clone(),
        })
    }

    /// Whether the sink has all that is wanted.
    pub(crate) fn is_settled(&self) -> bool {
        self.published == self.wanted && self.doubtful.is_empty() && self.under_way.is_none()
    }

    /// The node ends: nothing is proved, and nothing waits.
    pub(crate) fn handle_shutdown(&mut self, now: Instant) {
        self.wanted.clear();
        self.due = Some(now);
    }
}

fn changes(
    before: &BTreeSet<Entry>,
    doubtful: &BTreeSet<Entry>,
    now: &BTreeSet<Entry>,
) -> Vec<Change> {
    let by_key = |entries: &BTreeSet<Entry>| -> BTreeMap<(String, Protocol), Entry> {
        let key = |entry: &Entry| ((entry.name.clone(), entry.protocol), entry.clone());
        entries.iter().map(key).collect()
    };
    let (before, doubtful, now) = (by_key(before), by_key(doubtful), by_key(now));
    let keys = before.keys().chain(doubtful.keys()).chain(now.keys());
    let keys: BTreeSet<_> = keys.collect();
    let change = |key| Change {
        before: before.get(key).cloned(),
        now: now.get(key).cloned(),
        doubt: doubtful.get(key).cloned(),
    };
    let changes = keys.into_iter().map(change);
    changes
        .filter(|change| change.before != change.now || change.doubt.is_some())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn entry(name: &str, public: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            public: public.parse().unwrap(),
            private: "192.168.1.2:40017".parse().unwrap(),
        }
    }

    fn due(publisher: &mut Publisher) -> Option<(Instant, Publication)> {
        let at = publisher.poll_timeout()?;
        Some((at, publisher.handle_timeout(at)?))
    }

    #[test]
    fn changes_are_gathered_and_go_out_one_publication_at_a_time() {
        let (mut publisher, now) = (Publisher::default(), Instant::now());
        let (old, new) = (entry("qb", "203.0.113.7:1"), entry("qb", "203.0.113.8:1"));
        publisher.handle_wanted([entry("qb", "203.0.113.7:9")].into(), now);
        publisher.handle_wanted([old.clone()].into(), now + SETTLE / 2);
        assert_eq!(publisher.handle_timeout(now), None);
        let (at, publication) = due(&mut publisher).unwrap();
        assert_eq!(at, now + SETTLE);
        let first = Change {
            before: None,
            now: Some(old.clone()),
            doubt: None,
        };
        assert_eq!(publication.changes, [first]);
        // It is under way: the next one waits, and names what has been published.
        publisher.handle_wanted([new.clone()].into(), at);
        assert_eq!(publisher.poll_timeout(), None);
        publisher.handle_done(1, at + SETTLE);
        let (_, publication) = due(&mut publisher).unwrap();
        let second = Change {
            before: Some(old),
            now: Some(new),
            doubt: None,
        };
        assert_eq!(publication.changes, [second]);
        publisher.handle_done(1, at + SETTLE);
        assert_eq!(due(&mut publisher), None);
        assert!(publisher.is_settled());
    }

    #[test]
    fn what_fails_is_tried_again_with_pauses_that_double_and_at_the_end_all_is_taken_back() {
        let (mut publisher, mut now) = (Publisher::default(), Instant::now());
        publisher.handle_wanted([entry("qb", "203.0.113.7:1")].into(), now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let (at, _) = due(&mut publisher).unwrap();
            publisher.handle_done(0, at);
            now = at;
            pauses.push((publisher.poll_timeout().unwrap() - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let (at, _) = due(&mut publisher).unwrap();
        publisher.handle_done(1, at);
        publisher.handle_shutdown(at);
        let (_, publication) = due(&mut publisher).unwrap();
        assert!(publication.entries.is_empty());
        assert_eq!(publication.changes.len(), 1);
    }

    #[test]
    fn what_a_publication_that_failed_may_have_made_is_taken_back() {
        let (mut publisher, now) = (Publisher::default(), Instant::now());
        let [a, b] = ["a", "b"].map(|name| entry(name, "203.0.113.7:1"));
        publisher.handle_wanted([a.clone(), b.clone()].into(), now);
        let (at, publication) = due(&mut publisher).unwrap();
        assert_eq!(publication.changes.len(), 2);
        // The first one was made, and the second one perhaps.
        publisher.handle_done(1, at);
        let (at, publication) = due(&mut publisher).unwrap();
        let again = Change {
            before: None,
            now: Some(b.clone()),
            doubt: Some(b.clone()),
        };
        assert_eq!(publication.changes, [again]);
        publisher.handle_done(0, at);
        publisher.handle_shutdown(at);
        assert!(!publisher.is_settled());
        let (at, publication) = due(&mut publisher).unwrap();
        let back = [(Some(a), None), (None, Some(b))].map(|(before, doubt)| Change {
            before,
            now: None,
            doubt,
        });
        assert_eq!(publication.changes, back);
        publisher.handle_done(2, at);
        assert!(publisher.is_settled());
    }

    #[test]
    fn a_change_that_is_taken_back_in_time_is_not_published() {
        let (mut publisher, now) = (Publisher::default(), Instant::now());
        publisher.handle_wanted([entry("qb", "203.0.113.7:1")].into(), now);
        publisher.handle_wanted(BTreeSet::new(), now);
        assert_eq!(due(&mut publisher), None);
        assert_eq!(publisher.poll_timeout(), None);
    }
}
