//! Reads keys from their sources, and records how the program describes each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use p2pnode_protocol::quote;

use super::{
    document::{Node, Value},
    fault::{Faults, Place},
    key::{Key, join, json, json_list},
    kind::{Form, Kind},
    source::{Given, Origin, Program, Sources, find},
};
use crate::paths::Directories;

/// Returns the values of keys. A fault is recorded, and reading continues with the default.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) program: &'a Program,
    pub(super) sources: &'a Sources,
    scope: Scope<'a>,
    pub(super) keys: Vec<Key>,
    pub(super) values: Vec<Taken>,
    pub(super) faults: Faults,
}

/// The value of a key that is in force.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) key: String,
    pub(super) value: Json,
    pub(super) origin: Origin,
}

/// The part of the configuration that keys are read in.
#[derive(Debug, Clone)]
struct Scope<'a> {
    /// As written: empty or `peers.db`.
    path: String,
    /// With `*` for names: empty or `peers.*`.
    pattern: String,
    node: Option<&'a Node>,
    /// Flags and variables set keys at the root only.
    root: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(program: &'a Program, sources: &'a Sources) -> Self {
        Self {
            program,
            sources,
            scope: Scope {
                path: String::new(),
                pattern: String::new(),
                node: sources.file.as_ref().map(|file| &file.root),
                root: true,
            },
            keys: Vec::new(),
            values: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// One value.
    ///
    /// # Panics
    /// If `default` is no `T`.
    pub fn one<T>(&mut self, key: &str, doc: &'static str, kind: &Kind<T>, default: &str) -> T {
        let default = (kind.parse)(default).expect("defaults are values of their kind");
        self.keys.push(Key {
            default: Some(json(kind, &default)),
            ..self.key(key, doc, kind)
        });
        match self.take_one(key, kind) {
            Some(value) => value,
            None => {
                self.took(key, json(kind, &default), Origin::Default);
                default
            }
        }
    }

    /// One value, or none.
    pub fn optional<T>(&mut self, key: &str, doc: &'static str, kind: &Kind<T>) -> Option<T> {
        self.keys.push(self.key(key, doc, kind));
        let value = self.take_one(key, kind);
        if value.is_none() {
            self.took(key, Json::Null, Origin::Default);
        }
        value
    }

    /// One value whose default depends on the host. If `default` is an error, a missing value is a fault.
    pub fn computed<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        kind: &Kind<T>,
        default: Result<T, String>,
    ) -> Option<T> {
        self.keys.push(self.key(key, doc, kind));
        if let Some(value) = self.take_one(key, kind) {
            return Some(value);
        }
        match default {
            Ok(value) => {
                self.took(key, json(kind, &value), Origin::Default);
                Some(value)
            }
            Err(problem) => {
                // A wrong value has its fault already.
                if self.given(key).is_empty() {
                    self.note(|| Place::Default, key, problem);
                }
                None
            }
        }
    }

    /// One value that must be given.
    pub fn required<T>(&mut self, key: &str, doc: &'static str, kind: &Kind<T>) -> Option<T> {
        self.keys.push(Key {
            required: true,
            ..self.key(key, doc, kind)
        });
        let value = self.take_one(key, kind);
        if value.is_none() {
            self.missing_unless_given(key, kind.expects);
        }
        value
    }

    fn missing_unless_given(&mut self, key: &str, expects: &str) {
        if self.given(key).is_empty() {
            let (node, file) = (self.scope.node, &self.sources.file);
            let place = || match (node, file) {
                (Some(node), Some(file)) => file.place(node.id),
                _ => Place::Default,
            };
            self.note(place, key, format!("is missing; give {expects}"));
        }
    }

    /// A list.
    ///
    /// # Panics
    /// If an item of `default` is no `T`.
    pub fn list<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        kind: &Kind<T>,
        default: &[&str],
    ) -> Vec<T> {
        let default: Vec<T> = default
            .iter()
            .map(|item| (kind.parse)(item).expect("defaults are values of their kind"))
            .collect();
        self.keys.push(Key {
            list: true,
            default: Some(json_list(kind, &default)),
            ..self.key(key, doc, kind)
        });
        let (origin, values) = self.take(key, kind).unwrap_or((Origin::Default, default));
        self.took(key, json_list(kind, &values), origin);
        values
    }

    /// A list; one item may stand alone. Empty if it is not given.
    pub fn one_or_more<T>(&mut self, key: &str, doc: &'static str, kind: &Kind<T>) -> Vec<T> {
        self.keys.push(Key {
            list: true,
            or_one: true,
            ..self.key(key, doc, kind)
        });
        let (origin, values) = self
            .take(key, kind)
            .unwrap_or((Origin::Default, Vec::new()));
        self.took(key, json_list(kind, &values), origin);
        values
    }

    /// Records a fault if no source has the list `key`, which was read last.
    pub fn must_be_given(&mut self, key: &str, expects: &str) {
        if let Some(described) = self.keys.last_mut() {
            described.required = true;
        }
        self.missing_unless_given(key, expects);
    }

    /// A list of sections, of each of which `read` returns what it holds.
    pub fn sections<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Vec<T> {
        self.keys.push(Key {
            sections: true,
            ..self.names(key, doc)
        });
        let outer = self.scope.clone();
        let pattern = join(&join(&outer.pattern, key), "*");
        self.describe(&pattern, &mut read);
        let mut sections = Vec::new();
        if let Some(Value::List(nodes)) = find(outer.node, key).map(|node| &node.value) {
            for (index, node) in nodes.iter().enumerate() {
                let path = join(&join(&outer.path, key), &index.to_string());
                sections.extend(self.read_in(path, &pattern, node, &mut read));
            }
        }
        self.scope = outer;
        sections
    }

    /// A mapping from names, which the user chooses, to what `read` returns for each entry.
    ///
    /// `name` checks a name; its error is one line with the remedy.
    pub fn entries<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        name: fn(&str) -> Result<(), String>,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> BTreeMap<String, T> {
        self.keys.push(self.names(key, doc));
        let outer = self.scope.clone();
        let pattern = join(&join(&outer.pattern, key), "*");
        self.describe(&pattern, &mut read);
        let mut entries = BTreeMap::new();
        if let Some(Value::Map(nodes)) = find(outer.node, key).map(|node| &node.value) {
            for (entry, node) in nodes {
                let Value::Text(text) = &entry.value else {
                    continue; // a fault of the shape
                };
                let path = join(&join(&outer.path, key), text);
                if let (Err(problem), Some(file)) = (name(text), &self.sources.file) {
                    let key = join(&outer.path, key);
                    self.faults
                        .note(|| file.place(entry.id), Some(key), problem);
                }
                if let Some(value) = self.read_in(path, &pattern, node, &mut read) {
                    entries.insert(text.clone(), value);
                }
            }
        }
        self.scope = outer;
        entries
    }

    /// The key of a mapping or list in which `*` stands.
    fn names(&self, key: &str, doc: &'static str) -> Key {
        Key {
            path: join(&self.scope.pattern, key),
            doc,
            form: Form::Text,
            expects: "",
            list: false,
            or_one: false,
            sections: false,
            required: false,
            default: None,
        }
    }

    /// Reads once without any source, so that the keys are known without any entry.
    fn describe<T>(&mut self, pattern: &str, read: &mut impl FnMut(&mut Self) -> Option<T>) {
        let (values, faults) = (self.values.clone(), self.faults.clone());
        self.scope = Scope {
            path: pattern.to_owned(),
            pattern: pattern.to_owned(),
            node: None,
            root: false,
        };
        read(self);
        (self.values, self.faults) = (values, faults);
    }

    fn read_in<T>(
        &mut self,
        path: String,
        pattern: &str,
        node: &'a Node,
        read: &mut impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let described = self.keys.len();
        self.scope = Scope {
            path,
            pattern: pattern.to_owned(),
            node: Some(node),
            root: false,
        };
        let value = read(self);
        self.keys.truncate(described);
        value
    }

    /// The directories of the program, by the environment that is read.
    #[must_use]
    pub fn directories(&self) -> Directories {
        Directories::of_process(self.program.name, &self.sources.env)
    }

    /// Whether a flag set `key`. Read the key first.
    #[must_use]
    pub fn is_flag(&self, key: &str) -> bool {
        matches!(self.origin(key), Origin::Flag(_))
    }

    /// Whether any source set `key`. Read the key first.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        !matches!(self.origin(key), Origin::Default)
    }

    /// Records that the value of `key` contradicts another one. `item` is the index in a list.
    pub fn contradiction(&mut self, key: &str, item: Option<usize>, problem: String) {
        let (origin, file) = (self.origin(key), self.sources.file.as_ref());
        self.note(|| origin.place(item, file), key, problem);
    }

    /// The same of a value that is wrong because of those of `others`. If one of them has a fault, its value is not
    /// known, and nothing is recorded.
    pub fn contradiction_of(
        &mut self,
        key: &str,
        item: Option<usize>,
        others: &[&str],
        problem: String,
    ) {
        if !others.iter().any(|other| self.has_fault_of(other)) {
            self.contradiction(key, item, problem);
        }
    }

    /// Whether a fault was recorded for this key or one below it.
    pub fn has_fault_of(&self, key: &str) -> bool {
        self.faults.are_of(key)
    }

    /// Records a fault of a command-line argument that sets no key.
    pub fn argument(&mut self, argument: &str, problem: String) {
        let place = || Place::Flag(argument.to_owned());
        self.faults.note(place, None, problem);
    }

    fn key<T>(&self, key: &str, doc: &'static str, kind: &Kind<T>) -> Key {
        Key::new(join(&self.scope.pattern, key), doc, kind)
    }

    /// Where the value of `key` that is in force came from.
    fn origin(&self, key: &str) -> Origin {
        let path = join(&self.scope.path, key);
        self.values
            .iter()
            .find(|taken| taken.key == path)
            .map_or(Origin::Default, |taken| taken.origin.clone())
    }

    fn note(&mut self, place: impl FnOnce() -> Place, key: &str, problem: String) {
        let key = join(&self.scope.path, key);
        self.faults.note(place, Some(key), problem);
    }

    fn took(&mut self, key: &str, value: Json, origin: Origin) {
        self.values.push(Taken {
            key: join(&self.scope.path, key),
            value,
            origin,
        });
    }

    /// Takes the value of `key`, which the last of `keys` describes.
    fn take_one<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<T> {
        let (origin, mut values) = self.take(key, kind)?;
        let value = values.pop()?;
        self.took(key, json(kind, &value), origin);
        Some(value)
    }

    /// The strongest source's values, after checking all sources.
    fn take<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<(Origin, Vec<T>)> {
        let mut taken = None;
        for given in self.given(key) {
            taken = self.parse(key, kind, given).or(taken);
        }
        taken
    }

    fn given(&self, key: &str) -> Vec<Given<'a>> {
        let (sources, scope) = (self.sources, &self.scope);
        self.keys.last().map_or_else(Vec::new, |described| {
            sources.given(self.program, scope.node, scope.root, key, described)
        })
    }

    /// The values of one source, or `None` after each fault was recorded.
    fn parse<T>(
        &mut self,
        key: &str,
        kind: &Kind<T>,
        given: Given<'a>,
    ) -> Option<(Origin, Vec<T>)> {
        let file = self.sources.file.as_ref();
        let origin = given.origin;
        let mut values = Vec::new();
        let mut seen = BTreeSet::new();
        let mut right = true;
        for (item, text) in given.texts.into_iter().enumerate() {
            let parsed = text.and_then(|text| {
                let value = (kind.parse)(text)?;
                let printed = (kind.print)(&value);
                if seen.contains(&printed) {
                    return Err(format!("{} is listed twice; drop one", quote(&printed)));
                }
                seen.insert(printed);
                Ok(value)
            });
            match parsed {
                Ok(value) => values.push(value),
                Err(problem) => {
                    right = false;
                    self.note(|| origin.place(Some(item), file), key, problem);
                }
            }
        }
        right.then_some((origin, values))
    }
}
