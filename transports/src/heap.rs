//! Memory that the allocator keeps, instead of giving it back to be asked for it again a moment later.

use std::{hint::black_box, sync::Once};

/// The block that sets the threshold, in bytes: the heap is then trimmed where 4 MiB of it are free at its end. A stream has up to
/// half a MiB under way between yamux and the socket, in pieces that come and go together.
const BLOCK: usize = 2 << 20;

/// Raises the threshold at which glibc gives free memory at the end of the heap back to the kernel, once in a process.
///
/// At first that is 128 KiB, less than what a single stream over TCP has under way: each flush then returned what the next one had
/// to fault in again, page by page (`docs/benchmarks.md`). glibc adapts the threshold by itself when a block is freed that was large
/// enough to be mapped on its own: to twice its size (mallopt(3), `M_MMAP_THRESHOLD`). So one is freed, which nobody has written
/// to. With another allocator this does nothing.
pub(crate) fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(BLOCK))));
}
