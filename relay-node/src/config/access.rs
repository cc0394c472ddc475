//! The keys of `access`, and the file of revoked tokens.

use std::path::Path;

use p2pnode_daemon::{
    config::{
        Form, Kind, Reader,
        kind::{BOOL, PATH, PEER_ID, from_str},
    },
    text_file::{self, Unreadable},
};
use p2pnode_protocol::join::TokenId;

use super::Access;

/// The most bytes of the file of revoked tokens: of more than sixty thousand.
const LONGEST: u64 = 1024 * 1024;

const FILE: &str = "access.revoked_file";

const TOKEN_ID: Kind<TokenId> = Kind {
    expects: "the id of a token: 16 hexadecimal digits, as `relay-node token show` prints them",
    form: Form::Text,
    parse: from_str,
    print: TokenId::to_string,
};

/// Reads the keys, and the file that one of them names.
pub(super) fn read(reader: &mut Reader<'_>) -> Access {
    let allow = reader.list(
        "access.allow",
        "Peers that may use the relay. Empty: any peer may, unless access.tokens is on.",
        &PEER_ID,
        &[],
    );
    let tokens = reader.one(
        "access.tokens",
        "Whether peers may use the relay that present a join token of it, besides those of access.allow; every other one is \
         refused.",
        &BOOL,
        "false",
    );
    let mut revoked = reader.list("access.revoked", "IDs of revoked tokens.", &TOKEN_ID, &[]);
    let revoked_file = reader.optional(
        FILE,
        "File with more of them, one a line; # begins a comment.",
        &PATH,
    );
    if let Some(path) = &revoked_file {
        match ids(path) {
            Ok(ids) => revoked.extend(ids),
            Err(problems) => {
                for problem in problems {
                    reader.contradiction(FILE, None, problem);
                }
            }
        }
    }
    Access {
        allow,
        tokens,
        revoked,
        revoked_file,
    }
}

/// The ids in the file at `path`, or all that is wrong with it.
fn ids(path: &Path) -> Result<Vec<TokenId>, Vec<String>> {
    let text = text_file::read(path, LONGEST).map_err(|unreadable| {
        let remedy = match unreadable {
            Unreadable::TooLong { .. } => "drop the ids of tokens that have expired",
            Unreadable::System { .. }
            | Unreadable::NotAFile { .. }
            | Unreadable::NotText { .. } => "give a file of ids that exists, if only an empty one",
        };
        vec![format!("{unreadable}; {remedy}")]
    })?;
    let (mut ids, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(id) => ids.push(id),
            Err(problem) => {
                let problem: String = problem;
                problems.push(format!("{}:{}: {problem}", path.display(), number + 1));
            }
        }
    }
    if problems.is_empty() {
        Ok(ids)
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_ids_has_comments_and_blank_lines_and_all_its_faults_are_told() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("revoked");
        fs::write(&path, "# lost laptop\n\n 00000000000000ff # since May\n").unwrap();
        assert_eq!(ids(&path), Ok(vec![TokenId::new(0xff)]));
        fs::write(&path, "x\n00000000000000ff\np2pjoin1_abc\n").unwrap();
        let problems = ids(&path).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].contains("revoked:1: \"x\" is not the id"),
            "{problems:?}"
        );
        assert!(problems[1].contains("revoked:3: "), "{problems:?}");
        fs::remove_file(&path).unwrap();
        assert!(ids(&path).unwrap_err()[0].contains("give a file of ids that exists"));
        assert!(ids(home.path()).is_err(), "a directory");
        fs::File::create(&path)
            .unwrap()
            .set_len(LONGEST + 1)
            .unwrap();
        assert!(ids(&path).unwrap_err()[0].contains("drop the ids"));
    }
}
