//! Reads keys from their sources, and keeps what is told about each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use p2pnode_protocol::quote;

use super::{
    document::{Document, Node, Value},
    fault::{Faults, Place},
    kind::{Form, Kind},
    shape,
    source::{Given, Origin, Program, Sources, find},
};
use crate::paths::Directories;

/// A configuration without faults, and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    pub(super) values: Vec<Taken>,
    pub(super) file: Option<Document>,
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with it, in every source.
pub fn load<C>(
    program: &Program,
    sources: &Sources,
    read: impl FnOnce(&mut Reader<'_>) -> C,
) -> Result<Loaded<C>, Faults> {
    let mut reader = Reader::new(program, sources);
    let config = read(&mut reader);
    shape::check(&mut reader);
    reader.faults.check()?;
    Ok(Loaded {
        config,
        values: reader.values,
        file: sources.file.clone(),
    })
}

impl<C> Loaded<C> {
    /// The keys whose values are others in `new`.
    #[must_use]
    pub fn changed<D>(&self, new: &Loaded<D>) -> BTreeSet<String> {
        let values = |taken: &[Taken]| -> BTreeSet<(String, String)> {
            let values = taken.iter();
            values
                .map(|taken| (taken.key.clone(), taken.value.to_string()))
                .collect()
        };
        let (old, new) = (values(&self.values), values(&new.values));
        let differing = old.symmetric_difference(&new);
        differing.map(|(key, _)| key.clone()).collect()
    }
}

/// Hands out values of keys; a fault is noted, and reading goes on with the default.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) program: &'a Program,
    pub(super) sources: &'a Sources,
    scope: Scope<'a>,
    pub(super) keys: Vec<Key>,
    pub(super) values: Vec<Taken>,
    pub(super) faults: Faults,
}

/// What is known about a key without any source.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The path; `*` stands for a name given by the user.
    pub(super) path: String,
    pub(super) doc: &'static str,
    pub(super) form: Form,
    pub(super) expects: &'static str,
    pub(super) list: bool,
    pub(super) required: bool,
    pub(super) default: Option<Json>,
}

/// A value that is in force.
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

    /// One value whose default depends on the host; where that cannot be told, its absence is a fault.
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
                // A value that is there and wrong has its fault already.
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
        if value.is_none() && self.given(key).is_empty() {
            let (node, file) = (self.scope.node, &self.sources.file);
            let place = || match (node, file) {
                (Some(node), Some(file)) => file.place(node.id),
                _ => Place::Default,
            };
            self.note(place, key, format!("is missing; give {}", kind.expects));
        }
        value
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

    /// A mapping from names, which the user gives, to what `read` makes of each entry.
    ///
    /// `name` refuses names with one line that names the remedy.
    pub fn entries<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        name: fn(&str) -> Result<(), String>,
        read: fn(&mut Self) -> Option<T>,
    ) -> BTreeMap<String, T> {
        self.keys.push(Key {
            path: join(&self.scope.pattern, key),
            doc,
            form: Form::Text,
            expects: "",
            list: false,
            required: false,
            default: None,
        });
        let outer = self.scope.clone();
        let pattern = join(&join(&outer.pattern, key), "*");
        let enter = |path: String, node| Scope {
            path,
            pattern: pattern.clone(),
            node,
            root: false,
        };

        // Once without any source: the keys are known, also where there is no entry.
        let (values, faults) = (self.values.clone(), self.faults.clone());
        self.scope = enter(pattern.clone(), None);
        read(self);
        (self.values, self.faults) = (values, faults);

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
                let described = self.keys.len();
                self.scope = enter(path, Some(node));
                if let Some(value) = read(self) {
                    entries.insert(text.clone(), value);
                }
                self.keys.truncate(described);
            }
        }
        self.scope = outer;
        entries
    }

    /// Where the program keeps its files, by the environment that is read.
    #[must_use]
    pub fn directories(&self) -> Directories {
        Directories::of_process(self.program.name, &self.sources.env)
    }

    /// Whether a flag set `key`, which was read before.
    #[must_use]
    pub fn is_flag(&self, key: &str) -> bool {
        matches!(self.origin(key), Origin::Flag(_))
    }

    /// Whether any source set `key`, which was read before.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        !matches!(self.origin(key), Origin::Default)
    }

    /// Notes that the value of `key` contradicts another; `item` is the index of the culprit in a list.
    pub fn contradiction(&mut self, key: &str, item: Option<usize>, problem: String) {
        let (origin, file) = (self.origin(key), self.sources.file.as_ref());
        self.note(|| origin.place(item, file), key, problem);
    }

    /// Notes a fault of a command-line argument that is no key.
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

    /// Takes the value of `key`, which is described by the last of `keys`.
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

    /// The values of one source, or `None` after noting each fault.
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

impl Key {
    fn new<T>(path: String, doc: &'static str, kind: &Kind<T>) -> Self {
        Self {
            path,
            doc,
            form: kind.form,
            expects: kind.expects,
            list: false,
            required: false,
            default: None,
        }
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

fn json<T>(kind: &Kind<T>, value: &T) -> Json {
    let text = (kind.print)(value);
    match kind.form {
        Form::Bool => Json::Bool(text == "true"),
        Form::Integer { .. } => text.parse::<u64>().map_or(Json::String(text), Json::from),
        Form::Text | Form::TextOrInteger | Form::Choice(_) => Json::String(text),
    }
}

fn json_list<T>(kind: &Kind<T>, values: &[T]) -> Json {
    values.iter().map(|value| json(kind, value)).collect()
}
