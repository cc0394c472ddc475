//! Text of a remote, as output and logs show it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::{escape, escape_json, from_remote};

fuzz_target!(|text: &str| {
    let shown = from_remote(text);
    assert!(shown.chars().count() <= 256);
    assert!(!shown.chars().any(char::is_control));
    assert_eq!(from_remote(&shown), shown);
    let line = escape(text);
    assert!(!line.chars().any(char::is_control));
    assert_eq!(escape(&line), line);
    let _ = escape_json(text.to_owned());
});
