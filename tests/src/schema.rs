//! The schemas of `docs/schemas`, and whether a value is as one of them says. It knows the keywords that these schemas use.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

const SCHEMAS: [(&str, &str); 10] = [
    ("events", include_str!("../../docs/schemas/events.json")),
    ("map", include_str!("../../docs/schemas/map.json")),
    ("netcheck", include_str!("../../docs/schemas/netcheck.json")),
    (
        "relay-events",
        include_str!("../../docs/schemas/relay-events.json"),
    ),
    (
        "relay-status",
        include_str!("../../docs/schemas/relay-status.json"),
    ),
    (
        "service-events",
        include_str!("../../docs/schemas/service-events.json"),
    ),
    ("services", include_str!("../../docs/schemas/services.json")),
    ("status", include_str!("../../docs/schemas/status.json")),
    ("token", include_str!("../../docs/schemas/token.json")),
    ("why", include_str!("../../docs/schemas/why.json")),
];

/// Checks `value` against the schema of this name.
pub fn validate(name: &str, value: &Value) -> Result<()> {
    let text = SCHEMAS.iter().find(|(known, _)| *known == name);
    let (_, text) = text.with_context(|| format!("no schema {name}"))?;
    let root = serde_json::from_str(text).with_context(|| name.to_owned())?;
    check(&root, &root, value)
        .with_context(|| format!("{value} is not as docs/schemas/{name}.json has it"))
}

fn check(root: &Value, schema: &Value, value: &Value) -> Result<()> {
    for (keyword, wanted) in schema.as_object().context("a schema is an object")? {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = wanted.as_str().and_then(|path| path.strip_prefix('#'));
                let named = pointer.and_then(|pointer| root.pointer(pointer));
                check(
                    root,
                    named.with_context(|| format!("{wanted} is not there"))?,
                    value,
                )?;
            }
            "const" => ensure!(value == wanted, "{value} is not {wanted}"),
            "enum" => {
                let is_one = wanted.as_array().is_some_and(|all| all.contains(value));
                ensure!(is_one, "{value} is none of {wanted}");
            }
            "type" => ensure!(is_of_type(value, wanted), "{value} is no {wanted}"),
            "minimum" => ensure!(
                value.as_f64() >= wanted.as_f64(),
                "{value} is less than {wanted}"
            ),
            "minLength" => {
                let length = value.as_str().map(|text| text.len() as u64);
                ensure!(
                    length >= wanted.as_u64(),
                    "{value} is shorter than {wanted}"
                );
            }
            // Only the begin of a text is asked for.
            "pattern" => {
                let begin = wanted.as_str().and_then(|text| text.strip_prefix('^'));
                let begin =
                    begin.with_context(|| format!("the pattern {wanted} is not known here"))?;
                ensure!(
                    value.as_str().is_some_and(|text| text.starts_with(begin)),
                    "{value} does not match {wanted}"
                );
            }
            "anyOf" => alternatives(root, wanted, value, |fit| fit > 0)?,
            "oneOf" => alternatives(root, wanted, value, |fit| fit == 1)?,
            "items" => {
                for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item).with_context(|| format!("[{place}]"))?;
                }
            }
            "minItems" | "maxItems" => {
                let count = value.as_array().map_or(0, |items| items.len() as u64);
                let bound = wanted.as_u64().unwrap_or_default();
                let fits = if keyword == "minItems" {
                    count >= bound
                } else {
                    count <= bound
                };
                ensure!(fits, "{count} items, {keyword} {bound}");
            }
            "properties" | "required" | "additionalProperties" => {}
            other => bail!("the keyword {other} is not known here"),
        }
    }
    properties(root, schema, value)
}

fn properties(root: &Value, schema: &Value, value: &Value) -> Result<()> {
    let Some(fields) = value.as_object() else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        let is_there = name.as_str().is_some_and(|name| fields.contains_key(name));
        ensure!(is_there, "{name} is missing");
    }
    for (name, field) in fields {
        let named = &schema["properties"][name];
        let wanted = if named.is_null() {
            &schema["additionalProperties"]
        } else {
            named
        };
        ensure!(wanted != &Value::Bool(false), "{name} is not in the schema");
        if wanted.is_object() {
            check(root, wanted, field).with_context(|| name.clone())?;
        }
    }
    Ok(())
}

fn alternatives(root: &Value, all: &Value, value: &Value, fits: fn(usize) -> bool) -> Result<()> {
    let all = all.as_array().context("alternatives are a list")?;
    let outcomes: Vec<_> = all.iter().map(|one| check(root, one, value)).collect();
    let fit = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    // Of an event, what its own alternative says.
    let is_own = |one: &&Value| one["properties"]["event"]["const"] == value["event"];
    if let (false, Some(own)) = (fits(fit), all.iter().find(is_own)) {
        check(root, own, value)?;
    }
    ensure!(
        fits(fit),
        "{value} fits {fit} of {} alternatives",
        all.len()
    );
    Ok(())
}

fn is_of_type(value: &Value, wanted: &Value) -> bool {
    match wanted.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

    #[test]
    fn every_schema_is_readable_and_knows_no_other_keyword() {
        for (name, _) in SCHEMAS {
            let error = validate(name, &json!(7)).expect_err(name);
            assert!(
                !format!("{error:#}").contains("not known here"),
                "{error:#}"
            );
        }
    }

    #[test]
    fn an_event_is_as_its_schema_says_and_one_with_another_field_is_not() {
        let dialing = json!({ "event": "dialing", "t_ms": 7, "peer": PEER });
        assert!(validate("events", &dialing).is_ok());
        // A peer under `peers` has a name.
        let gone = json!({
            "event": "disconnected", "t_ms": 7, "peer": PEER, "name": "b", "kind": "direct", "reason": "closed",
        });
        assert!(validate("events", &gone).is_ok());
        for wrong in [
            json!({ "event": "dialing", "peer": PEER }),
            json!({ "event": "dialing", "t_ms": -1, "peer": PEER }),
            json!({ "event": "dialing", "t_ms": 7, "peer": PEER, "more": 1 }),
            json!({ "event": "dials", "t_ms": 7, "peer": PEER }),
            json!({ "event": "ping", "seq": 1, "rtt_ms": 1.5, "kind": "direkt" }),
        ] {
            assert!(validate("events", &wrong).is_err(), "{wrong}");
        }
    }
}
