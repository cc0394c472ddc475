//! `relay-node`'s command line from outside: what it prints where, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "what test files share, not each of them uses"
)]

#[path = "../../node/tests/home/mod.rs"]
mod home;

use std::{fs, os::unix::fs::PermissionsExt};

use home::{Home, PEER, finished};
use serde_json::Value as Json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_relay-node");
const KEY_FILE: &str = "RELAY_NODE_IDENTITY_KEY_FILE";

#[test]
fn id_makes_the_key_once_and_prints_the_peer_id_alone() {
    let home = Home::new();
    let first = home.run("id").stdout_of_success();
    assert!(first.starts_with("12D3KooW"), "{first}");
    assert_eq!(first.lines().count(), 1);
    let key = home.path("state/identity.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(home.run("id").stdout_of_success(), first);
}

#[test]
fn a_key_file_that_cannot_be_used_is_named_with_the_remedy_and_never_lost() {
    let home = Home::new();
    home.file("shared.key", "", 0o604);
    home.file("corrupt.key", "not a key", 0o600);
    for command in ["id", "run"] {
        for (key, parts) in [
            ("shared.key", ["mode 0604", "chmod 600 shared.key"]),
            (
                "corrupt.key",
                ["is not a libp2p private key", "move it away or restore it"],
            ),
        ] {
            let before = fs::read(home.path(key)).unwrap();
            home.run(&format!("{command} --key {key}")).is_usage(&parts);
            assert_eq!(fs::read(home.path(key)).unwrap(), before);
        }
    }
}

#[test]
fn config_tells_faults_values_origins_and_its_schema() {
    let home = Home::new();
    home.file(
        "bad.yaml",
        "listen: []\nlimits: { circuit_bytes: 1 gig, circuits: -1, reservation_duration: 60 }\nexternal: [/ip4/0.0.0.0/tcp/1]\nrelays: [/ip4/203.0.113.7/tcp/443]\n",
        0o644,
    );
    let ended = home.run("config check --config bad.yaml");
    assert_eq!(ended.code, Some(2));
    let starts = [
        "error: bad.yaml:1:9: listen: is an empty list",
        "error: bad.yaml:2:26: limits.circuit_bytes: \"1 gig\" has an unknown unit; write 512KiB",
        "error: bad.yaml:2:43: limits.circuits: \"-1\" is not a whole number",
        "error: bad.yaml:2:69: limits.reservation_duration: \"60\" has no unit",
        "error: bad.yaml:3:12: external: \"/ip4/0.0.0.0/tcp/1\" has the address 0.0.0.0, which cannot be dialed",
        "error: bad.yaml:4:10: relays: relay \"/ip4/203.0.113.7/tcp/443\" names no peer id; append /p2p/<id>",
    ];
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), starts.len(), "{}", ended.stderr);
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }

    home.file(
        "good.yaml",
        "limits: { circuit_bytes: 1GiB, circuit_duration: 2h }\n",
        0o644,
    );
    let check = home
        .run("config check --config good.yaml")
        .stdout_of_success();
    assert_eq!(check, "configuration is valid\n");
    let json = home
        .run("config show --json --config good.yaml")
        .stdout_of_success();
    assert!(
        json.contains(r#"{"key":"limits.circuit_bytes","value":"1GiB","from":"good.yaml:1:26"}"#),
        "{json}"
    );
    assert!(
        json.contains(r#"{"key":"limits.circuits","value":4096,"from":"default"}"#),
        "{json}"
    );

    let schema: Json =
        serde_json::from_str(&home.run("config schema").stdout_of_success()).unwrap();
    for line in json.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let key = line["key"].as_str().unwrap();
        let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
        assert!(schema.pointer(&pointer).is_some(), "{key}");
    }
}

