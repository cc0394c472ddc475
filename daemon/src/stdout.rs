//! Whether this process was started without stdout.
//!
//! Before `main`, the standard library opens `/dev/null` in the place of a closed stdout. Every write would succeed, and nobody
//! would read it. So this looks before.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// # Errors
/// If this process was started without stdout, as by `>&-`.
pub fn check() -> io::Result<()> {
    match WAS_CLOSED.load(Relaxed) {
        true => Err(io::Error::from_raw_os_error(libc::EBADF)),
        false => Ok(()),
    }
}

#[cfg(target_os = "linux")]
#[used]
#[allow(
    unsafe_code,
    reason = "the standard library leaves no other place before it opens /dev/null"
)]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    #[allow(
        unsafe_code,
        reason = "a safe call takes an open file, and this one may be closed"
    )]
    // SAFETY: it reads the flags of a descriptor, which need not be open.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Relaxed);
}
