//! What a lack of file descriptors is called.

use std::io;

/// The same error. One that says that this process, or the system, has no file descriptor left names the number and the remedy.
#[must_use]
pub fn explained(error: io::Error) -> io::Error {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    let text = match error.raw_os_error() {
        Some(EMFILE) => {
            let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            let files = files.map_or_else(|| "unlimited".to_owned(), |files| files.to_string());
            format!(
                "this process has no file descriptor left of {files}; raise LimitNOFILE of the service (`ulimit -Hn`)"
            )
        }
        Some(ENFILE) => "the system has no file descriptor left; raise fs.file-max".to_owned(),
        Some(_) | None => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn a_process_or_a_system_without_descriptors_is_reported_with_its_remedy() {
        let explained = |number| explained(io::Error::from_raw_os_error(number)).to_string();
        let (process, system) = (explained(24), explained(23));
        assert!(
            process.contains("no file descriptor left of ") && process.contains("LimitNOFILE"),
            "{process}"
        );
        assert!(
            system.contains("no file descriptor left") && system.contains("fs.file-max"),
            "{system}"
        );
        assert_eq!(explained(2), io::Error::from_raw_os_error(2).to_string());
    }
}
