//! A YAML file as a tree whose nodes have positions.
//!
//! The parser reports positions only with errors. So each node gets a number in the order of reading. A second reading stops at
//! node *n* with an error, whose position is that of the node. Only faults and `config show` need positions, and such files are
//! small.

use std::{
    cell::Cell,
    fmt,
    path::{Path, PathBuf},
};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::fault::{Fault, Place};
use crate::text_file::{self, Unreadable};

/// The most bytes of a configuration file: ten thousand peers by name.
const LONGEST: u64 = 4 * 1024 * 1024;

/// A configuration file that is well-formed YAML.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    pub(super) root: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// Entries as written, duplicates included.
    Map(Vec<(Node, Node)>),
    Tagged(String),
}

impl Document {
    /// Reads `path`.
    ///
    /// # Errors
    /// If the file cannot be read or is not YAML; then the error names the line.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let text = text_file::read_or_receive(path, LONGEST).map_err(|error| {
            let reason = match &error {
                Unreadable::System { source, .. } => source.to_string(),
                Unreadable::NotAFile { what, .. } => format!("it is {what}"),
                Unreadable::TooLong { .. } | Unreadable::NotText { .. } => error.to_string(),
            };
            let remedy = error.remedy();
            let remedy =
                remedy.unwrap_or_else(|| "give a YAML file that exists with --config".to_owned());
            Fault::at(
                Place::file(path),
                format!("cannot read the configuration file: {reason}; {remedy}"),
            )
        })?;
        Self::parse(path, text)
    }

    /// Parses `text`; `path` only names it in messages.
    ///
    /// # Errors
    /// If `text` is not YAML.
    pub fn parse(path: &Path, text: String) -> Result<Self, Fault> {
        let reading = Reading {
            next: &Cell::new(0),
            stop_at: None,
        };
        match reading.deserialize(serde_yaml::Deserializer::from_str(&text)) {
            Ok(root) => Ok(Self {
                path: path.to_owned(),
                text,
                root,
            }),
            Err(error) => {
                let place = match error.location() {
                    Some(at) => Place::line(path, at.line(), at.column()),
                    None => Place::file(path),
                };
                // The parser repeats the position at the end of some messages.
                let message = error.to_string();
                let message = match message.rfind(" at line ") {
                    Some(end) if place != Place::file(path) => &message[..end],
                    _ => &message,
                };
                let line = error
                    .location()
                    .and_then(|at| text.lines().nth(at.line().saturating_sub(1)));
                let is_tab =
                    line.is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
                let message = match is_tab {
                    true => "a tab cannot indent; use spaces",
                    false => message,
                };
                Err(Fault::at(place, format!("is not valid YAML: {message}")))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has no key with a value.
    pub(super) fn is_empty(&self) -> bool {
        match &self.root.value {
            Value::Null => true,
            Value::Map(entries) => entries.iter().all(|(_, of)| of.value == Value::Null),
            Value::Bool(_)
            | Value::Number(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Tagged(_) => false,
        }
    }

    pub(super) fn is_beginning_of(&self, all: &Self) -> bool {
        self.text.len() < all.text.len() && all.text.starts_with(&self.text)
    }

    /// The position of node `id`.
    pub(super) fn place(&self, id: usize) -> Place {
        let reading = Reading {
            next: &Cell::new(0),
            stop_at: Some(id),
        };
        let location = reading
            .deserialize(serde_yaml::Deserializer::from_str(&self.text))
            .err()
            .and_then(|stopped| stopped.location());
        match location {
            Some(at) => Place::line(&self.path, at.line(), at.column()),
            None => Place::file(&self.path),
        }
    }
}

impl Value {
    /// The value for an error message, on one line and of bounded length.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("{value} is a boolean"),
            Self::Number(text) => format!("{text} is a number"),
            Self::Text(text) => format!("{} is a text", p2pnode_protocol::quote(text)),
            Self::List(items) => format!("this is a list of {}", items.len()),
            Self::Map(_) => "this is a mapping".to_owned(),
            Self::Tagged(tag) => format!("this has the YAML tag {}", p2pnode_protocol::quote(tag)),
        }
    }
}

/// One reading of a document. It numbers the nodes, and stops with an error at node `stop_at`.
#[derive(Clone, Copy)]
struct Reading<'a> {
    next: &'a Cell<usize>,
    stop_at: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let id = self.next.get();
        self.next.set(id + 1);
        let value = deserializer.deserialize_any(NodeVisitor { reading: self, id })?;
        Ok(Node { id, value })
    }
}