#[test]
fn the_name_of_an_example_is_valid_and_warned_of() {
    let home = Home::new();
    let yaml = "external: [/dns4/relay.example.net/udp/443/quic-v1]\n";
    home.file("relay.yaml", yaml, 0o644);
    let checked = home.run("config check --config relay.yaml");
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let noted = "warning: external: relay.example.net is a name of examples";
    assert!(checked.stderr.starts_with(noted), "{}", checked.stderr);
}

#[test]
fn a_token_is_created_offline_and_explained() {
    let home = Home::new();
    let relay = home.run("id").stdout_of_success();
    let create = "token create --peer $PEER --expires 30d";
    let token = home.run(create).stdout_of_success();
    assert!(token.starts_with("p2pjoin1_"), "{token}");
    assert_eq!(token.lines().count(), 1);
    let next = home.run(create).stdout_of_success();
    assert_ne!(next, token, "each has an id of its own");
    let token = token.trim();
    let show = format!("token show {token}");
    let shown = home.run(&show).stdout_of_success();
    for part in [
        PEER,
        relay.trim(),
        "(this relay)",
        "in 29days",
        "revoked  unknown (--config FILE",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = |args: &str| -> Json {
        let text = home.run(&format!("{args} --json")).stdout_of_success();
        serde_json::from_str(&text).unwrap()
    };
    let shown = json(&show);
    assert_eq!(shown["peer"], PEER);
    assert_eq!(shown["this_relay"], true);
    assert_eq!(shown["expired"], false);
    assert_eq!(shown["revoked"], Json::Null);
    home.file("empty.yaml", "access: {}\n", 0o644);
    let file = home.run(&format!("{show} --config empty.yaml"));
    let text = file.stdout_of_success();
    assert!(text.contains("revoked  no\n"), "{text}");
    let id = shown["id"].as_str().unwrap();
    home.file("revoked", format!("{id} # lost\n"), 0o644);
    home.file("relay.yaml", "access: { revoked_file: revoked }\n", 0o644);
    let shown = json(&format!("{show} --config relay.yaml"));
    assert_eq!(shown["revoked"], true);
    let other = json("token create --peer $PEER --expires 1s --key other.key");
    assert_eq!(other["new_key"], "other.key");
    let shown = json(&format!("token show {}", other["token"].as_str().unwrap()));
    assert_eq!(shown["this_relay"], false);
    let shown = json(&format!("{show} --key none.key"));
    assert_eq!(shown["this_relay"], Json::Null);
    assert!(!home.path("none.key").exists());
}

#[test]
fn all_faults_of_a_wanted_token_are_told_at_once_and_none_is_made() {
    let home = Home::new();
    let ended = home.run("token create --peer bob --expires 30");
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.stdout, "");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("--peer: ") && ended.stderr.contains("\"bob\""),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("--expires: \"30\" has no unit"),
        "{}",
        ended.stderr
    );
    assert!(!home.path("state").exists());
    home.refuses(&[
        "token create --peer $PEER --expires 0s => --expires: | is zero",
        "token create => --peer | --expires",
        "token show => <TOKEN> | --help",
        "token show x => TOKEN: | \"x\" does not begin with p2pjoin1_",
        "token show p2pjoin1_abc => TOKEN: | is damaged",
        "token show p2pjoin1_* => TOKEN: | is damaged",
    ]);
}

