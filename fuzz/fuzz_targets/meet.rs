//! What peers and relays say over `/p2pnode/meet/1`.

#![no_main]

use futures::{executor::block_on, io::Cursor};
use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::introduction::{Answer, Introduction, MAX_ADDRS, Notice, read, Request, write};

/// The message in these bytes, if they hold one. What was understood can be said, and is understood again.
macro_rules! understood {
    ($message:ty, $bytes:expr) => {{
        let message = block_on(read::<$message>(&mut Cursor::new($bytes))).ok();
        if let Some(message) = &message {
            let mut out = Cursor::new(Vec::new());
            block_on(write(&mut out, message)).expect("a message that was read fits");
            let again = block_on(read::<$message>(&mut Cursor::new(out.into_inner())));
            assert!(again.is_ok(), "{again:?}");
        }
        message
    }};
}

fn assert_bounded(introduction: &Introduction) {
    assert!(introduction.addrs.len() <= MAX_ADDRS && introduction.own_addrs.len() <= MAX_ADDRS);
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(request) = understood!(Request, bytes) {
        assert!(request.addrs.len() <= MAX_ADDRS);
    }
    if let Some(Answer::Introduced(introduction)) = understood!(Answer, bytes) {
        assert_bounded(&introduction);
    }
    if let Some(notice) = understood!(Notice, bytes) {
        assert_bounded(&notice.introduction);
    }
});
