//! What a peer asks a relay over `/p2pnode/probe/1`, and what the relay may answer.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::{
    frame::{read, write},
    probe::{Answer, Request},
};

fuzz_target!(|bytes: &[u8]| {
    let _ = block_on(read::<Answer>(&mut Cursor::new(bytes)));
    if let Ok(message) = block_on(read::<Request>(&mut Cursor::new(bytes))) {
        let mut out = Cursor::new(Vec::new());
        block_on(write(&mut out, &message)).expect("it is short");
        let again = block_on(read::<Request>(&mut Cursor::new(out.into_inner())));
        assert_eq!(again.ok(), Some(message));
    }
});
