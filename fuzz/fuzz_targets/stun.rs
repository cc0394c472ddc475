//! What anybody may send to a port of STUN, and a server may answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::stun::{Message, is_stun};

fuzz_target!(|bytes: &[u8]| {
    let is_stun = is_stun(bytes);
    if let Ok(message) = Message::decode(bytes) {
        assert!(is_stun || message.transaction.is_classic());
        let mut again = Message::decode(&message.encode()).expect("what is written is read");
        // Only an error names what is unknown.
        again.unknown.clone_from(&message.unknown);
        assert_eq!(again, message);
    }
});
