//! What a peer asks of a relay over `/p2pnode/hop/1`.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::hop::{read, Request, write};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = block_on(read::<Request>(&mut Cursor::new(bytes))) {
        // What was understood can be said, and is understood again.
        let mut out = Cursor::new(Vec::new());
        block_on(write(&mut out, &message)).expect("a message that was read fits");
        let again = block_on(read::<Request>(&mut Cursor::new(out.into_inner())));
        assert!(again.is_ok(), "{again:?}");
    }
});
