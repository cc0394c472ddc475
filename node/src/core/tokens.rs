//! The file of tokens: one a line, each of which names its relay and its peer. So one file, and one Secret, serves several relays
//! and several peers; each node takes what is its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use libp2p::PeerId;
use p2pnode_daemon::{
    fingerprint::FileFingerprint,
    text_file::{self, Unreadable},
};
use p2pnode_protocol::join::Token;

/// The most bytes of the file: of more than four thousand tokens.
const LONGEST: u64 = 1024 * 1024;

/// This node's tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    local: PeerId,
    stamp: FileFingerprint,
    /// By relay, as written.
    own: BTreeMap<PeerId, (Token, String)>,
    /// Tokens for other peers.
    others: usize,
}

/// The file is not as it has to be. A line for each thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    /// It cannot be read.
    #[error("join.token_file: {unreadable}; {}", remedy(.unreadable))]
    Unreadable {
        /// Why.
        unreadable: Unreadable,
    },
    /// There is none in it.
    #[error(
        "join.token_file: {} has no token; create one with `relay-node token create --peer {} --expires 30d`",
        .path.display(),
        .local.map_or_else(|| "ID".to_owned(), |local| local.to_string())
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// This node, if it is known.
        local: Option<PeerId>,
    },
    /// It is no list of tokens.
    #[error("{}", .0.join("\n"))]
    Malformed(Vec<String>),
    /// None in it is for this node.
    #[error(
        "join.token_file: {} has {others} token(s) and none for this node, {local}; create one with `relay-node token create --peer {local} --expires 30d`",
        .path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// This node.
        local: PeerId,
        /// Tokens in it.
        others: usize,
    },
}

fn remedy(unreadable: &Unreadable) -> &'static str {
    match unreadable {
        Unreadable::TooLong { .. } => "drop tokens that have expired",
        Unreadable::System { .. } | Unreadable::NotAFile { .. } | Unreadable::NotText { .. } => {
            "give a file with the tokens that the relays have created, one a line"
        }
    }
}

/// What is worth a warning about the file at `path`, for the node `local`, if its id is known, with these relays.
///
/// # Errors
/// As [`Tokens::load`] and [`Tokens::check`].
pub(crate) fn check(
    path: &Path,
    local: Option<PeerId>,
    relays: &BTreeSet<PeerId>,
    now: SystemTime,
) -> Result<Vec<String>, TokenFileError> {
    match local {
        Some(local) => {
            let tokens = Tokens::load(path, local)?;
            tokens.check()?;
            Ok(tokens.warnings(relays, now))
        }
        None if read(path)?.is_empty() => Err(TokenFileError::Empty {
            path: path.to_owned(),
            local,
        }),
        None => Ok(Vec::new()),
    }
}

/// The tokens in the file at `path`, and how each is written.
fn read(path: &Path) -> Result<Vec<(Token, String)>, TokenFileError> {
    let text = text_file::read(path, LONGEST)
        .map_err(|unreadable| TokenFileError::Unreadable { unreadable })?;
    let (mut tokens, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match Token::read(line) {
            Ok(token) => tokens.push((token, line.to_owned())),
            // The token is not repeated: whoever reads the log need not have it.
            Err(malformed) => problems.push(format!(
                "join.token_file: {}:{}: what stands there {malformed}",
                path.display(),
                number + 1
            )),
        }
    }
    if problems.is_empty() {
        Ok(tokens)
    } else {
        Err(TokenFileError::Malformed(problems))
    }
}

impl Tokens {
    /// Reads the tokens for the node `local` from the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with the file. That none is for this node is for [`Tokens::check`] to tell.
    pub(crate) fn load(path: &Path, local: PeerId) -> Result<Self, TokenFileError> {
        let stamp = FileFingerprint::of(path);
        let (mut own, mut others) = (BTreeMap::new(), 0);
        for (token, line) in read(path)? {
            if token.peer != local {
                others += 1;
                continue;
            }
            // Of two for one relay the one that lasts longer.
            let known = own.get(&token.relay);
            let known = known.map(|(known, _): &(Token, String)| known.expires);
            if known.is_none_or(|known| known < token.expires) {
                own.insert(token.relay, (token, line));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            local,
            stamp,
            own,
            others,
        })
    }

    /// Whether any is for this node.
    ///
    /// # Errors
    /// [`TokenFileError::NotOurs`] if there are others only, and [`TokenFileError::Empty`] if there is none.
    pub(crate) fn check(&self) -> Result<(), TokenFileError> {
        let (path, local) = (self.path.clone(), self.local);
        match (self.own.is_empty(), self.others) {
            (false, _) => Ok(()),
            (true, 0) => Err(TokenFileError::Empty {
                path,
                local: Some(local),
            }),
            (true, others) => Err(TokenFileError::NotOurs {
                path,
                local,
                others,
            }),
        }
    }

    /// What is worth a warning at `now`, for a node with these relays.
    pub(crate) fn warnings(&self, relays: &BTreeSet<PeerId>, now: SystemTime) -> Vec<String> {
        let (file, local) = (self.path.display(), self.local);
        let mut warnings = Vec::new();
        for (relay, (token, _)) in &self.own {
            if token.is_expired(now) {
                warnings.push(format!(
                    "the token for relay {relay} in {file} expired on {}; replace it by what `relay-node token create --peer {local} --expires 30d` prints there",
                    token.date()
                ));
            }
            if !relays.contains(relay) {
                warnings.push(format!(
                    "the token in {file} for {relay} is for none of `relays`; it is only used where a peer's record leads there"
                ));
            }
        }
        warnings
    }

