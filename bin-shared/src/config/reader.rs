//! Reads keys from their sources, and keeps what is told about each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{
    document::{Document, Node, Value},
    fault::{Faults, Place},
    kind::{Form, Kind},
    quote, shape,
};
use crate::paths::Directories;

/// What a program's variables and its schema are called after.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The binary's name.
    pub name: &'static str,
    /// The prefix of its variables, without the underscore.
    pub env: &'static str,
}

/// Where values come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<Document>,
    /// Environment variables; those of other prefixes are ignored.
    pub env: BTreeMap<String, String>,
    /// Command-line flags.
    pub flags: Flags,
}

/// The flags that were given, and the keys that they set.
#[derive(Debug, Clone, Default)]
pub struct Flags(BTreeMap<&'static str, (&'static str, Vec<String>)>);

impl Flags {
    /// `flag` sets `key`, if `value` was given.
    #[must_use]
    pub fn one(self, key: &'static str, flag: &'static str, value: Option<&String>) -> Self {
        self.many(
            key,
            flag,
            value.map(std::slice::from_ref).unwrap_or_default(),
        )
    }

    /// `flag` sets the list `key`, if it was given at all.
    #[must_use]
    pub fn many(mut self, key: &'static str, flag: &'static str, values: &[String]) -> Self {
        if !values.is_empty() {
            self.0.insert(key, (flag, values.to_vec()));
        }
        self
    }
}

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

