//! What a relay reports to a node over `/p2pnode/shared-key/1`.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::{
    frame::{read_up_to, write_up_to},
    shared_key::Notice,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = block_on(read_up_to::<Notice>(256, &mut Cursor::new(bytes))) {
        let mut out = Cursor::new(Vec::new());
        block_on(write_up_to(256, &mut out, &message)).expect("it is short");
        let again = block_on(read_up_to::<Notice>(256, &mut Cursor::new(out.into_inner())));
        assert_eq!(again.ok(), Some(message));
    }
});
