//! A join token, as a peer presents it and as a file has it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::join::{PREFIX, Token};

fuzz_target!(|text: &str| {
    if let Ok(token) = Token::read(text) {
        // Whatever was signed can be shown.
        let _ = (token.date(), token.id.to_string());
    }
    // Most of the time is to go into what comes after the prefix.
    let _ = Token::read(&format!("{PREFIX}{text}"));
});
