//! Memory that the allocator keeps, instead of returning it to the kernel and asking for it again a moment later.

use std::{hint::black_box, sync::Once};

/// The block that sets the threshold, in bytes: the heap is then trimmed when 4 MiB are free at its end. A stream has up to half
/// a MiB under way between yamux and the socket, in pieces that come and go together.
const BLOCK: usize = 2 << 20;

/// Raises the threshold at which glibc returns free memory at the end of the heap to the kernel, once in a process. Programs
/// that move data call it when they start.
///
/// The threshold starts at 128 KiB, less than what a single stream over TCP has under way. Each flush would return memory that
/// the next one faults in again, page by page (`docs/notes.md`). glibc raises the threshold by itself when a block is freed
/// that was mapped on its own, to twice its size (mallopt(3), `M_MMAP_THRESHOLD`). So this function frees one, to which nothing
/// was written. With another allocator it does nothing.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(BLOCK))));
}
