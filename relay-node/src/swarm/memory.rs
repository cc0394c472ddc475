//! How much memory the process takes.

use std::fs;

/// Bytes that are resident; `None` where the system does not tell.
pub(crate) fn resident() -> Option<u64> {
    of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS` of a status as [proc(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html) describes it, in bytes.
fn of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_read_where_it_stands_and_nothing_is_guessed() {
        let status = "Name:\trelay-node\nVmSize:\t  999 kB\nVmRSS:\t   1234 kB\n";
        assert_eq!(of(status), Some(1234 * 1024));
        for none in [
            "",
            "VmRSS:\t12 MB\n",
            "VmRSS:\t-1 kB\n",
            "VmRSS:\t18446744073709551615 kB\n",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        assert!(resident().is_some_and(|bytes| bytes > 4096));
    }
}
