//! Whether a file is another than it was.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// What the system says of a file at one time. Two are alike if nobody has written the file, replaced it, or led a symbolic
/// link on its path elsewhere meanwhile, which is how clusters bring a new version of a ConfigMap or Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<Seen>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of its content, in seconds and nanoseconds. That of its metadata is not seen: who reads it may change that.
    modified: (i64, i64),
}

impl Stamp {
    /// That of the file at `path` now. A file that is not there, or may not be looked at, has one as well.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|found| Seen {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_removed_is_another() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let missing = Stamp::of(&path);
        fs::write(&path, "a").unwrap();
        let first = Stamp::of(&path);
        assert_ne!(first, missing);
        fs::read(&path).unwrap();
        assert_eq!(Stamp::of(&path), first);
        fs::write(&path, "ab").unwrap();
        let second = Stamp::of(&path);
        assert_ne!(second, first);
        fs::write(home.path().join("new"), "ab").unwrap();
        fs::rename(home.path().join("new"), &path).unwrap();
        assert_ne!(Stamp::of(&path), second);
        fs::remove_file(&path).unwrap();
        assert_eq!(Stamp::of(&path), missing);
    }

    #[test]
    fn a_link_on_the_way_that_leads_elsewhere_is_seen() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("relay.yaml"), "same").unwrap();
        }
        symlink("1", at("..data")).unwrap();
        symlink("..data/relay.yaml", at("relay.yaml")).unwrap();
        let before = Stamp::of(&at("relay.yaml"));
        symlink("2", at("..data.new")).unwrap();
        fs::rename(at("..data.new"), at("..data")).unwrap();
        assert_ne!(Stamp::of(&at("relay.yaml")), before);
    }
}
