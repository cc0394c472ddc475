//! What a process takes of the machine, as the kernel counts it (`/proc`, see proc(5)).

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// Resident memory of a process, in KiB.
pub fn memory(pid: i32) -> Result<u64> {
    of_status(pid, "VmRSS:")
}

/// The most that it ever was.
pub fn peak_memory(pid: i32) -> Result<u64> {
    of_status(pid, "VmHWM:")
}

fn of_status(pid: i32, name: &'static str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.with_context(|| format!("{path} has no {name}"))?
        .parse()
        .context(name)
}

pub fn descriptors(pid: i32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| path.clone())?.count())
}

/// Of its descriptors, the sockets.
pub fn sockets(pid: i32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    let descriptors = fs::read_dir(&path).with_context(|| path.clone())?;
    // One that is closed meanwhile has no target.
    let targets = descriptors.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    Ok(targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count())
}

pub fn threads(pid: i32) -> Result<usize> {
    let path = format!("/proc/{pid}/task");
    Ok(fs::read_dir(&path).with_context(|| path.clone())?.count())
}

/// Processor time that a process has used, its own and the kernel's on its behalf, in seconds.
pub fn cpu(pid: i32) -> Result<f64> {
    /// The kernel tells times in this unit to programs on every architecture (`USER_HZ`).
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the program, in parentheses, may hold anything; what follows it begins with the third field.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| path.clone())?;
    let mut times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let (user, system) = (times.next(), times.next());
    let ticks = user.context("utime")?? + system.context("stime")??;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// How long the main thread of a process was ready to run and had no processor, in seconds.
pub fn waited(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/schedstat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    let nanoseconds = stat.split_whitespace().nth(1);
    Ok(nanoseconds.with_context(|| path.clone())?.parse::<f64>()? / 1e9)
}

/// [`cpu`] to the nanosecond, of those threads that it has: what others have used that have ended is not in it. A process that has
/// ended and that nobody has waited for still has its first one.
pub fn cpu_of_threads(pid: i32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut nanos = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let path = task?.path().join("schedstat");
        // A thread may end meanwhile.
        let Ok(times) = fs::read_to_string(&path) else {
            continue;
        };
        let first = times.split_whitespace().next();
        let time: Option<u64> = first.and_then(|time| time.parse().ok());
        nanos += time.with_context(|| format!("{}: {times}", path.display()))?;
    }
    ensure!(nanos > 0, "{tasks}: the kernel keeps no CPU times");
    Ok(Duration::from_nanos(nanos))
}
