//! Whether a file has changed.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// The metadata of a file at one time. It differs after the file was written or replaced, and after a symbolic link on its path
/// was redirected. Clusters update a ConfigMap or Secret that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFingerprint(Option<Seen>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When the content changed, in seconds and nanoseconds. When the metadata changed does not count: reading may do that.
    modified: (i64, i64),
}

impl FileFingerprint {
    /// The fingerprint of the file at `path` now. A file that does not exist or cannot be inspected has one as well.
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
    fn a_file_that_is_written_replaced_or_removed_has_changed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let missing = FileFingerprint::of(&path);
        fs::write(&path, "a").unwrap();
        let first = FileFingerprint::of(&path);
        assert_ne!(first, missing);
        fs::read(&path).unwrap();
        assert_eq!(FileFingerprint::of(&path), first);
        fs::write(&path, "ab").unwrap();
        let second = FileFingerprint::of(&path);
        assert_ne!(second, first);
        fs::write(home.path().join("new"), "ab").unwrap();
        fs::rename(home.path().join("new"), &path).unwrap();
        assert_ne!(FileFingerprint::of(&path), second);
        fs::remove_file(&path).unwrap();
        assert_eq!(FileFingerprint::of(&path), missing);
    }

    #[test]
    fn a_redirected_link_on_the_path_is_a_change() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("relay.yaml"), "same").unwrap();
        }
        symlink("1", at("..data")).unwrap();
        symlink("..data/relay.yaml", at("relay.yaml")).unwrap();
        let before = FileFingerprint::of(&at("relay.yaml"));
        symlink("2", at("..data.new")).unwrap();
        fs::rename(at("..data.new"), at("..data")).unwrap();
        assert_ne!(FileFingerprint::of(&at("relay.yaml")), before);
    }
}
