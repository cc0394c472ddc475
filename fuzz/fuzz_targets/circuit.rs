//! What a peer sends to a relay over HOP and STOP.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::circuit::{decode_answer, MAX_MESSAGE, read, Request};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = block_on(read(&mut Cursor::new(bytes))) {
        assert!(message.len() <= MAX_MESSAGE);
        if let Ok(request) = Request::decode(&message) {
            // A request that was decoded is decoded again as it is encoded.
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        let _understood = decode_answer(&message);
    }
});
