//! What a configuration that is read again leaves out.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::Path,
};

use serde_json::Value as Json;

use super::{document::Document, load::Loaded, reader::Taken, source::Origin};

impl<C> Loaded<C> {
    /// The keys that some source set and none sets in `new`, and the lists of which `new` has only the beginning. A shorter list
    /// `allow` states who is allowed, and is none of them. `services.db` stands for all below it, if `new` has nothing there, and the
    /// first value of a section for that section.
    #[must_use]
    pub fn lost<D>(&self, new: &Loaded<D>) -> Vec<String> {
        let now: BTreeMap<_, _> = new.values.iter().map(|it| (it.key.as_str(), it)).collect();
        let given = self.values.iter().filter(|taken| is_given(taken));
        let lost = given.filter(|before| is_lost(before, now.get(before.key.as_str())));
        let names: BTreeSet<_> = lost.map(|taken| named(&taken.key, &now)).collect();
        let mut lost = BTreeSet::new();
        for name in names {
            let gone = self.gone_sections(name, new);
            match gone.is_empty() {
                true => drop(lost.insert(name.to_owned())),
                false => lost.extend(gone),
            }
        }
        lost.into_iter().collect()
    }

    /// Whether the file of `new` is only the beginning of this one, as one that is being written or was cut short.
    #[must_use]
    pub fn is_cut_short_in<D>(&self, new: &Loaded<D>) -> bool {
        match (&self.file, &new.file) {
            (Some(all), Some(some)) => some.is_beginning_of(all),
            _ => false,
        }
    }

    /// The file that was read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(Document::path)
    }

    /// Whether there is a file, and it sets no key. `services: {}` sets one.
    #[must_use]
    pub fn is_empty_file(&self) -> bool {
        self.file.as_ref().is_some_and(Document::is_empty)
    }

    /// If `name` is that of a section: the sections of its list that `new` has no longer.
    fn gone_sections<D>(&self, name: &str, new: &Loaded<D>) -> Vec<String> {
        match name.split_once('.') {
            Some((list, index)) if index.parse::<usize>().is_ok() => {
                let gone = &sections(&self.values, list) - &sections(&new.values, list);
                gone.iter().map(|first| format!("{list} {first}")).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn is_given(taken: &Taken) -> bool {
    !matches!(taken.origin, Origin::Default)
}

fn is_lost(before: &Taken, now: Option<&&Taken>) -> bool {
    match now {
        Some(now) if is_given(now) => match (&before.value, &now.value) {
            (Json::Array(all), Json::Array(some)) if !before.key.ends_with("allow") => {
                some.len() < all.len() && all.starts_with(some)
            }
            _ => false,
        },
        Some(now) => now.value != before.value,
        None => true,
    }
}

/// `key`, or the entry that it belongs to, if there is nothing of it now.
fn named<'a>(key: &'a str, now: &BTreeMap<&str, &Taken>) -> &'a str {
    let end = key.match_indices('.').nth(1);
    let entry = &key[..end.map_or(key.len(), |(at, _)| at)];
    let below = format!("{entry}.");
    let from = (Bound::Included(below.as_str()), Bound::Unbounded);
    match now.range::<str, _>(from).next() {
        Some((next, _)) if next.starts_with(&below) => key,
        _ => entry,
    }
}

/// The first value of each section of a list, which has no other name.
fn sections(values: &[Taken], list: &str) -> BTreeSet<String> {
    let mut sections = BTreeMap::new();
    for taken in values {
        let below = taken.key.strip_prefix(list);
        let below = below.and_then(|below| below.strip_prefix('.'));
        let index = below.and_then(|below| below.split('.').next());
        if let Some(index) = index {
            let value = &taken.value;
            let text = || {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            sections.entry(index).or_insert_with(text);
        }
    }
    sections.into_values().collect()
}
