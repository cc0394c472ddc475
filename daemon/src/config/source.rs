//! The values that each source has for a key.

use std::collections::BTreeMap;

use super::{
    document::{Document, Node, Value},
    fault::Place,
    key::Key,
    kind::Form,
};

/// The names of a program, for its variables and its schema.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The name of the binary.
    pub name: &'static str,
    /// The prefix of the variables, without the underscore.
    pub env: &'static str,
}

/// Where values come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<Document>,
    /// Environment variables. Those with other prefixes are ignored.
    pub env: BTreeMap<String, String>,
    /// Command-line flags.
    pub flags: Flags,
}

/// The flags that were given, and the keys that they set.
#[derive(Debug, Clone, Default)]
pub struct Flags(pub(super) BTreeMap<&'static str, (&'static str, Vec<String>)>);

impl Flags {
    /// `flag` sets `key` if the user gave a `value`.
    #[must_use]
    pub fn one(self, key: &'static str, flag: &'static str, value: Option<&String>) -> Self {
        self.many(
            key,
            flag,
            value.map(std::slice::from_ref).unwrap_or_default(),
        )
    }

    /// `flag` sets the list `key` if the user gave any `values`.
    #[must_use]
    pub fn many(mut self, key: &'static str, flag: &'static str, values: &[String]) -> Self {
        if !values.is_empty() {
            self.0.insert(key, (flag, values.to_vec()));
        }
        self
    }
}

/// Where a value came from. Positions in the file are computed only when needed.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Default,
    /// The node of the value, and those of its items if it is a list.
    Node {
        whole: usize,
        items: Vec<usize>,
    },
    Env(String),
    Flag(&'static str),
}

impl Origin {
    /// The place, or that of `item` if the value is a list in the file.
    pub(super) fn place(&self, item: Option<usize>, file: Option<&Document>) -> Place {
        match (self, file) {
            (Self::Node { whole, items }, Some(file)) => {
                let item = item.and_then(|item| items.get(item));
                file.place(*item.unwrap_or(whole))
            }
            (Self::Default | Self::Node { .. }, _) => Place::Default,
            (Self::Env(name), _) => Place::Env(name.clone()),
            (Self::Flag(flag), _) => Place::Flag((*flag).to_owned()),
        }
    }
}

/// What one source holds for a key: the text of each item, or of the one value; or why the form is wrong.
pub(super) struct Given<'a> {
    pub(super) origin: Origin,
    pub(super) texts: Vec<Result<&'a str, String>>,
}

impl Sources {
    /// What the sources hold for `path` below `node`, weakest first. Variables and flags set keys of the root only.
    pub(super) fn given<'a>(
        &'a self,
        program: &Program,
        node: Option<&'a Node>,
        at_root: bool,
        path: &str,
        key: &Key,
    ) -> Vec<Given<'a>> {
        let mut given = Vec::new();
        if let Some(node) = find(node, path)
            && node.value != Value::Null
        {
            given.push(in_file(node, key));
        }
        if !at_root {
            return given;
        }
        let name = variable(program, path);
        if let Some(text) = self.env.get(&name).filter(|text| !text.is_empty()) {
            let texts = if key.list {
                text.split(',').map(|item| Ok(item.trim())).collect()
            } else {
                vec![Ok(text.as_str())]
            };
            let origin = Origin::Env(name);
            given.push(Given { origin, texts });
        }
        if let Some((flag, texts)) = self.flags.0.get(path) {
            let texts = texts.iter().map(|text| Ok(text.as_str())).collect();
            let origin = Origin::Flag(flag);
            given.push(Given { origin, texts });
        }
        given
    }
}

/// The variable that sets `key`.
pub(super) fn variable(program: &Program, key: &str) -> String {
    format!("{}_{}", program.env, key.replace('.', "_").to_uppercase())
}

/// The node at the dotted `path` below `node`. Of duplicates, the first; they are faults of the shape.
pub(super) fn find<'a>(node: Option<&'a Node>, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(node?, |node, segment| {
        let Value::Map(entries) = &node.value else {
            return None;
        };
        entries.iter().find_map(|(key, value)| {
            matches!(&key.value, Value::Text(text) if text == segment).then_some(value)
        })
    })
}

fn in_file<'a>(node: &'a Node, key: &Key) -> Given<'a> {
    let (items, texts) = if !key.list {
        (Vec::new(), vec![scalar(node, key)])
    } else if let Value::List(items) = &node.value {
        let texts = items.iter().map(|item| scalar(item, key)).collect();
        (items.iter().map(|item| item.id).collect(), texts)
    } else if key.or_one && !matches!(node.value, Value::Map(_)) {
        (vec![node.id], vec![scalar(node, key)])
    } else {
        let problem = format!("{}; give a list: [{}]", node.value.describe(), key.expects);
        (Vec::new(), vec![Err(problem)])
    };
    let whole = node.id;
    let origin = Origin::Node { whole, items };
    Given { origin, texts }
}

fn scalar<'a>(node: &'a Node, key: &Key) -> Result<&'a str, String> {
    match (&node.value, key.form) {
        (Value::Bool(true), Form::Bool) => Ok("true"),
        (Value::Bool(false), Form::Bool) => Ok("false"),
        (Value::Number(text), Form::Integer { .. } | Form::TextOrInteger)
        | (Value::Text(text), Form::Text | Form::TextOrInteger | Form::Choice(_)) => Ok(text),
        (value, _) => Err(format!("{}; give {}", value.describe(), key.expects)),
    }
}