struct NodeVisitor<'a> {
    reading: Reading<'a>,
    id: usize,
}

impl NodeVisitor<'_> {
    fn stop_here<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.reading.stop_at == Some(self.id) {
            return Err(E::custom("here"));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Null)
    }

    // An empty document.
    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Number(value.to_string()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Number(value.to_string()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Number(value.to_string()))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Number(value.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // With its decimal point, so that no fraction passes for a whole number.
        self.stop_here()
            .map(|()| Value::Number(format!("{value:?}")))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.stop_here().map(|()| Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.stop_here()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.reading)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.stop_here()?;
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry_seed(self.reading, self.reading)? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        self.stop_here()?;
        let (tag, content) = tagged.variant::<String>()?;
        content
            .newtype_variant_seed(self.reading)
            .map_err(A::Error::custom)?;
        Ok(Value::Tagged(tag))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Document, Fault> {
        Document::parse(Path::new("f.yaml"), text.to_owned())
    }

    fn entry<'a>(node: &'a Node, key: &str) -> (&'a Node, &'a Node) {
        let Value::Map(entries) = &node.value else {
            panic!("not a map")
        };
        let (key, value) = entries
            .iter()
            .find(|(k, _)| k.value == Value::Text(key.to_owned()))
            .unwrap();
        (key, value)
    }

    #[test]
    fn an_empty_file_and_one_of_comments_are_null() {
        for text in ["", "\n", "# nothing\n", "---\n"] {
            assert_eq!(parse(text).unwrap().root.value, Value::Null, "{text:?}");
        }
    }

    #[test]
    fn keys_values_and_items_have_their_line_and_column() {
        let document = parse("a: 1\nb:\n  c: [x, {d: yes}]\n  e: >\n    long\n").unwrap();
        let (b, inner) = entry(&document.root, "b");
        assert_eq!(document.place(b.id).to_string(), "f.yaml:2:1");
        let (_, list) = entry(inner, "c");
        let Value::List(items) = &list.value else {
            panic!("not a list")
        };
        assert_eq!(document.place(items[0].id).to_string(), "f.yaml:3:7");
        let (d, yes) = entry(&items[1], "d");
        assert_eq!(document.place(d.id).to_string(), "f.yaml:3:11");
        assert_eq!(document.place(yes.id).to_string(), "f.yaml:3:14");
    }

    #[test]
    fn duplicate_keys_are_kept() {
        let document = parse("a: 1\na: 2\n").unwrap();
        assert!(matches!(&document.root.value, Value::Map(entries) if entries.len() == 2));
    }

    #[test]
    fn broken_yaml_names_the_line() {
        let fault = parse("a: [1,\nb: }\n").unwrap_err().to_string();
        assert!(fault.starts_with("f.yaml:2:"), "{fault}");
        assert!(!fault.contains('\n'), "{fault}");
        assert!(parse("a: 1\n---\nb: 1\n").is_err());
        assert!(parse("a: *nowhere\n").is_err());
    }

    #[test]
    fn a_tag_is_kept() {
        let document = parse("a: !secret x\n").unwrap();
        assert_eq!(
            entry(&document.root, "a").1.value,
            Value::Tagged("secret".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_node_has_a_place(text in "[a-c:\\[\\]{}\n ,!&*\"'#-]{0,60}|\\PC{0,60}") {
            if let Ok(document) = parse(&text) {
                let mut nodes = vec![&document.root];
                while let Some(node) = nodes.pop() {
                    prop_assert!(document.place(node.id).to_string().starts_with("f.yaml"));
                    match &node.value {
                        Value::List(items) => nodes.extend(items),
                        Value::Map(entries) => nodes.extend(entries.iter().flat_map(|(k, v)| [k, v])),
                        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Tagged(_) => {}
                    }
                }
            }
        }
    }
}
