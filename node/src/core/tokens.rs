//! The join tokens, one a line. Each token names its relay and its peer. So one file, and one Secret, serves several relays and
//! peers. Each node takes its own tokens.
//!
//! Pure: the text of the file is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use libp2p::PeerId;
use p2pnode_daemon::text_file::Unreadable;
use p2pnode_protocol::join::Token;

/// This node's tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    local: PeerId,
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

/// The tokens in `text`, the file at `path`, and how each is written.
///
/// # Errors
/// A line for each token that cannot be read.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Vec<(Token, String)>, TokenFileError> {
    let (mut tokens, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match Token::read(line) {
            Ok(token) => tokens.push((token, line.to_owned())),
            // The token is not repeated: a reader of the log need not have it.
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
    /// The tokens for the node `local` in `text`, the file at `path`.
    ///
    /// # Errors
    /// As [`parse`]. [`Tokens::check`] reports a file without a token for this node.
    pub(crate) fn new(text: &str, path: &Path, local: PeerId) -> Result<Self, TokenFileError> {
        let (mut own, mut others) = (BTreeMap::new(), 0);
        for (token, line) in parse(text, path)? {
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

    /// These tokens take the place of the ones before. The relays whose token is another one now.
    pub(crate) fn replace(&mut self, new: Self) -> Vec<PeerId> {
        let is_new = |(relay, (token, _)): &(&PeerId, &(Token, String))| {
            self.own.get(relay).map(|(known, _)| known) != Some(token)
        };
        let changed = new.own.iter().filter(is_new);
        let changed = changed.map(|(relay, _)| *relay).collect();
        *self = new;
        changed
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

    use std::time::{Duration, UNIX_EPOCH};

    use libp2p::identity::Keypair;
    use p2pnode_protocol::join::TokenId;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(relay: &Keypair, peer: &PeerId, expires: u64) -> String {
        Token::sign(relay, TokenId::new(expires), peer, at(expires)).unwrap()
    }

    fn read(text: &str, local: PeerId) -> Result<Tokens, TokenFileError> {
        Tokens::new(text, Path::new("/etc/tokens"), local)
    }

    #[test]
    fn one_file_serves_several_relays_and_peers() {
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
        let mut tokens = read(&lines.join("\n"), local).unwrap();
        assert_eq!(
            tokens.of(&ids[0]).unwrap().0.expires,
            at(200),
            "the longest"
        );
        assert!(tokens.of(&ids[1]).is_none(), "another peer's");
        tokens.check().unwrap();
        let new = [token(&first, &local, 200), token(&second, &local, 300)].join("\n");
        assert_eq!(tokens.replace(read(&new, local).unwrap()), [ids[1]]);
        assert!(tokens.of(&ids[1]).is_some());
        let error = read("nonsense\n\nmore nonsense\n", local).unwrap_err();
        let error = error.to_string();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(
            error.contains("tokens:1: ") && error.contains("tokens:3: "),
            "{error}"
        );
        assert!(!error.contains("more nonsense"), "{error}");
    }

    #[test]
    fn a_file_without_a_token_for_this_node_is_reported_with_the_remedy() {
        let (relay, local) = (Keypair::generate_ed25519(), PeerId::random());
        let tokens = read(&token(&relay, &PeerId::random(), 100), local).unwrap();
        let error = tokens.check().unwrap_err().to_string();
        assert!(
            error.contains("1 token(s) and none for this node"),
            "{error}"
        );
        assert!(error.contains(&format!("--peer {local}")), "{error}");
    }

    #[test]
    fn tokens_that_have_expired_or_are_for_no_relay_of_ours_are_warned_of() {
        let (relay, local) = (Keypair::generate_ed25519(), PeerId::random());
        let tokens = read(&token(&relay, &local, 100), local).unwrap();
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
