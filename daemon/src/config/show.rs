//! What is in force, and where each value came from.

use serde::Serialize;
use serde_json::Value as Json;

use super::reader::Loaded;

/// One key in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The key's path, such as `dial.port_range`.
    pub key: String,
    /// Its value as it could stand in the file.
    pub value: Json,
    /// Where it came from: `default`, `FILE:LINE:COLUMN`, `env NAME` or a flag.
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

    /// The same as a file that could be loaded, with the origins as comments.
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
            // JSON is YAML; null means not set, and is written as YAML's empty value.
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
