//! Which metrics dashboards and alerts name.

use std::collections::BTreeSet;

use serde_json::Value;

const PREFIXES: [&str; 2] = ["p2pnode_", "relay_"];

pub fn named_in(value: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(value, &mut names);
    names
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("expr" | "query" | "definition", Value::String(expression)) => {
                        names.extend(in_expression(expression));
                    }
                    _ => collect(value, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn in_expression(expression: &str) -> impl Iterator<Item = String> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_found_wherever_an_expression_has_them() {
        let value = json!({
            "panels": [{ "targets": [{ "expr": "sum(rate(p2pnode_a_total{relay=\"0\"}[5m])) / relay_b > 0" }] }],
            "definition": "label_values({__name__=~\"p2pnode_c|relay_d\"}, pod)",
            "title": "p2pnode_no_expression",
        });
        let names: Vec<_> = named_in(&value).into_iter().collect();
        assert_eq!(
            names,
            ["p2pnode_a_total", "p2pnode_c", "relay_b", "relay_d"]
        );
    }
}
