//! The file of the key behind a peer id.
//!
//! The file holds an ed25519 private key in libp2p's protobuf encoding
//! (<https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys>). The first start creates the file.
//! No start overwrites it, even if it is corrupt: a lost peer id cannot be restored.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use libp2p::identity::Keypair;

use crate::remedy;

/// Why there is no key. Each names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not name a regular file.
    #[error("key file {} is {what}; give the path of a file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Others may read the key.
    #[error("key file {} can be read by others (mode {mode:04o}); run chmod 600 {}", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("cannot read key file {}: {source}; {}", .path.display(), remedy::of(.source, .path).unwrap_or_else(|| "give the path of a file that can be read".to_owned()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "key file {} is not a libp2p private key ({problem}); move it away or restore it, it is never overwritten",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        problem: String,
    },
    /// The file cannot be made.
    #[error("cannot create key file {}: {source}; {}", .path.display(), not_created(.source, .path))]
    NotCreated {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// Whether the user has to fix the configuration, rather than the system.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NotAFile { .. } | Self::Exposed { .. } | Self::Corrupt { .. } => true,
            Self::Unreadable { source, .. } | Self::NotCreated { source, .. } => {
                remedy::is_of_path(source)
            }
        }
    }
}

fn not_created(error: &io::Error, path: &Path) -> String {
    let directory = directory(path).display();
    if error.kind() == io::ErrorKind::NotFound {
        return format!("there is no directory {directory}: make it, or give another path");
    }
    let remedy = remedy::of(error, path);
    remedy.unwrap_or_else(|| format!("make {directory} writable, or give another path"))
}

/// Who has named a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The configuration, or its default: a directory that is missing is made.
    Configuration,
    /// An argument of the command: a directory that is missing is a misspelled path.
    Argument,
}

impl Named {
    /// Whether `argument` names the file.
    #[must_use]
    pub fn by<T>(argument: Option<&T>) -> Self {
        match argument {
            Some(_) => Self::Argument,
            None => Self::Configuration,
        }
    }
}

