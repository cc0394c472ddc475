//! What a peer says to a relay over HOP and STOP.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use relay_node::swarm::circuit::{message::{decode_answer, Request}, wire::{MAX_MESSAGE, read}};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = block_on(read(&mut Cursor::new(bytes))) {
        assert!(message.len() <= MAX_MESSAGE);
        if let Ok(request) = Request::decode(&message) {
            // What was understood can be said, and is understood again.
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        let _understood = decode_answer(&message);
    }
});
