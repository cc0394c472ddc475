//! The values in force, and where each came from.

use serde::Serialize;
use serde_json::Value as Json;

use super::load::Loaded;

/// The value in force for one key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The path of the key, such as `dial.port_range`.
    pub key: String,
    /// The value as it could stand in the file.
    pub value: Json,
    /// Where the value came from: `default`, `FILE:LINE:COLUMN`, `env NAME` or a flag.
    pub from: String,
}

impl<C> Loaded<C> {
    /// All keys in force, by section.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        self.values
            .iter()
            .map(|taken| Shown {
                key: taken.key.clone(),
                value: taken.value.clone(),
                from: taken.origin.place(None, self.file.as_ref()).to_string(),
            })
            .collect()
    }

    /// The same as a YAML file that can be loaded, with the origins as comments.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut yaml = String::new();
        let mut open: Vec<&str> = Vec::new();
        let shown = self.shown();
        for Shown { key, value, from } in &shown {
            let mut path: Vec<&str> = key.split('.').collect();
            let name = path.pop().unwrap_or_default();
            let common = path.iter().zip(&open).take_while(|(a, b)| a == b).count();
            for (depth, section) in path.iter().enumerate().skip(common) {
                yaml += &format!("{}{section}:\n", "  ".repeat(depth));
            }
            // JSON is YAML. Null means not set, which in YAML is an empty value.
            let value = if value.is_null() {
                String::new()
            } else {
                format!(" {value}")
            };
            yaml += &format!("{}{name}:{value}  # {from}\n", "  ".repeat(path.len()));
            open = path;
        }
        yaml
    }
}