/// The key of `path`. Creates the file if there is none.
///
/// Processes that start at the same time get the same key. Each writes its own to a temporary file, and moves that to `path` only
/// if there is still no file. The file has mode 0600, new directories have mode 0700.
///
/// # Errors
/// [`Error`]. An existing file stays unchanged.
pub fn load_or_create(path: &Path, named: Named) -> Result<Keypair, Error> {
    match load(path) {
        Err(Error::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        loaded => return loaded,
    }
    let key = Keypair::generate_ed25519();
    match store(path, named, &key) {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(source) => Err(Error::NotCreated {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The key of `path`.
///
/// # Errors
/// [`Error`]; [`Error::Unreadable`] if there is no such file.
pub fn load(path: &Path) -> Result<Keypair, Error> {
    // A key has 68 bytes. A longer file than this is no key, and is not read into memory.
    const LONGEST: u64 = 16 * 1024;

    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let corrupt = |problem: String| Error::Corrupt {
        path: path.to_owned(),
        problem,
    };
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(unreadable)?;
    // The metadata of the open file, which cannot be replaced in between.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a directory"
        } else {
            "not a regular file"
        };
        return Err(Error::NotAFile {
            path: path.to_owned(),
            what,
        });
    }
    let mode = metadata.mode() & 0o7777;
    let user = rustix::process::geteuid().as_raw();
    if is_exposed(mode, metadata.uid(), user) {
        return Err(Error::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.is_empty() {
        return Err(corrupt("it is empty".to_owned()));
    }
    Keypair::from_protobuf_encoding(&bytes).map_err(|error| corrupt(one_line(&error)))
}

/// Whether users other than `user` may read a file with this `mode` and `owner`.
///
/// The group of a file of root may read it, as with a private key of PostgreSQL: a cluster gives a Secret to a pod without root
/// that way (`fsGroup`), and the pod cannot own the file.
fn is_exposed(mode: u32, owner: u32, user: u32) -> bool {
    let given_by_root = owner == 0 && user != 0;
    mode & if given_by_root { 0o037 } else { 0o077 } != 0
}

/// Writes `key` to a new file; `AlreadyExists` if there is one.
fn store(path: &Path, named: Named, key: &Keypair) -> io::Result<()> {
    let directory = directory(path);
    if named == Named::Configuration {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    // Errors of the temporary file name that, and not what is missing.
    fs::metadata(directory)?;
    let bytes = key.to_protobuf_encoding().map_err(io::Error::other)?;
    let mut aside = tempfile::Builder::new()
        .prefix(".identity-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    aside.write_all(&bytes)?;
    aside.as_file().sync_all()?;
    aside.persist_noclobber(path).map_err(|error| error.error)?;
    // The name must survive a crash as well as the bytes.
    File::open(directory)?.sync_all()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line += &format!(": {cause}");
        source = cause.source();
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_first_start_creates_a_key_that_the_second_finds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/identity.key");
        let made = load_or_create(&path, Named::Configuration).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(
            load_or_create(&path, Named::Configuration)
                .unwrap()
                .public(),
            made.public()
        );
        // No temporary file is left.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_an_argument_names_is_not_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("typo/identity.key");
        let error = load_or_create(&path, Named::Argument).unwrap_err();
        assert!(error.is_usage(), "{error}");
        assert!(
            error.to_string().contains("there is no directory"),
            "{error}"
        );
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn concurrent_first_starts_end_with_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/identity.key");
        let peers: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        load_or_create(&path, Named::Configuration)
                            .unwrap()
                            .public()
                            .to_peer_id()
                    })
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        assert_eq!(peers.len(), 1);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_key_is_an_error_and_stays_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        for content in [&b""[..], b"not a key", &[0; 70], &[0xff; 20_000]] {
            write(&path, content, 0o600);
            let error = load_or_create(&path, Named::Configuration).unwrap_err();
            assert!(error.is_usage());
            let error = error.to_string();
            assert!(error.contains("is not a libp2p private key"), "{error}");
            assert!(error.contains("move it away or restore it"), "{error}");
            assert!(!error.contains('\n'), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        load_or_create(&path, Named::Configuration).unwrap();
        let bytes = fs::read(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660, 0o601] {
            write(&path, &bytes, mode);
            let error = load_or_create(&path, Named::Configuration)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("chmod 600 {}", path.display())),
                "{error}"
            );
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
        for mode in [0o600, 0o400] {
            write(&path, &bytes, mode);
            load_or_create(&path, Named::Configuration).unwrap();
        }
    }

    #[test]
    fn the_group_of_a_file_of_root_may_read_it() {
        for (mode, owner, user, exposed) in [
            (0o600, 65532, 65532, false),
            (0o440, 0, 65532, false),
            (0o640, 0, 65532, false),
            (0o400, 0, 65532, false),
            // The group may not write the file, and others may not read it.
            (0o460, 0, 65532, true),
            (0o444, 0, 65532, true),
            // A file of the user or for root has no group.
            (0o440, 65532, 65532, true),
            (0o440, 0, 0, true),
            (0o440, 1000, 65532, true),
        ] {
            assert_eq!(
                is_exposed(mode, owner, user),
                exposed,
                "{mode:o} {owner} {user}"
            );
        }
    }

    #[test]
    fn directories_fifos_and_files_in_the_way_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let error = load_or_create(directory.path(), Named::Configuration).unwrap_err();
        assert!(error.to_string().contains("is a directory"), "{error}");
        assert!(error.is_usage());

        let file = directory.path().join("file");
        write(&file, b"", 0o600);
        let error = load_or_create(&file.join("identity.key"), Named::Configuration).unwrap_err();
        assert!(error.is_usage(), "{error}");
        assert!(error.to_string().contains("is a file"), "{error}");

        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap();
        assert!(made.success());
        let error = load_or_create(&fifo, Named::Configuration)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn a_key_that_this_user_may_not_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        load_or_create(&path, Named::Configuration).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        match load_or_create(&path, Named::Configuration) {
            Ok(_) => assert!(rustix::process::geteuid().is_root()),
            Err(error) => {
                assert!(error.is_usage());
                let error = error.to_string();
                assert!(error.contains("give it access"), "{error}");
            }
        }
    }

    #[test]
    fn a_dangling_symlink_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        std::os::unix::fs::symlink(directory.path().join("nowhere"), &path).unwrap();
        assert!(load_or_create(&path, Named::Configuration).is_err());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    proptest! {
        #[test]
        fn no_content_panics_or_is_changed(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("identity.key");
            write(&path, &bytes, 0o600);
            let _ = load_or_create(&path, Named::Configuration);
            prop_assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