#[test]
fn faults_of_access_are_told_with_the_line_of_the_file_of_revoked_tokens() {
    let home = Home::new();
    home.file("revoked", "00000000000000ff\nnonsense\n\nmore\n", 0o644);
    let yaml = "access: { tokens: maybe, revoked: [xyz], revoked_file: revoked }\nlimits: { memory: 1 gig }\ncontrol: { socket: 7 }\njoin: {}\n";
    home.file("bad.yaml", yaml, 0o644);
    let ended = home.run("config check --config bad.yaml");
    assert_eq!(ended.code, Some(2));
    for part in [
        "access.tokens: ",
        "access.revoked: \"xyz\" is not the id of a token; give 16 hexadecimal digits",
        "access.revoked_file: revoked:2: \"nonsense\"",
        "access.revoked_file: revoked:4: \"more\"",
        "limits.memory: \"1 gig\" has an unknown unit",
        "control.socket: 7 is a number",
        "join: is not a key",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    home.file("missing.yaml", "access: { revoked_file: nowhere }\n", 0o644);
    home.run("run --config missing.yaml").is_usage(&[
        "access.revoked_file: cannot read nowhere",
        "give a file of ids that exists",
    ]);
}

#[test]
fn a_control_socket_with_a_path_that_no_socket_can_have_is_a_fault_of_the_configuration() {
    let home = Home::new();
    let mut command = home.command();
    command.env("RELAY_NODE_CONTROL_SOCKET", "d".repeat(108));
    let ended = finished(command.arg("status").output().unwrap());
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("at most 107"), "{}", ended.stderr);
}

#[test]
fn status_without_a_relay_names_the_socket_and_the_remedy() {
    let home = Home::new();
    home.file("no.sock", "a file that is not a socket", 0o600);
    for socket in ["missing.sock", "no.sock", "no/such/control.sock"] {
        for args in [
            &["status"][..],
            &["status", "--json"],
            &["status", "--watch"],
        ] {
            let mut command = home.command();
            command.env("RELAY_NODE_CONTROL_SOCKET", socket);
            let ended = finished(command.args(args).output().unwrap());
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert_eq!(ended.stdout, "");
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
            for part in [
                "error: no relay answers",
                socket,
                "`relay-node run`",
                "control.socket",
            ] {
                assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
            }
        }
    }
}

#[test]
fn completions_and_the_manual_are_printed() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            home.run(&format!("completions {shell}"))
                .stdout_of_success()
                .contains("external"),
            "{shell}"
        );
    }
    let manual = home.run("man").stdout_of_success();
    for part in [".TH relay-node 1", ".TH relay-node-run", "Exit codes"] {
        assert!(manual.contains(part), "{part}");
    }
    let version = home.run("--version").stdout_of_success();
    assert_eq!(
        version,
        format!("relay-node {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let home = Home::new();
    home.refuses(&[
        "bogus => 'bogus' | --help",
        "run --bogus => '--bogus' | --help",
        "status PEER => 'PEER' | --help",
        "status --watch=1 => '1' | --watch | --help",
        "status --config missing.yaml => missing.yaml",
        "run --listen 443 => --listen: | is not a multiaddr",
        "run --listen /ip4/0.0.0.0/udp/443 => --listen: | append /quic-v1",
        "run --listen /dns/a/tcp/443 => --listen: | listen on an IP address",
        "run --external /ip4/192.0.2.1/tcp/0 => --external: | port 0",
        "run --external /ip4/192.0.2.1/tcp/1/p2p/$PEER => --external: | drop /p2p/<id>",
        "run --log loud => --log: | \"loud\" is not a level",
        "run --log-format xml => --log-format: | text or json",
        "run --config missing.yaml => missing.yaml | No such file",
    ]);
}

#[test]
fn what_init_writes_is_taken_and_is_not_written_over() {
    let home = Home::new();
    let args = "init --external 127.0.0.1 --port 46110 --tokens";
    let text = home.run(args).stdout_of_success();
    let id = home.run("id").stdout_of_success();
    for part in [
        "wrote    relay-node.yaml".to_owned(),
        "port     46110 is free".to_owned(),
        format!(
            "address  /ip4/127.0.0.1/udp/46110/quic-v1/p2p/{}",
            id.trim()
        ),
        "relay-node token create --peer ID".to_owned(),
        "relay-node run --config relay-node.yaml".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    let checked = home.run("config check --config relay-node.yaml");
    assert_eq!(checked.stdout_of_success(), "configuration is valid\n");
    home.refuses(&[
        &format!("{args} => relay-node.yaml exists | --force"),
        "init --external relay:443 --output - => relay:443 | without a port",
    ]);
}
