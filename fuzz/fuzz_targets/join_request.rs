//! What a peer presents to a relay over `/p2pnode/join/1`.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::join::{read, Request, Token, write};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = block_on(read::<Request>(&mut Cursor::new(bytes))) {
        let _ = message.token.as_deref().map(Token::read);
        // What was understood can be said, unless it was written shorter than we write it, and is understood again.
        let mut out = Cursor::new(Vec::new());
        if block_on(write(&mut out, &message)).is_ok() {
            let again = block_on(read::<Request>(&mut Cursor::new(out.into_inner())));
            assert_eq!(again.ok(), Some(message));
        }
    }
});