/// Where a value stands; positions in the file are looked up when they are needed.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Default,
    Node { whole: usize, items: Vec<usize> },
    Env(String),
    Flag(&'static str),
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
        self.describe(key, doc, kind, false, false, Some(json(kind, &default)));
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
        self.describe(key, doc, kind, false, false, None);
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
        self.describe(key, doc, kind, false, false, None);
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
                if self.given(key, false).is_empty() {
                    self.note(|| Place::Default, key, problem);
                }
                None
            }
        }
    }

    /// One value that must be given.
    pub fn required<T>(&mut self, key: &str, doc: &'static str, kind: &Kind<T>) -> Option<T> {
        self.describe(key, doc, kind, false, true, None);
        let value = self.take_one(key, kind);
        if value.is_none() && self.given(key, false).is_empty() {
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
        self.describe(key, doc, kind, true, false, Some(json_list(kind, &default)));
        let mut taken = None;
        for given in self.given(key, true) {
            taken = self.parse(key, kind, given).or(taken);
        }
        let (origin, values) = match taken {
            Some((origin, values)) => (origin, values),
            None => (Origin::Default, default),
        };
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

    /// Whether a flag set `key`.
    #[must_use]
    pub fn is_flag(&self, key: &str) -> bool {
        self.sources.flags.0.contains_key(key)
    }

    /// Whether any source set `key`.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        !self.given(key, true).is_empty()
    }

    /// Notes that the value of `key` contradicts another; `item` is the index of the culprit in a list.
    pub fn contradiction(&mut self, key: &str, item: Option<usize>, problem: String) {
        let path = join(&self.scope.path, key);
        let origin = self
            .values
            .iter()
            .find(|taken| taken.key == path)
            .map_or(Origin::Default, |taken| taken.origin.clone());
        let node = match (&origin, item) {
            (Origin::Node { items, .. }, Some(item)) => items.get(item).copied(),
            _ => None,
        };
        let file = self.sources.file.as_ref();
        self.note(|| origin.place(node, file), key, problem);
    }

    /// Notes a fault of a command-line argument that is no key.
    pub fn argument(&mut self, argument: &str, problem: String) {
        let place = || Place::Flag(argument.to_owned());
        self.faults.note(place, None, problem);
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

    fn describe<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        kind: &Kind<T>,
        list: bool,
        required: bool,
        default: Option<Json>,
    ) {
        self.keys.push(Key {
            path: join(&self.scope.pattern, key),
            doc,
            form: kind.form,
            expects: kind.expects,
            list,
            required,
            default,
        });
    }

    fn take_one<T>(&mut self, key: &str, kind: &Kind<T>) -> Option<T> {
        let mut taken = None;
        for given in self.given(key, false) {
            taken = self.parse(key, kind, given).or(taken);
        }
        let (origin, mut values) = taken?;
        let value = values.pop()?;
        self.took(key, json(kind, &value), origin);
        Some(value)
    }

    /// What the sources hold for `key`, weakest first.
    fn given(&self, key: &str, list: bool) -> Vec<(Origin, Raw<'a>)> {
        let mut given = Vec::new();
        if let Some(node) = find(self.scope.node, key)
            && node.value != Value::Null
        {
            let items = match &node.value {
                Value::List(items) if list => items.iter().map(|item| item.id).collect(),
                _ => Vec::new(),
            };
            given.push((
                Origin::Node {
                    whole: node.id,
                    items,
                },
                Raw::Node(node),
            ));
        }
        if self.scope.root {
            let name = variable(self.program, key);
            if let Some(text) = self.sources.env.get(&name).filter(|text| !text.is_empty()) {
                let texts = match list {
                    true => text.split(',').map(str::trim).collect(),
                    false => vec![text.as_str()],
                };
                given.push((Origin::Env(name), Raw::Texts(texts)));
            }
            if let Some((flag, texts)) = self.sources.flags.0.get(key) {
                let texts = texts.iter().map(String::as_str).collect();
                given.push((Origin::Flag(flag), Raw::Texts(texts)));
            }
        }
        given
    }

    /// The values of one source, or `None` after noting each fault.
    fn parse<T>(
        &mut self,
        key: &str,
        kind: &Kind<T>,
        (origin, raw): (Origin, Raw<'a>),
    ) -> Option<(Origin, Vec<T>)> {
        let file = self.sources.file.as_ref();
        let list = self.keys.last().is_some_and(|key| key.list);
        let mut values = Vec::new();
        let mut seen = BTreeSet::new();
        let mut faults = Vec::new();
        for (text, node) in raw.texts(kind, list) {
            let parsed = text.and_then(|text| (kind.parse)(text));
            match parsed {
                Ok(value) if list && !seen.insert((kind.print)(&value)) => {
                    let printed = quote(&(kind.print)(&value));
                    faults.push((node, format!("{printed} is listed twice; drop one")));
                }
                Ok(value) => values.push(value),
                Err(problem) => faults.push((node, problem)),
            }
        }
        if faults.is_empty() {
            return Some((origin, values));
        }
        for (node, problem) in faults {
            self.note(|| origin.place(node, file), key, problem);
        }
        None
    }
}

/// A value as a source holds it.
enum Raw<'a> {
    Node(&'a Node),
    Texts(Vec<&'a str>),
}

impl<'a> Raw<'a> {
    /// The texts of the items, or of the one value; each with its node. `Err` where the form is wrong.
    fn texts<T>(
        &self,
        kind: &Kind<T>,
        list: bool,
    ) -> Vec<(Result<&'a str, String>, Option<usize>)> {
        match self {
            Self::Texts(texts) => texts.iter().map(|text| (Ok(*text), None)).collect(),
            Self::Node(node) => match &node.value {
                Value::List(items) if list => items
                    .iter()
                    .map(|item| (scalar(item, kind), Some(item.id)))
                    .collect(),
                value if list => {
                    let problem = format!("{}; give a list: [{}]", value.describe(), kind.expects);
                    vec![(Err(problem), Some(node.id))]
                }
                _ => vec![(scalar(node, kind), Some(node.id))],
            },
        }
    }
}

impl Origin {
    /// The place, or that of `node` if the value stands in the file.
    pub(super) fn place(&self, node: Option<usize>, file: Option<&Document>) -> Place {
        match (self, file) {
            (Self::Node { whole, .. }, Some(file)) => file.place(node.unwrap_or(*whole)),
            (Self::Default | Self::Node { .. }, _) => Place::Default,
            (Self::Env(name), _) => Place::Env(name.clone()),
            (Self::Flag(flag), _) => Place::Flag((*flag).to_owned()),
        }
    }
}

/// The variable that sets `key`.
pub(super) fn variable(program: &Program, key: &str) -> String {
    format!("{}_{}", program.env, key.replace('.', "_").to_uppercase())
}

pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// The node at the dotted path `key` below `node`. Of duplicates, the first; they are faults of the shape.
fn find<'a>(node: Option<&'a Node>, key: &str) -> Option<&'a Node> {
    key.split('.').try_fold(node?, |node, segment| {
        let Value::Map(entries) = &node.value else {
            return None;
        };
        entries.iter().find_map(|(key, value)| {
            matches!(&key.value, Value::Text(text) if text == segment).then_some(value)
        })
    })
}

fn scalar<'a, T>(node: &'a Node, kind: &Kind<T>) -> Result<&'a str, String> {
    match (&node.value, kind.form) {
        (Value::Bool(true), Form::Bool) => Ok("true"),
        (Value::Bool(false), Form::Bool) => Ok("false"),
        (Value::Number(text), Form::Integer { .. } | Form::TextOrInteger)
        | (Value::Text(text), Form::Text | Form::TextOrInteger | Form::Choice(_)) => Ok(text),
        (value, _) => Err(format!("{}; give {}", value.describe(), kind.expects)),
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
