//! `join.token_file` from outside: each command that reads the file reports a fault in one line, with the remedy.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "what test files share, not each of them uses"
)]

mod home;

use std::{
    fs,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, SystemTime},
};

use home::{Home, PEER, finished};
use libp2p::{PeerId, identity::Keypair};
use p2pnode_protocol::join::{Token, TokenId};

const PROGRAM: &str = env!("CARGO_BIN_EXE_p2pnode");
const KEY_FILE: &str = "P2PNODE_IDENTITY_KEY_FILE";

const HOUR: Duration = Duration::from_secs(3600);

/// A home with a key, and its peer id.
fn with_key() -> (Home, PeerId) {
    let home = Home::new();
    let id = home.run("id").stdout_of_success();
    let id = id.trim().parse().unwrap();
    (home, id)
}

fn token(relay: &Keypair, peer: PeerId, expires: SystemTime) -> String {
    Token::sign(relay, TokenId::new(7), &peer, expires).unwrap()
}

/// A valid token for a random peer, another one each time.
fn anybody(relay: &Keypair) -> String {
    token(relay, PeerId::random(), SystemTime::now() + HOUR)
}

fn command(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command();
    command.args(args).env("P2PNODE_JOIN_TOKEN_FILE", "tokens");
    command
}

/// The commands that need the file, and end if it is wrong.
const ALL: [&[&str]; 3] = [
    &["config", "check"],
    &["run"],
    &[
        "dial",
        PEER,
        "--standalone",
        "--addr",
        "/ip4/192.0.2.1/tcp/1",
    ],
];

#[test]
fn a_token_file_that_cannot_be_read_is_named_with_the_reason_and_the_remedy() {
    let (home, _) = with_key();
    let path = home.path("tokens");
    let remedy = "give a file with the tokens that the relays have created";
    let all = |parts: &[&str]| {
        for args in ALL {
            let finished = finished(command(&home, args).output().unwrap());
            finished.is_usage(&[&["join.token_file: ", "tokens"], parts].concat());
        }
    };
    all(&["No such file", remedy]);
    fs::create_dir(&path).unwrap();
    all(&["is a directory", remedy]);
    fs::remove_dir(&path).unwrap();
    symlink("tokens", &path).unwrap();
    all(&["cannot read", "symbolic links", remedy]);
    fs::remove_file(&path).unwrap();
    symlink("state/identity.key/tokens", &path).unwrap();
    all(&["cannot read", "Not a directory", remedy]);
    fs::remove_file(&path).unwrap();
    // Nobody waits for what has no end, or never begins.
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    all(&["is not a regular file", remedy]);
    fs::remove_file(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    all(&["is not a regular file", remedy]);
    fs::remove_file(&path).unwrap();
    home.file("tokens", b"p2pjoin1_\xff\n", 0o600);
    all(&["is not UTF-8 (byte 9)", remedy]);
    fs::File::create(&path).unwrap().set_len(1 << 21).unwrap();
    all(&["1048576 bytes", "drop tokens that have expired"]);
}

#[test]
fn each_line_that_is_no_token_is_reported_and_never_repeated() {
    let (home, id) = with_key();
    let relay = Keypair::generate_ed25519();
    let good = token(&relay, id, SystemTime::now() + HOUR);
    let (begin, end) = good.split_at(good.len() / 2);
    let flipped = if end.starts_with('A') { "B" } else { "A" };
    let forged = format!("{begin}{flipped}{}", &end[1..]);
    let cut = begin.to_owned();
    let long = format!("{good}{good}{good}");
    let lines = ["# ours", &good, "hush", &cut, &forged, &long];
    home.file("tokens", lines.join("\n"), 0o600);
    for args in ALL {
        let finished = finished(command(&home, args).output().unwrap());
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(2), ""),
            "{}",
            finished.stderr
        );
        let lines: Vec<&str> = finished.stderr.lines().collect();
        assert_eq!(lines.len(), 4, "{}", finished.stderr);
        for (line, (number, part)) in lines.iter().zip([
            (3, "does not begin with p2pjoin1_; give a token as"),
            (4, "is damaged; copy the whole"),
            // The flipped bit decides which of the two reasons is printed.
            (5, "relay-node token create"),
            (6, "is longer than 512 bytes; give one token"),
        ]) {
            let start = format!("error: join.token_file: tokens:{number}: what stands there ");
            assert!(line.starts_with(&start) && line.contains(part), "{line}");
        }
        assert!(!finished.stderr.contains("hush"), "{}", finished.stderr);
    }
}

#[test]
fn a_file_without_a_token_for_this_node_says_how_to_create_one() {
    let (home, id) = with_key();
    let create = format!("relay-node token create --peer {id} --expires 30d");
    for (content, reason) in [
        (String::new(), "has no token"),
        ("# none yet\n\n".to_owned(), "has no token"),
        (
            anybody(&Keypair::generate_ed25519()),
            "has 1 token(s) and none for this node",
        ),
    ] {
        home.file("tokens", content, 0o600);
        // A dial has an identity of its own.
        for args in &ALL[..2] {
            let finished = finished(command(&home, args).output().unwrap());
            finished.is_usage(&["join.token_file: tokens ", reason, &create]);
        }
    }
}

#[test]
fn config_check_warns_of_tokens_that_are_of_no_use_and_of_nothing_else() {
    let (home, id) = with_key();
    let relay = Keypair::generate_ed25519();
    let here = relay.public().to_peer_id();
    let now = SystemTime::now();
    let check = |content: &str, mode: u32| {
        home.file("tokens", content, mode);
        let relays = format!("/ip4/198.18.0.1/tcp/1/p2p/{here}");
        let mut command = command(&home, &["config", "check"]);
        let finished = finished(command.env("P2PNODE_RELAYS", relays).output().unwrap());
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert_eq!(finished.stdout, "configuration is valid\n");
        finished.stderr
    };
    // A token is of no use without the peer's key, so other users may read the file.
    assert_eq!(check(&token(&relay, id, now + HOUR), 0o644), "");
    let expired = check(&token(&relay, id, now - HOUR), 0o600);
    let foreign = check(&token(&Keypair::generate_ed25519(), id, now + HOUR), 0o600);
    for (warning, parts) in [
        (expired, ["expired on ", "relay-node token create --peer"]),
        (foreign, ["is for none of `relays`", "tokens"]),
    ] {
        assert_eq!(warning.lines().count(), 1, "{warning}");
        assert!(warning.starts_with("warning: "), "{warning}");
        for part in parts {
            assert!(warning.contains(part), "{part}: {warning}");
        }
    }
}

#[test]
fn config_check_makes_no_key_and_then_judges_what_it_can() {
    let home = Home::new();
    let relay = Keypair::generate_ed25519();
    home.file("tokens", anybody(&relay), 0o600);
    let run = |home: &Home| finished(command(home, &["config", "check"]).output().unwrap());
    assert_eq!(run(&home).stdout_of_success(), "configuration is valid\n");
    home.file("tokens", "", 0o600);
    run(&home).is_usage(&["tokens has no token", "--peer ID"]);
    assert!(!home.path("state").exists());
    // The id is needed before there can be a token.
    fs::remove_file(home.path("tokens")).unwrap();
    let id = finished(command(&home, &["id"]).output().unwrap()).stdout_of_success();
    assert!(id.starts_with("12D3KooW"), "{id}");
}
