//! How much memory the process takes, how much it may take, and what happens above that.
//!
//! A thread of its own looks at the resident memory. So an attack that keeps the event loop busy is noticed all the same. The
//! thread grants what may be taken until the next look, and has connections closed above the limit. Then the allocator returns to
//! the kernel what they held. `watch` decides.

mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use watch::Watch;

/// Bytes that are resident; `None` where the system does not count them.
#[must_use]
pub fn resident() -> Option<u64> {
    resident_of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS` of a status as [proc(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html) describes it, in bytes.
fn resident_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What `limits.memory` is by default, in bytes: 80 % of what the cgroup of the process may take, in whole MiB, or 0 for no limit.
#[must_use]
pub fn default_limit() -> u64 {
    const MIB: u64 = 1 << 20;
    let limit = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|own| {
            let root = Path::new("/sys/fs/cgroup");
            cgroup_limit(root, &own, |path| fs::read_to_string(path).ok())
        });
    limit.map_or(0, |limit| (limit / MIB * 4 / 5).max(1) * MIB)
}

/// The tightest limit on the way from the cgroup of the process to the root, with
/// [version 2](https://docs.kernel.org/admin-guide/cgroup-v2.html) or
/// [version 1](https://docs.kernel.org/admin-guide/cgroup-v1/memory.html). `own` is `/proc/self/cgroup`. A container may see its
/// cgroup as the root although the file names the path on the host: what does not exist has no limit.
fn cgroup_limit(root: &Path, own: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let hierarchies = own.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            Some((root.to_owned(), path, "memory.max"))
        } else if controllers.split(',').any(|name| name == "memory") {
            Some((root.join("memory"), path, "memory.limit_in_bytes"))
        } else {
            None
        }
    });
    let limits = hierarchies.flat_map(|(root, path, file)| {
        let own: PathBuf = root.join(path);
        let up = own.ancestors().take_while(|dir| dir.starts_with(&root));
        let files: Vec<_> = up.map(|dir| dir.join(file)).collect();
        files
            .into_iter()
            .filter_map(|file| read(&file)?.trim().parse::<u64>().ok())
    });
    // Version 1 writes a number close to the largest for no limit.
    limits.filter(|limit| *limit < 1 << 60).min()
}

/// What an inbound connection takes from its first packet until it is open, in bytes, about: TLS or QUIC, certificates, and the state
/// of every protocol. A debug build takes the most.
const HANDSHAKE: u64 = 128 << 10;

/// How much of the memory is left. Clones are the same.
#[derive(Debug, Clone)]
pub struct Pressure(Arc<AtomicU64>);

impl Pressure {
    /// Whether nothing was left when that was looked at last.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// For how many handshakes at once there is room.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        handshakes(self.0.load(Ordering::Relaxed))
    }
}

/// How many handshakes at once there may be where so many bytes are left. Half of these are for what connections receive.
#[must_use]
pub fn handshakes(bytes: u64) -> usize {
    usize::try_from(bytes / 2 / HANDSHAKE).unwrap_or(usize::MAX)
}

/// Those who take memory.
pub trait Holders: Send + 'static {
    /// So many bytes may be taken until the next call.
    fn set_room(&mut self, bytes: u64);

    /// Closes connections of strangers that hold about so many bytes, and others until all hold `of_others`. Returns how many they hold.
    fn close(&mut self, bytes: u64, of_others: u64) -> u64;
}

/// The thread that keeps the process below a limit, for as long as this lives.
#[derive(Debug)]
pub struct Guard {
    _alive: Arc<()>,
    pressure: Pressure,
}

impl Guard {
    /// Keeps the process below `limit` bytes, of which 0 is none. `holders` are called in another thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(limit: u64, holders: impl Holders) -> io::Result<Self> {
        let (alive, pressure) = (Arc::new(()), Pressure(Arc::new(AtomicU64::new(u64::MAX))));
        if limit > 0 {
            if resident().is_none() {
                tracing::warn!(
                    "this system does not report resident memory; limits.memory is not enforced"
                );
            }
            let (weak, shown) = (Arc::downgrade(&alive), pressure.clone());
            let thread = thread::Builder::new().name("memory".to_owned());
            thread.spawn(move || keep(&weak, limit, &shown, holders))?;
        }
        Ok(Self {
            _alive: alive,
            pressure,
        })
    }

    /// How much is left.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }
}

fn keep(alive: &Weak<()>, limit: u64, shown: &Pressure, mut holders: impl Holders) {
    let mut watch = Watch::new(limit);
    while alive.strong_count() > 0 {
        let taken = resident().unwrap_or_default();
        let look = watch.handle_resident(taken, Instant::now());
        shown.0.store(look.room, Ordering::Relaxed);
        // The other half is for handshakes.
        holders.set_room(look.room / 2);
        if look.close > 0 {
            watch.handle_closed(holders.close(look.close, look.of_others));
        }
        if look.trim {
            trim();
            tracing::debug!(
                before = taken,
                after = resident(),
                "returned free memory to the kernel"
            );
        }
        thread::sleep(look.pause);
    }
}

/// Has the allocator return free memory to the kernel, also what is free between blocks that are in use.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(
        unsafe_code,
        reason = "glibc returns such memory for this call only, and no crate wraps the call"
    )]
    // SAFETY: malloc_trim(3) is thread-safe and has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_read_where_it_stands_and_nothing_is_guessed() {
        let status = "Name:\trelay-node\nVmSize:\t  999 kB\nVmRSS:\t   1234 kB\n";
        assert_eq!(resident_of(status), Some(1234 * 1024));
        for none in [
            "",
            "VmRSS:\t12 MB\n",
            "VmRSS:\t-1 kB\n",
            "VmRSS:\t18446744073709551615 kB\n",
        ] {
            assert_eq!(resident_of(none), None, "{none}");
        }
        assert!(resident().is_some_and(|bytes| bytes > 4096));
    }

    #[test]
    fn the_tightest_limit_of_a_cgroup_and_those_above_it_holds_in_both_versions() {
        let limit = |own: &str, files: &[(&str, &str)]| {
            cgroup_limit(Path::new("/c"), own, |path| {
                let file = files.iter().find(|(name, _)| Path::new(name) == path);
                file.map(|(_, text)| (*text).to_owned())
            })
        };
        let pod = "0::/kube/pod/own\n";
        let files = [
            ("/c/kube/pod/own/memory.max", "300\n"),
            ("/c/kube/pod/memory.max", "200\n"),
            ("/c/kube/memory.max", "max\n"),
        ];
        assert_eq!(limit(pod, &files), Some(200));
        assert_eq!(limit("0::/\n", &[("/c/memory.max", "77\n")]), Some(77));
        assert_eq!(limit(pod, &[("/c/memory.max", "77\n")]), Some(77));
        assert_eq!(limit(pod, &[]), None);
        let v1 = "4:cpu,memory:/a/b\n0::/\n";
        let files = [
            (
                "/c/memory/a/b/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("/c/memory/a/memory.limit_in_bytes", "500\n"),
            ("/c/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(v1, &files), Some(500));
        assert_eq!(limit("1:name=systemd:/a\nrubbish\n", &files), None);
        assert_eq!(limit("0::/../../x\n", &[("/x/memory.max", "1\n")]), None);
    }

    #[test]
    fn there_is_room_for_as_many_handshakes_as_fit() {
        let pressure = Pressure(Arc::new(AtomicU64::new(6 * HANDSHAKE - 1)));
        assert_eq!((pressure.handshakes(), pressure.is_high()), (2, false));
        pressure.0.store(0, Ordering::Relaxed);
        assert_eq!((pressure.handshakes(), pressure.is_high()), (0, true));
    }
}
