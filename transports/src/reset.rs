//! Streams whose peer is to see a reset, not an end.
//!
//! libp2p has no call for it, and QUIC finishes a stream that is dropped. The drop reaches the stream below the boxes of libp2p in the
//! same thread, so a mark of the thread says what the drop means. yamux resets a dropped stream by itself, unless its peer has ended.

use std::cell::Cell;

thread_local! {
    static RESETS: Cell<bool> = const { Cell::new(false) };
}

struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        RESETS.set(false);
    }
}

/// Drops `stream` so that its peer sees a reset. What QUIC has not delivered by then is lost.
pub fn reset<S>(stream: S) {
    RESETS.set(true);
    let _mark = Mark;
    drop(stream);
}

/// Whether the stream that is being dropped is to be reset.
pub(crate) fn is_reset() -> bool {
    RESETS.get()
}
