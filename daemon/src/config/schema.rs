//! The JSON Schema of a configuration, from the same descriptions as its loading.

use schemars::{Schema, generate::SchemaSettings};
use serde_json::{Map, Value as Json, json};

use super::{
    key::Key,
    kind::Form,
    reader::Reader,
    source::{Program, Sources},
};

/// The JSON Schema (draft 2020-12) of the file that `read` reads.
pub fn schema<C>(program: &Program, read: impl FnOnce(&mut Reader<'_>) -> C) -> Schema {
    let sources = Sources::default();
    let mut reader = Reader::new(program, &sources);
    read(&mut reader);

    let mut root = section("");
    for key in &reader.keys {
        insert(&mut root, &key.path, key);
    }
    if let Some(meta) = SchemaSettings::draft2020_12().meta_schema {
        root.insert("$schema".to_owned(), Json::String(meta.into_owned()));
    }
    root.insert(
        "title".to_owned(),
        json!(format!("Configuration of {}", program.name)),
    );
    Schema::from(root)
}

/// An object that allows only the keys inserted into it.
fn section(doc: &str) -> Map<String, Json> {
    let mut section = Map::new();
    if !doc.is_empty() {
        section.insert("description".to_owned(), json!(doc));
    }
    // A section all of whose keys are commented out is null.
    section.insert("type".to_owned(), json!(["object", "null"]));
    section.insert("properties".to_owned(), json!({}));
    section.insert("additionalProperties".to_owned(), json!(false));
    section
}

/// A list of objects that allow only the keys inserted into them.
fn sections(doc: &str) -> Json {
    let mut item = section("");
    item.insert("type".to_owned(), json!("object"));
    json!({ "description": doc, "type": ["array", "null"], "items": item })
}

fn insert(parent: &mut Map<String, Json>, path: &str, key: &Key) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let Some(rest) = rest else {
        let described = match key.expects {
            "" if key.sections => sections(key.doc),
            "" => Json::Object(section(key.doc)), // the mapping of names that `*` stands in
            _ => leaf(key),
        };
        properties(parent).insert(name.to_owned(), described);
        if key.required {
            match parent.get_mut("required").and_then(Json::as_array_mut) {
                Some(required) => required.push(json!(name)),
                None => {
                    parent.insert("required".to_owned(), json!([name]));
                }
            }
        }
        return;
    };
    let child = match name {
        "*" if parent.contains_key("items") => &mut parent["items"],
        "*" => {
            let any = parent.entry("additionalProperties").or_insert(Json::Null);
            if !any.is_object() {
                *any = Json::Object(section(""));
                any["type"] = json!("object");
            }
            any
        }
        _ => properties(parent)
            .entry(name)
            .or_insert_with(|| Json::Object(section(""))),
    };
    if let Some(child) = child.as_object_mut() {
        insert(child, rest, key);
    }
}

fn properties(section: &mut Map<String, Json>) -> &mut Map<String, Json> {
    section
        .entry("properties")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .expect("`properties` is an object, here and in `section`")
}

/// The schema of one key. A key without a value counts as not set, so every optional key may be null.
fn leaf(key: &Key) -> Json {
    let or_null = !key.required;
    let mut schema = if key.list {
        let mut list = json!({ "items": value(key, false), "uniqueItems": true });
        list["type"] = types(&["array"], or_null);
        if key.or_one {
            json!({ "anyOf": [list, value(key, false)] })
        } else {
            list
        }
    } else {
        value(key, or_null)
    };
    schema["description"] = json!(key.doc);
    if let Some(default) = &key.default {
        schema["default"] = default.clone();
    }
    schema
}

fn value(key: &Key, or_null: bool) -> Json {
    let mut schema = match key.form {
        Form::Bool => json!({ "type": types(&["boolean"], or_null) }),
        Form::Integer { max } => {
            json!({ "type": types(&["integer"], or_null), "minimum": 0, "maximum": max })
        }
        Form::Text => json!({ "type": types(&["string"], or_null) }),
        Form::TextOrInteger => json!({ "type": types(&["string", "integer"], or_null) }),
        Form::Choice(choices) => {
            let mut choices: Vec<Json> = choices.iter().map(|choice| json!(choice)).collect();
            if or_null {
                choices.push(Json::Null);
            }
            json!({ "enum": choices })
        }
    };
    schema["title"] = json!(key.expects);
    schema
}

fn types(types: &[&str], or_null: bool) -> Json {
    match (types, or_null) {
        ([one], false) => json!(one),
        (several, false) => json!(several),
        (several, true) => several.iter().copied().chain(["null"]).collect(),
    }
}
