//! The file of join tokens, read again when it has changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::SystemTime,
};

use libp2p::PeerId;
use p2pnode_daemon::{fingerprint::FileFingerprint, text_file};

use crate::core::tokens::{self, TokenFileError, Tokens};

/// The most bytes of the file: of more than four thousand tokens.
const LONGEST: u64 = 1024 * 1024;

/// The file, as it was when it was read last.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    local: PeerId,
    fingerprint: FileFingerprint,
}

impl TokenFile {
    /// Reads the tokens for the node `local` from the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with the file. [`Tokens::check`] reports a file without a token for this node.
    pub(crate) fn open(path: &Path, local: PeerId) -> Result<(Self, Tokens), TokenFileError> {
        let fingerprint = FileFingerprint::of(path);
        let tokens = Tokens::new(&read(path)?, path, local)?;
        let path = path.to_owned();
        Ok((
            Self {
                path,
                local,
                fingerprint,
            },
            tokens,
        ))
    }

    /// Reads the file again if it has changed. What is wrong with it is returned once, and not at each look. A file that is being
    /// written, or was cut short, has no token.
    pub(crate) fn read_changed(&mut self) -> Result<Option<Tokens>, TokenFileError> {
        let fingerprint = FileFingerprint::of(&self.path);
        if fingerprint == self.fingerprint {
            return Ok(None);
        }
        self.fingerprint = fingerprint;
        let tokens = Tokens::new(&read(&self.path)?, &self.path, self.local)?;
        tokens.check()?;
        Ok(Some(tokens))
    }
}

/// What is worth a warning about the file at `path`, for the node `local`, if its id is known, with these relays.
///
/// # Errors
/// As [`TokenFile::open`] and [`Tokens::check`].
pub(crate) fn check(
    path: &Path,
    local: Option<PeerId>,
    relays: &BTreeSet<PeerId>,
    now: SystemTime,
) -> Result<Vec<String>, TokenFileError> {
    match local {
        Some(local) => {
            let (_, tokens) = TokenFile::open(path, local)?;
            tokens.check()?;
            Ok(tokens.warnings(relays, now))
        }
        None if tokens::parse(&read(path)?, path)?.is_empty() => Err(TokenFileError::Empty {
            path: path.to_owned(),
            local,
        }),
        None => Ok(Vec::new()),
    }
}

fn read(path: &Path) -> Result<String, TokenFileError> {
    text_file::read(path, LONGEST).map_err(|unreadable| TokenFileError::Unreadable { unreadable })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{fs, time::Duration};

    use libp2p::identity::Keypair;
    use p2pnode_protocol::join::{Token, TokenId};

    use super::*;

    fn token(relay: &Keypair, peer: &PeerId) -> String {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        Token::sign(relay, TokenId::new(1), peer, expires).unwrap()
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_a_fault_is_returned_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokens");
        let (relay, local) = (Keypair::generate_ed25519(), PeerId::random());
        let id = relay.public().to_peer_id();
        fs::write(&path, "# none yet\n").unwrap();
        let (mut file, tokens) = TokenFile::open(&path, local).unwrap();
        assert!(tokens.of(&id).is_none());
        assert!(file.read_changed().unwrap().is_none());
        // As a cluster replaces a Secret.
        fs::write(home.path().join("new"), token(&relay, &local)).unwrap();
        fs::rename(home.path().join("new"), &path).unwrap();
        let tokens = file.read_changed().unwrap().unwrap();
        assert!(tokens.of(&id).is_some());
        for text in ["nonsense\n", ""] {
            fs::write(&path, text).unwrap();
            file.read_changed().unwrap_err();
            assert!(file.read_changed().unwrap().is_none());
        }
    }

    #[test]
    fn what_cannot_be_read_is_reported_with_the_remedy() {
        let home = tempfile::tempdir().unwrap();
        let (path, local) = (home.path().join("tokens"), PeerId::random());
        let error = TokenFile::open(&path, local).unwrap_err().to_string();
        assert!(
            error.contains("cannot read") && error.contains("tokens"),
            "{error}"
        );
        TokenFile::open(home.path(), local).unwrap_err();
        fs::File::create(&path)
            .unwrap()
            .set_len(LONGEST + 1)
            .unwrap();
        let error = TokenFile::open(&path, local).unwrap_err().to_string();
        assert!(error.contains("drop tokens that have expired"), "{error}");
    }
}
