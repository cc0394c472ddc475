//! Whether a document has the shape of the known keys: no unknown ones, no duplicates, mappings where keys belong.

use std::collections::BTreeSet;

use super::{
    document::{Document, Node, Value},
    fault::{Faults, Place},
    key::{Key, join},
    reader::Reader,
    source::variable,
};

/// Records every fault of shape of the file, and every variable that looks misspelled.
pub(super) fn check(reader: &mut Reader<'_>) {
    if let Some(document) = &reader.sources.file {
        let shape = Shape {
            document,
            keys: &reader.keys,
            faults: &mut reader.faults,
        };
        shape.check();
    }
    misspelled_variables(reader);
}

struct Shape<'a> {
    document: &'a Document,
    keys: &'a [Key],
    faults: &'a mut Faults,
}

impl Shape<'_> {
    fn check(mut self) {
        // (node, path as written, pattern)
        let mut sections = vec![(&self.document.root, String::new(), String::new())];
        while let Some((node, path, pattern)) = sections.pop() {
            if node.value == Value::Null {
                continue;
            }
            if self.is_list_of_sections(&pattern) {
                let Value::List(items) = &node.value else {
                    let problem = format!("{}; give a list of mappings", node.value.describe());
                    self.note(node, &path, problem);
                    continue;
                };
                let inner = join(&pattern, "*");
                let items = items.iter().enumerate();
                sections.extend(
                    items.map(|(index, item)| {
                        (item, join(&path, &index.to_string()), inner.clone())
                    }),
                );
                continue;
            }
            let Value::Map(entries) = &node.value else {
                let known = children(self.keys, &pattern);
                let example = known.first().map_or("name", String::as_str);
                let problem = format!(
                    "{}; give a mapping, such as `{example}: ...`",
                    node.value.describe()
                );
                self.note(node, &path, problem);
                continue;
            };
            let mut seen = BTreeSet::new();
            for (key, value) in entries {
                let Value::Text(name) = &key.value else {
                    self.note(
                        key,
                        &path,
                        format!("{}; a key must be text", key.value.describe()),
                    );
                    continue;
                };
                let written = join(&path, name);
                if !seen.insert(name) {
                    self.note(key, &written, "is given twice; drop one".to_owned());
                    continue;
                }
                match self.resolve(&pattern, name) {
                    Known::Leaf => {}
                    Known::Section(inner) => sections.push((value, written, inner)),
                    Known::No => {
                        let problem = unknown(self.keys, &pattern, &path, name);
                        self.note(key, &written, problem);
                    }
                }
            }
        }
    }

    fn is_list_of_sections(&self, pattern: &str) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| key.sections && key.path == pattern)
    }

    fn resolve(&self, pattern: &str, name: &str) -> Known {
        let exact = join(pattern, name);
        let any = join(pattern, "*");
        let below = |path: &str| {
            self.keys.iter().any(|key| {
                key.path
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('.'))
            })
        };
        if below(&exact) {
            Known::Section(exact)
        } else if below(&any) {
            Known::Section(any)
        } else if self.keys.iter().any(|key| key.path == exact) {
            Known::Leaf
        } else {
            Known::No
        }
    }

    fn note(&mut self, node: &Node, path: &str, problem: String) {
        let key = (!path.is_empty()).then(|| path.to_owned());
        let place = || self.document.place(node.id);
        self.faults.note(place, key, problem);
    }
}

enum Known {
    Leaf,
    Section(String),
    No,
}

/// The names that may appear in the section `pattern`.
fn children(keys: &[Key], pattern: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in keys {
        let rest = match pattern {
            "" => Some(key.path.as_str()),
            _ => key
                .path
                .strip_prefix(pattern)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && name != "*"
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

fn unknown(keys: &[Key], pattern: &str, path: &str, name: &str) -> String {
    let siblings = children(keys, pattern);
    if let Some(near) = nearest(name, siblings.iter().map(String::as_str)) {
        return format!("is not a key; did you mean {}?", join(path, near));
    }
    let elsewhere = keys
        .iter()
        .find(|key| !key.path.contains('*') && key.path.rsplit('.').next() == Some(name));
    if let Some(key) = elsewhere {
        return format!("is not a key; did you mean {}?", key.path);
    }
    format!("is not a key; the keys here are {}", siblings.join(", "))
}

fn misspelled_variables(reader: &mut Reader<'_>) {
    let known: Vec<String> = reader
        .keys
        .iter()
        .filter(|key| !key.path.contains('*'))
        .map(|key| variable(reader.program, &key.path))
        // The variable that names the file is not a key.
        .chain([variable(reader.program, "config")])
        .collect();
    let prefix = format!("{}_", reader.program.env);
    for name in reader.sources.env.keys() {
        if !name.starts_with(&prefix) || known.contains(name) {
            continue;
        }
        if let Some(near) = nearest(name, known.iter().map(String::as_str)) {
            let problem = format!("sets no key; did you mean {near}?");
            reader
                .faults
                .note(|| Place::Env(name.clone()), None, problem);
        }
    }
}

/// The name that was most likely meant by `wrong`.
fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Two typing errors in a long name, one in a short one.
    let most = if wrong.len() > 4 { 2 } else { 1 };
    names
        .map(|name| (strsim::osa_distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}
