//! What a program says about each key.

use serde_json::Value as Json;

use super::kind::{Form, Kind};

/// What a program says about a key, without any source.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The path; `*` stands for a name given by the user.
    pub(super) path: String,
    pub(super) doc: &'static str,
    pub(super) form: Form,
    pub(super) expects: &'static str,
    pub(super) list: bool,
    /// A list of one item may be written as that item.
    pub(super) or_one: bool,
    /// A list of sections. `*` stands for an item.
    pub(super) sections: bool,
    pub(super) required: bool,
    pub(super) default: Option<Json>,
}

impl Key {
    pub(super) fn new<T>(path: String, doc: &'static str, kind: &Kind<T>) -> Self {
        Self {
            path,
            doc,
            form: kind.form,
            expects: kind.expects,
            list: false,
            or_one: false,
            sections: false,
            required: false,
            default: None,
        }
    }
}

/// The path of `key` in the section `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// `value` as it could stand in the file.
pub(super) fn json<T>(kind: &Kind<T>, value: &T) -> Json {
    let text = (kind.print)(value);
    match kind.form {
        Form::Bool => Json::Bool(text == "true"),
        Form::Integer { .. } => text.parse::<u64>().map_or(Json::String(text), Json::from),
        Form::Text | Form::TextOrInteger | Form::Choice(_) => Json::String(text),
    }
}

/// A list as it could stand in the file.
pub(super) fn json_list<T>(kind: &Kind<T>, values: &[T]) -> Json {
    values.iter().map(|value| json(kind, value)).collect()
}
