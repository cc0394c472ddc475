//! `p2pnode`'s command line from outside: what it prints where, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "what test files share, not each of them uses"
)]

mod home;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    process::Stdio,
};

use home::{Home, OTHER, PEER, finished};
use serde_json::Value as Json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_p2pnode");
const KEY_FILE: &str = "P2PNODE_IDENTITY_KEY_FILE";

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
    assert_eq!(
        fs::metadata(home.path("state"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o700
    );
    assert_eq!(home.run("id").stdout_of_success(), first);
    // The same key by a flag, and another key.
    assert_eq!(
        home.run("id --key state/identity.key").stdout_of_success(),
        first
    );
    assert_ne!(home.run("id --key other.key").stdout_of_success(), first);
}

#[test]
fn id_prints_a_secret_for_a_cluster() {
    let home = Home::new();
    let id = home.run("id --key a.key").stdout_of_success();
    // An existing key, as that of a pod.
    let args = "id --key a.key --secret p2pnode-identity --pod p2pnode-0";
    let secret = home.run(args).stdout_of_success();
    let entry = format!("\"p2pnode-0.key.p2pnode/peer-id\": {id}");
    assert!(secret.contains(&entry), "{secret}");
    // New ones, which leave no file behind.
    let args = "id --secret s --pod p2pnode-0 --pod p2pnode-1";
    let secret = home.run(args).stdout_of_success();
    assert!(secret.contains("  \"p2pnode-1.key\": CAES"), "{secret}");
    assert!(!home.path("state").exists());
    home.refuses(&[
        "id --secret A => lower-case",
        "id --pod p2pnode-0 => --secret",
        "id --secret s --key a.key --pod a --pod b => give each its own",
    ]);
}

#[test]
fn concurrent_first_starts_print_one_id() {
    let home = Home::new();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            home.command()
                .arg("id")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let ids: Vec<_> = starts
        .into_iter()
        .map(|start| finished(start.wait_with_output().unwrap()).stdout)
        .collect();
    assert!(ids[0].starts_with("12D3KooW"));
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

const NO_KEY: [&str; 2] = ["is not a libp2p private key", "never overwritten"];

#[test]
fn a_key_file_that_cannot_be_used_is_named_with_the_remedy_and_never_lost() {
    let home = Home::new();
    home.run("id --key good.key").stdout_of_success();
    let good = fs::read(home.path("good.key")).unwrap();
    home.file("shared.key", &good, 0o644);
    home.file("empty.key", "", 0o600);
    home.file("corrupt.key", "not a key", 0o600);
    home.file("cut.key", &good[..40], 0o600);
    home.file("file", "", 0o600);
    fs::create_dir(home.path("directory")).unwrap();

    for command in ["id", "run", "dial $PEER --addr /ip4/127.0.0.1/tcp/9"] {
        for (key, parts) in [
            ("shared.key", ["mode 0644", "chmod 600 shared.key"]),
            ("empty.key", ["it is empty", "move it away or restore it"]),
            ("corrupt.key", NO_KEY),
            ("cut.key", NO_KEY),
            ("directory", ["is a directory", "give the path of a file"]),
            ("file/x.key", ["Not a directory", "another path"]),
        ] {
            let before = fs::read(home.path(key)).ok();
            home.run(&format!("{command} --key {key}"))
                .is_usage(&[&[key][..], &parts].concat());
            assert_eq!(fs::read(home.path(key)).ok(), before);
        }
    }
}

#[test]
fn config_check_reports_all_faults_of_all_sources_at_once() {
    let home = Home::new();
    home.file(
        "config.yaml",
        "listen: [/ip4/0.0.0.0/udp/443]\ndial:\n  port_range: 80-79\n  famly: auto\naccess: { allow: [me] }\n",
        0o644,
    );
    let output = home
        .command()
        .args("config check --config config.yaml --log inof".split(' '))
        .env("P2PNODE_RELAYS", "/ip4/192.0.2.1/tcp/1")
        .env("P2PNODE_DAIL_FAMILY", "auto")
        .env("P2PNODE_SERVICE_HOST", "10.0.0.1")
        .output()
        .unwrap();
    let finished = finished(output);
    assert_eq!(finished.code, Some(2));
    assert_eq!(finished.stdout, "");
    let starts = [
        "error: config.yaml:1:10: listen: \"/ip4/0.0.0.0/udp/443\" names no transport over UDP; append /quic-v1",
        "error: config.yaml:3:15: dial.port_range: invalid port range `80-79`",
        "error: config.yaml:4:3: dial.famly: is not a key; did you mean dial.family?",
        "error: config.yaml:5:19: access.allow: \"me\" is not a peer id",
        "error: env P2PNODE_DAIL_FAMILY: sets no key; did you mean P2PNODE_DIAL_FAMILY?",
        "error: env P2PNODE_RELAYS: relay \"/ip4/192.0.2.1/tcp/1\" names no peer id; append /p2p/<id>",
        "error: --log: \"inof\" is not a log filter",
    ];
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), starts.len(), "{}", finished.stderr);
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn each_fault_of_discovery_is_reported_with_what_to_write() {
    let home = Home::new();
    let file = "discovery:\n  dns: [p2pnode, 'a:0', 'b:1', 'B:1', '10.0.0.1:443']\n  mdns: maybe\n  srv: true\n";
    home.file("config.yaml", file, 0o644);
    let run = |arguments: &str| home.run(&format!("{arguments} --config config.yaml"));
    for finished in [run("config check"), run("run"), run("dial $PEER")] {
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        for part in [
            "config.yaml:2:9: discovery.dns: \"p2pnode\" has no port; write a name and a port, as in p2pnode.default.svc.cluster.local:443",
            "discovery.dns: \"a:0\" has port 0, which cannot be dialed",
            "discovery.dns: \"10.0.0.1:443\" is an address; put it under peers.NAME.addrs",
            "config.yaml:3:9: discovery.mdns: ",
            "config.yaml:4:3: discovery.srv: is not a key",
        ] {
            assert!(
                finished.stderr.contains(part),
                "{part}: {}",
                finished.stderr
            );
        }
    }
    let with_env = |name: &str, value: &str| {
        let mut command = home.command();
        command.args(["config", "check"]).env(name, value);
        finished(command.output().unwrap())
    };
    with_env("P2PNODE_DISCOVERY_DNS", "b:1,B.:1")
        .is_usage(&["env P2PNODE_DISCOVERY_DNS: B.:1 is given twice; give it once"]);
    with_env("P2PNODE_DISCOVERY_MDNS", "yes")
        .is_usage(&["env P2PNODE_DISCOVERY_MDNS: \"yes\" is neither true nor false"]);
    let many: Vec<String> = (0..9).map(|n| format!("a{n}:443")).collect();
    with_env("P2PNODE_DISCOVERY_DNS", &many.join(",")).is_usage(&[
        "has 9 names, and each dial resolves all of them; put the peers behind at most 8 names",
    ]);
}

#[test]
fn a_config_file_that_cannot_be_read_is_named() {
    let home = Home::new();
    home.file("broken.yaml", "listen: [\n", 0o644);
    home.file("latin.yaml", b"log: \xff\n", 0o644);
    home.file("tab.yaml", "relays:\n\t- x\n", 0o644);
    for (file, part) in [
        ("missing.yaml", "No such file"),
        (".", "is a directory"),
        ("broken.yaml", "broken.yaml:2:1: is not valid YAML"),
        ("latin.yaml", "UTF-8"),
        (
            "tab.yaml",
            "tab.yaml:2:1: is not valid YAML: a tab cannot indent",
        ),
    ] {
        home.run(&format!("config check --config {file}"))
            .is_usage(&[file, part]);
    }
    let with_env = |name: &str, value: &[u8]| {
        let mut command = home.command();
        command
            .args(["config", "check"])
            .env(name, OsStr::from_bytes(value));
        finished(command.output().unwrap())
    };
    with_env("P2PNODE_CONFIG", b"missing.yaml").is_usage(&["missing.yaml", "No such file"]);
    with_env("P2PNODE_LISTEN", b"\xff").is_usage(&["P2PNODE_LISTEN", "not UTF-8"]);
}

#[test]
fn what_is_valid_and_perhaps_not_meant_is_noted() {
    let home = Home::new();
    let placeholder = "relays: [/dns4/relay.example.net/udp/443/quic-v1/p2p/$PEER]\n";
    for (config, noted) in [
        (None, "note: no file was read"),
        (
            Some(placeholder),
            "warning: relays: relay.example.net is a name of examples",
        ),
        (Some("limits: { memory: 512Mi }\n"), ""),
    ] {
        // The key file is a setting as well.
        let mut command = home.command();
        command.env_remove(KEY_FILE).args(["config", "check"]);
        if let Some(config) = config {
            home.file("node.yaml", config.replace("$PEER", PEER), 0o644);
            command.args(["--config", "node.yaml"]);
        }
        let checked = finished(command.output().unwrap());
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        assert_eq!(checked.stdout, "configuration is valid\n");
        assert!(checked.stderr.starts_with(noted), "{}", checked.stderr);
        assert_eq!(
            checked.stderr.is_empty(),
            noted.is_empty(),
            "{}",
            checked.stderr
        );
    }
    for memory in ["512M", "1 gig"] {
        home.file(
            "node.yaml",
            format!("limits: {{ memory: {memory} }}\n"),
            0o644,
        );
        let named = format!("limits.memory: \"{memory}\" has an unknown unit; write");
        home.run("config check --config node.yaml")
            .is_usage(&[&named]);
    }
}

#[test]
fn config_show_prints_what_is_in_force_and_where_it_came_from() {
    let home = Home::new();
    home.file(
        "config.yaml",
        format!("dial:\n  port_range: 41000-41010\n  family: only-ip4\npeers: {{ db: {{ id: {PEER} }} }}\n"),
        0o644,
    );
    let show = |more: &[&str]| {
        let output = home
            .command()
            .args(["config", "show", "--log", "debug"])
            .args(more)
            .env("P2PNODE_CONFIG", "config.yaml")
            .env("P2PNODE_DIAL_FAMILY", "prefer-ip6")
            .output()
            .unwrap();
        finished(output).stdout_of_success()
    };
    let json = show(&["--json"]);
    let origin = |key: &str| {
        let line = json
            .lines()
            .map(|line| serde_json::from_str::<Json>(line).unwrap())
            .find(|line| line["key"] == key);
        let line = line.unwrap_or_else(|| panic!("{key} is not in {json}"));
        (
            line["value"].clone(),
            line["from"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        origin("dial.port_range"),
        ("41000-41010".into(), "config.yaml:2:15".to_owned())
    );
    assert_eq!(
        origin("dial.family"),
        ("prefer-ip6".into(), "env P2PNODE_DIAL_FAMILY".to_owned())
    );
    assert_eq!(origin("log.level"), ("debug".into(), "--log".to_owned()));
    assert_eq!(origin("reservations"), (2.into(), "default".to_owned()));
    assert_eq!(
        origin("peers.db.id"),
        (PEER.into(), "config.yaml:4:20".to_owned())
    );

    // The text is a configuration that means the same.
    let text = show(&[]);
    assert!(
        text.contains("  family: \"prefer-ip6\"  # env P2PNODE_DIAL_FAMILY\n"),
        "{text}"
    );
    home.file("shown.yaml", &text, 0o644);
    let again = home
        .run("config show --json --config shown.yaml")
        .stdout_of_success();
    let values = |json: &str| -> Vec<(Json, Json)> {
        let lines = json
            .lines()
            .map(|line| serde_json::from_str::<Json>(line).unwrap());
        lines
            .map(|line| (line["key"].clone(), line["value"].clone()))
            .collect()
    };
    assert_eq!(values(&again), values(&json));
}

#[test]
fn config_schema_is_a_json_schema_of_every_key_that_is_shown() {
    let home = Home::new();
    let schema: Json =
        serde_json::from_str(&home.run("config schema").stdout_of_success()).unwrap();
    assert!(
        schema["$schema"]
            .as_str()
            .unwrap()
            .contains("json-schema.org")
    );
    let shown = home.run("config show --json").stdout_of_success();
    for line in shown.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let key = line["key"].as_str().unwrap();
        let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
        let described = schema
            .pointer(&pointer)
            .unwrap_or_else(|| panic!("{key} has no schema"));
        assert!(described["description"].is_string(), "{key}");
    }
    assert!(
        schema
            .pointer("/properties/peers/additionalProperties/properties/id")
            .is_some()
    );
}

#[test]
fn completions_and_the_manual_are_printed() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home
            .run(&format!("completions {shell}"))
            .stdout_of_success();
        assert!(script.contains("port-range"), "{shell}");
    }
    let manual = home.run("man").stdout_of_success();
    for part in [
        ".TH p2pnode 1",
        ".TH p2pnode-dial",
        "port\\-range",
        "Exit codes",
    ] {
        assert!(manual.contains(part), "{part}");
    }
    let help = home.run("--help").stdout_of_success();
    for command in ["run", "dial", "id", "config", "completions", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    let version = home.run("--version").stdout_of_success();
    assert_eq!(version, format!("p2pnode {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let home = Home::new();
    let mut manual = home
        .command()
        .arg("man")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(manual.stdout.take());
    let finished = finished(manual.wait_with_output().unwrap());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let home = Home::new();
    home.refuses(&[
        "bogus => 'bogus' | --help",
        "run --bogus => '--bogus' | --help",
        "dial => <PEER> | --help",
        "completions csh => 'csh' | bash",
        "dial $PEER --until soon => 'soon' | direct, connected",
        "dial $PEER --timeout 30 => \"30\" has no unit | 30s",
        "dial $PEER --timeout 0s => \"0s\" is zero",
        "dial $PEER --count -1 => '-1'",
        "run --port-range 80-79 => --port-range: | 80-79 | below the first",
        "run --port-range 0 => --port-range: | `0` | port 0",
        "run --family ip5 => --family: | ip5 | only-ip6",
        "run --transports quic,sctp => --transports: | \"sctp\" | quic, tcp",
        "run --transports quic,quic => --transports: | listed twice",
        "run --listen /ip4/0.0.0.0/tcp/40000 => --listen: | dial range 40000-40050",
        "run --listen /dns/a/tcp/443 => --listen: | listen on an IP address",
        "run --relay /ip4/192.0.2.1/tcp/1 => --relay: | names no peer id | relay-node id",
        "run --relay /ip4/192.0.2.1/tcp/1/p2p/x => --relay: | is not a multiaddr",
        "run --relay /ip4/192.0.2.1/tcp/1/p2p/$PEER/p2p-circuit => --relay: | without /p2p-circuit",
        "run --relay /dnsaddr/example.net/p2p/$PEER => --relay:",
        "run --log loud => --log: | \"loud\" is not a level",
        "run --log-format xml => --log-format: | text or json",
        "dial $PEER --relay /ip4/192.0.2.1/udp/x/quic-v1/p2p/$PEER => --relay: | is not a multiaddr",
        "dial bob => PEER: \"bob\" | neither a peer id nor a name",
        "dial $PEER => PEER: $PEER cannot be found | --relay | --addr",
        "dial $PEER --addr 192.0.2.1:1 => --addr: | is not a multiaddr",
        "dial $PEER --addr /ip4/192.0.2.1/tcp/1/p2p/$OTHER => --addr: | $OTHER | $PEER",
        "serve => <NAME> | --help",
        "serve web tcp://127.0.0.1:80 => --allow | --help",
        "serve Web tcp://127.0.0.1:80 --allow any => Web",
        "serve web 127.0.0.1:80 --allow any => 127.0.0.1:80 | tcp://",
        "serve web tcp://127.0.0.1 --allow any => tcp://127.0.0.1",
        "serve web tcp://127.0.0.1:80 --allow bob => bob",
        "serve web tcp://127.0.0.1:80 --allow any --identity proxy => 'proxy' | proxy-v2",
        "serve web tcp://192.0.2.1:80 --allow any --identity address => 192.0.2.1 | proxy-v2",
        "forward => <SERVICE@PEER> | --listen",
        "forward web@$PEER => --listen | --help",
        "forward web --listen tcp://127.0.0.1:80 => web | SERVICE@PEER",
        "forward web@bob --listen tcp://127.0.0.1:80 => bob",
        "forward web@$PEER --listen 127.0.0.1:80 => 127.0.0.1:80 | tcp://",
        "forward /x/web@$PEER --listen udp://127.0.0.1:53 => /x/web | udp://127.0.0.1:53",
        "connect => <SERVICE@PEER> | --help",
        "connect web@ => web@",
        "connect web@bob => bob",
        "connect web@$PEER --json yes => 'yes'",
        "services => <PEER> | --help",
        "services bob => bob",
        "services $PEER --hosts => --hosts",
        "services --hosts --json => --hosts | --json",
    ]);

    let own = home.run("id").stdout_of_success();
    let own = own.trim();
    let config = format!("access: {{ allow: [{OTHER}] }}\n");
    home.file("access.yaml", config, 0o644);
    home.refuses(&[
        &format!("dial {own} --addr /ip4/127.0.0.1/tcp/9 => PEER: {own} | own id"),
        &format!("dial /ip4/127.0.0.1/tcp/9/p2p/{own} => PEER: {own} | own id"),
        "dial $PEER --config access.yaml --addr /ip4/127.0.0.1/tcp/9 => PEER: $PEER | access.allow",
    ]);
}
