//! Each key with a wrong value: one error, at that key.

use std::collections::BTreeSet;

use p2pnode_daemon::config::schema;
use serde_json::{Value as Json, json};

use super::*;

/// Every key, with values that contradict the defaults of others wherever that can be.
fn full() -> Json {
    json!({
        "identity": {"key_file": "/srv/identity.key"},
        "listen": ["/ip4/0.0.0.0/tcp/40001"],
        "dial": {
            "port_range": "50000-50099", "ports_per_ordinal": 60, "ordinal": 0, "family": "only-ip4",
            "transports": ["tcp"], "congestion": "bbr",
        },
        "relays": [format!("/ip4/203.0.113.10/tcp/443/p2p/{A}")],
        "reservations": 1,
        "punch": {
            "enabled": true, "advertise": ["/ip4/198.51.100.7/tcp/{port}"], "allow": ["0.0.0.0/0"],
            "deny": ["10.0.0.0/8 tcp"], "search": "off", "rotate": "off",
        },
        "mappings": {
            "mode": "auto",
            "publish": {
                "hook": ["/bin/true"], "file": "/run/p2pnode/mappings.json",
                "dns": {"server": "192.0.2.53:53", "zone": "p2p.example.net", "tsig": {"name": "k", "file": "/etc/tsig"}},
            },
        },
        "expose": {"qb": {"protocol": "tcp", "target": "tcp://127.0.0.1:6881", "identity": "proxy-v2"}},
        "discovery": {"dns": ["p2pnode.ns.svc.cluster.local:443"], "mdns": true},
        "peers": {"db": {"id": B, "addrs": ["/ip4/192.0.2.7/tcp/4001"]}},
        "services": {
            "web": {"target": "tcp://127.0.0.1:80", "allow": ["db"], "identity": "none", "protocol": "/x/web", "source": "any"},
            "dns": {"target": "udp://127.0.0.1:53", "allow": ["db"], "udp_idle": "30s"},
        },
        "forwards": [{"listen": "tcp://127.0.0.1:40003", "to": ["web@db"]}],
        "socks": {"listen": "127.0.0.1:40004"},
        "sessions": {"linger": "60s", "memory": "128MiB"},
        "access": {"allow": [A, B]},
        "join": {"token_file": "/srv/tokens"},
        "admin": {"listen": "127.0.0.1:40002", "hosts": ["node.example.net"], "page": true},
        "control": {"socket": "/srv/control.sock"},
        "limits": {"memory": "1GiB"},
        "log": {"level": "info", "format": "json"},
    })
}

/// The keys of a file with their places as JSON pointers; a list of values is one key.
fn leaves(of: &Json, path: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    let join = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match of {
        Json::Object(section) => section.iter().for_each(|(name, value)| {
            leaves(value, &join(name), &format!("{pointer}/{name}"), found)
        }),
        Json::Array(list) if list.first().is_some_and(Json::is_object) => {
            list.iter().enumerate().for_each(|(at, value)| {
                leaves(
                    value,
                    &join(&at.to_string()),
                    &format!("{pointer}/{at}"),
                    found,
                )
            })
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            found.push((path.to_owned(), pointer.to_owned()));
        }
    }
}

/// The keys of the schema, with a name for each that the user chooses.
fn described(schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    let named = match path {
        "peers" => "db",
        "services" => "web",
        "expose" => "qb",
        _ => "0",
    };
    let join = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    let section = schema["properties"].as_object();
    if let Some(section) = section.filter(|section| !section.is_empty()) {
        for (name, value) in section {
            described(value, &join(name), keys);
        }
    } else if schema["additionalProperties"].is_object() {
        described(&schema["additionalProperties"], &join(named), keys);
    } else if schema["items"]["properties"].is_object() {
        described(&schema["items"], &join(named), keys);
    } else {
        keys.insert(path.to_owned());
    }
}

fn faults(file: &Json) -> Vec<String> {
    match read(&file.to_string(), Purpose::Run) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.lines().map(str::to_owned).collect(),
    }
}

#[test]
fn a_wrong_value_of_any_key_is_one_error_that_names_it() {
    let full = full();
    assert_eq!(faults(&full), Vec::<String>::new());
    let mut all = Vec::new();
    leaves(&full, "", "", &mut all);
    let schema = schema(&PROGRAM, |reader| Config::read(reader, Purpose::Run));
    let mut known = BTreeSet::new();
    described(schema.as_value(), "", &mut known);
    let given = all
        .iter()
        .map(|(key, _)| key.replace("services.dns", "services.web"));
    let given: BTreeSet<String> = given.collect();
    assert_eq!(given, known, "the file has every key");
    let mut bad = Vec::new();
    for (key, pointer) in &all {
        let is_list = full.pointer(pointer).unwrap().is_array();
        for (wrong, is_wrong) in [
            (json!({"a": 1}), true),
            (json!([["a"]]), true),
            (json!(""), false),
            (json!("%$\u{1}"), false),
            (json!(-1), false),
            (json!(1e9), false),
        ] {
            let wrong = match (is_list, &wrong) {
                (true, Json::String(_) | Json::Number(_)) => json!([wrong]),
                _ => wrong,
            };
            let mut file = full.clone();
            *file.pointer_mut(pointer).unwrap() = wrong.clone();
            let faults = faults(&file);
            let names = |fault: &String| {
                fault.starts_with("f.yaml:1:") && fault.contains(&format!(": {key}"))
            };
            if faults.len() > 1 || is_wrong && faults.is_empty() || !faults.iter().all(names) {
                bad.push(format!("{key}: {wrong} =>\n  {}", faults.join("\n  ")));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
