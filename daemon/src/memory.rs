//! How much memory the process takes, how much it may take, and what happens above that.
//!
//! A thread of its own looks at the resident memory, so that an attack which keeps the event loop busy does not keep it from being
//! noticed. Above the limit the thread has connections closed, the one that holds the most first, and has the allocator return to
//! the kernel what they held.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The longest time between two looks at the memory.
const CALM: Duration = Duration::from_millis(100);

/// The shortest.
const CLOSE: Duration = Duration::from_millis(2);

/// How fast strangers may fill the memory, in bytes a millisecond: a gigabyte a second. The next look comes before the memory can
/// exceed the limit by a tenth.
const FILLS: u64 = 1_000_000;

/// In this time the memory of a closed connection is free: its task has to see the end.
const FREES: Duration = Duration::from_millis(100);

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

/// Whether the process is above its limit. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicBool>);

impl Pressure {
    /// Whether the process was above its limit when that was looked at last.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The thread that keeps the process below a limit, for as long as this lives.
#[derive(Debug)]
pub struct Guard {
    _alive: Arc<()>,
    pressure: Pressure,
}

impl Guard {
    /// Keeps the process below `limit` bytes, of which 0 is none. `close` closes the connection that holds the most and returns how
    /// many bytes that was; `None` if nothing is held. It is called in another thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        limit: u64,
        close: impl FnMut() -> Option<u64> + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, pressure) = (Arc::new(()), Pressure::default());
        if limit > 0 {
            if resident().is_none() {
                tracing::warn!(
                    "this system does not report resident memory; limits.memory is not enforced"
                );
            }
            let (weak, shown) = (Arc::downgrade(&alive), pressure.clone());
            let thread = thread::Builder::new().name("memory".to_owned());
            thread.spawn(move || watch(&weak, limit, &shown, close))?;
        }
        Ok(Self {
            _alive: alive,
            pressure,
        })
    }

    /// Whether the process is above its limit.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }
}

fn watch(alive: &Weak<()>, limit: u64, shown: &Pressure, mut close: impl FnMut() -> Option<u64>) {
    // What was closed lately, and since when. It is not closed a second time.
    let (mut closed, mut since) = (0, Instant::now());
    while alive.strong_count() > 0 {
        let taken = resident().unwrap_or_default();
        let is_high = taken > limit;
        if since.elapsed() >= FREES {
            (closed, since) = (0, Instant::now());
            if is_high {
                // What was freed by now or the last time.
                trim();
            }
        }
        if is_high {
            closed += free(taken.saturating_sub(limit + closed), &mut close);
        }
        shown.0.store(is_high, Ordering::Relaxed);
        thread::sleep(pause(taken, limit));
    }
}

/// When to look again.
fn pause(taken: u64, limit: u64) -> Duration {
    let room = (limit + limit / 10).saturating_sub(taken);
    Duration::from_millis(room / FILLS).clamp(CLOSE, CALM)
}

/// Has connections closed that hold `excess` bytes together. Returns how many they hold.
fn free(excess: u64, close: &mut impl FnMut() -> Option<u64>) -> u64 {
    let mut freed = 0;
    while freed < excess
        && let Some(held) = close()
    {
        freed += held;
    }
    freed
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
    fn the_memory_is_looked_at_before_it_can_exceed_the_limit_by_a_tenth() {
        const MIB: u64 = 1 << 20;
        for limit in [16 * MIB, 64 * MIB, 400 * MIB, 8192 * MIB] {
            for taken in [0, limit / 4, limit / 2, limit / 5 * 4, limit] {
                let pause = pause(taken, limit);
                let filled = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) * FILLS;
                assert!(
                    pause == CLOSE || taken + filled <= limit + limit / 10,
                    "{taken} {pause:?}"
                );
            }
        }
        assert_eq!(pause(100 * MIB, 400 * MIB), CALM, "an idle program");
        assert_eq!(pause(500 * MIB, 400 * MIB), CLOSE);
    }

    #[test]
    fn as_many_are_closed_as_hold_the_excess_and_none_where_nothing_is_held() {
        let mut held = vec![5, 10, 20];
        free(25, &mut || held.pop());
        assert_eq!(held, [5]);
        free(25, &mut || held.pop());
        assert!(held.is_empty());
        free(25, &mut || held.pop());
    }
}
