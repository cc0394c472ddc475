//! `p2pnode init` and `explain` from outside: what is written, and what the programs make of it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "what test files share, not each of them uses"
)]

mod home;

use std::fs;

use home::{Home, PEER};

const PROGRAM: &str = env!("CARGO_BIN_EXE_p2pnode");
const KEY_FILE: &str = "P2PNODE_IDENTITY_KEY_FILE";

#[test]
fn what_init_writes_is_taken_and_is_not_written_over() {
    let home = Home::new();
    let args = "init --relay /ip4/127.0.0.1/udp/4001/quic-v1/p2p/$PEER --port-range 46100-46104";
    let text = home.run(args).stdout_of_success();
    let id = home.run("id").stdout_of_success();
    assert!(
        text.starts_with("wrote    p2pnode.yaml\nid       12D3KooW"),
        "{text}"
    );
    assert!(text.contains(id.trim()), "{text}");
    assert!(text.contains("range    46100-46104 is free"), "{text}");
    assert!(text.contains("p2pnode run --config p2pnode.yaml"), "{text}");
    let checked = home.run("config check --config p2pnode.yaml");
    assert_eq!(checked.stdout_of_success(), "configuration is valid\n");
    let shown = home.run("config show --config p2pnode.yaml");
    let shown = shown.stdout_of_success();
    assert!(
        shown.contains(PEER) && shown.contains("46100-46104"),
        "{shown}"
    );

    home.refuses(&[&format!("{args} => p2pnode.yaml exists | --force")]);
    home.run(&format!("{args} --force")).stdout_of_success();
}

#[test]
fn init_writes_nothing_if_an_answer_is_wrong() {
    let home = Home::new();
    home.refuses(&[
        "init --port-range 50-40 => 50-40",
        "init --relay /ip4/127.0.0.1/tcp/4001 => /p2p/",
    ]);
    assert!(fs::metadata(home.path("p2pnode.yaml")).is_err());
}

#[test]
fn init_prints_the_configuration_alone_if_asked() {
    let home = Home::new();
    let text = home.run("init --output -").stdout_of_success();
    assert!(text.starts_with("# Configuration of p2pnode"), "{text}");
    assert!(text.contains("port_range: 40000-40050"), "{text}");
}

#[test]
fn a_port_of_the_range_that_is_taken_is_named() {
    let home = Home::new();
    let held = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let init = home.run(&format!("init --port-range {port}"));
    let text = init.stdout_of_success();
    assert!(text.contains(&format!("port {port} of ")), "{text}");
    assert!(text.contains("is taken by another program"), "{text}");
}

#[test]
fn explain_has_cause_and_remedy_of_what_the_programs_print() {
    let home = Home::new();
    let text = home.run("explain symmetric_both").stdout_of_success();
    assert!(
        text.contains("Both NATs") && text.lines().count() == 1,
        "{text}"
    );
    home.refuses(&["explain nonsense => nonsense | lists all"]);
    let all = home.run("explain").stdout_of_success();
    assert!(
        all.lines().any(|line| line.starts_with("no_token ")),
        "{all}"
    );
}