    /// Reads the file again if it has changed. The relays whose token is another one now; an error leaves all as it is.
    pub(crate) fn refresh(&mut self) -> Result<Vec<PeerId>, TokenFileError> {
        let stamp = FileFingerprint::of(&self.path);
        if stamp == self.stamp {
            return Ok(Vec::new());
        }
        // An error is told once, and not at each look.
        self.stamp = stamp;
        let new = Self::load(&self.path, self.local)?;
        let is_new = |(relay, (token, _)): &(&PeerId, &(Token, String))| {
            self.own.get(relay).map(|(known, _)| known) != Some(token)
        };
        let changed = new.own.iter().filter(is_new);
        let changed = changed.map(|(relay, _)| *relay).collect();
        *self = new;
        Ok(changed)
    }

    /// The token for this relay, and how it is written.
    pub(crate) fn of(&self, relay: &PeerId) -> Option<&(Token, String)> {
        self.own.get(relay)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{
        fs,
        time::{Duration, UNIX_EPOCH},
    };

    use libp2p::identity::Keypair;
    use p2pnode_protocol::join::TokenId;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(relay: &Keypair, peer: &PeerId, expires: u64) -> String {
        Token::sign(relay, TokenId::new(expires), peer, at(expires)).unwrap()
    }

    #[test]
    fn one_file_serves_several_relays_and_peers_and_is_read_again_when_it_changes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokens");
        let [first, second] = [(); 2].map(|()| Keypair::generate_ed25519());
        let ids = [&first, &second].map(|key| key.public().to_peer_id());
        let (local, other) = (PeerId::random(), PeerId::random());
        let lines = [
            "# tokens of the fleet".to_owned(),
            String::new(),
            token(&first, &local, 100),
            format!("  {}  ", token(&first, &local, 200)),
            token(&first, &local, 150),
            token(&second, &other, 300),
        ];
        fs::write(&path, lines.join("\n")).unwrap();
        let mut tokens = Tokens::load(&path, local).unwrap();
        assert_eq!(
            tokens.of(&ids[0]).unwrap().0.expires,
            at(200),
            "the longest"
        );
        assert!(tokens.of(&ids[1]).is_none(), "another peer's");
        tokens.check().unwrap();
        assert_eq!(tokens.refresh().unwrap(), []);
        // As a cluster replaces a Secret.
        let new = [token(&first, &local, 200), token(&second, &local, 300)].join("\n");
        fs::write(home.path().join("new"), new).unwrap();
        fs::rename(home.path().join("new"), &path).unwrap();
        assert_eq!(tokens.refresh().unwrap(), [ids[1]]);
        assert!(tokens.of(&ids[1]).is_some());
        // What is broken is told once and changes nothing.
        fs::write(&path, "nonsense\n\nmore nonsense\n").unwrap();
        let error = tokens.refresh().unwrap_err().to_string();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(
            error.contains("tokens:1: ") && error.contains("tokens:3: "),
            "{error}"
        );
        assert!(!error.contains("more nonsense"), "{error}");
        assert_eq!(tokens.refresh().unwrap(), []);
        assert!(tokens.of(&ids[1]).is_some());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_the_remedy() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokens");
        let local = PeerId::random();
        let error = Tokens::load(&path, local).unwrap_err().to_string();
        assert!(
            error.contains("cannot read") && error.contains("tokens"),
            "{error}"
        );
        assert!(Tokens::load(home.path(), local).is_err(), "a directory");
        let relay = Keypair::generate_ed25519();
        fs::write(&path, token(&relay, &PeerId::random(), 100)).unwrap();
        let tokens = Tokens::load(&path, local).unwrap();
        let error = tokens.check().unwrap_err().to_string();
        assert!(
            error.contains("1 token(s) and none for this node"),
            "{error}"
        );
        assert!(error.contains(&format!("--peer {local}")), "{error}");
        fs::File::create(&path)
            .unwrap()
            .set_len(LONGEST + 1)
            .unwrap();
        let error = Tokens::load(&path, local).unwrap_err().to_string();
        assert!(error.contains("drop tokens that have expired"), "{error}");
    }

    #[test]
    fn tokens_that_have_expired_or_are_for_no_relay_of_ours_are_warned_of() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokens");
        let (relay, local) = (Keypair::generate_ed25519(), PeerId::random());
        fs::write(&path, token(&relay, &local, 100)).unwrap();
        let tokens = Tokens::load(&path, local).unwrap();
        let known = BTreeSet::from([relay.public().to_peer_id()]);
        assert!(tokens.warnings(&known, at(99)).is_empty());
        let expired = tokens.warnings(&known, at(100));
        assert!(
            expired[0].contains("expired on 1970-01-01T00:01:40Z"),
            "{expired:?}"
        );
        let stranger = tokens.warnings(&BTreeSet::new(), at(99));
        assert!(stranger[0].contains("none of `relays`"), "{stranger:?}");
    }
}
