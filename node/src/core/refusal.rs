//! The report about a relay that refuses this node: why, and what to do. Pure.

use std::{path::Path, time::SystemTime};

use libp2p::PeerId;
use p2pnode_protocol::join::{Refusal, Token};

/// One line: the reason and the remedy. `token` is what was presented, `file` where tokens are looked for.
pub(crate) fn refused(
    refusal: Refusal,
    local: &PeerId,
    token: Option<&Token>,
    file: Option<&Path>,
    now: SystemTime,
) -> String {
    let create =
        format!("create one there with `relay-node token create --peer {local} --expires 30d`");
    let place = file.map_or_else(
        || "name its file in join.token_file".to_owned(),
        |file| format!("put it into {}", file.display()),
    );
    match (refusal, token) {
        (Refusal::NoToken, _) => format!("no token: {create}, and {place}"),
        (Refusal::Expired, Some(token)) if token.is_expired(now) => {
            format!(
                "the token expired on {}: {create}, and {place}",
                token.date()
            )
        }
        (Refusal::Expired, Some(token)) => format!(
            "the token has expired by the relay's clock, and by this one's it is good until {}: set the clocks right",
            token.date()
        ),
        (Refusal::Revoked, Some(token)) => {
            format!(
                "the token {} was revoked: if that was not meant, {create}, and {place}",
                token.id
            )
        }
        (Refusal::NotAllowed, _) => {
            format!("this peer is not allowed: add {local} to access.allow of the relay")
        }
        (Refusal::TooOften, _) => {
            "too many invalid tokens were presented: correct the file, and wait a minute".to_owned()
        }
        (
            Refusal::Malformed
            | Refusal::OtherRelay
            | Refusal::OtherPeer
            | Refusal::Expired
            | Refusal::Revoked
            | Refusal::Other,
            _,
        ) => format!("the token is not taken ({refusal}): {create}, and {place}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use p2pnode_protocol::join::TokenId;

    use super::*;

    #[test]
    fn each_refusal_says_why_and_what_to_do_in_one_line() {
        let local = PeerId::random();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let token = Token {
            id: TokenId::new(7),
            relay: PeerId::random(),
            peer: local,
            expires: at(1_800_000_000),
        };
        let (file, late, early) = (Path::new("/etc/tokens"), at(1_800_000_000), at(1));
        let create = format!("relay-node token create --peer {local}");
        let allow = format!("add {local} to access.allow");
        for (refusal, token, file, now, parts) in [
            (
                Refusal::NoToken,
                None,
                None,
                early,
                ["no token: ", &create, "join.token_file"],
            ),
            (
                Refusal::NoToken,
                None,
                Some(file),
                early,
                ["no token: ", &create, "/etc/tokens"],
            ),
            (
                Refusal::Expired,
                Some(&token),
                Some(file),
                late,
                ["expired on 2027-01-15T08:00:00Z", &create, "/etc/tokens"],
            ),
            (
                Refusal::Expired,
                Some(&token),
                Some(file),
                early,
                [
                    "the relay's clock",
                    "2027-01-15T08:00:00Z",
                    "set the clocks right",
                ],
            ),
            (
                Refusal::Revoked,
                Some(&token),
                Some(file),
                early,
                ["token 0000000000000007 was revoked", &create, "/etc/tokens"],
            ),
            (
                Refusal::NotAllowed,
                None,
                None,
                early,
                ["not allowed", &allow, "relay"],
            ),
            (
                Refusal::TooOften,
                None,
                None,
                early,
                ["too many", "correct", "wait"],
            ),
            (
                Refusal::Other,
                None,
                None,
                early,
                ["not taken (other)", &create, "join"],
            ),
        ] {
            let words = refused(refusal, &local, token, file, now);
            assert!(!words.contains('\n'), "{words}");
            for part in parts {
                assert!(words.contains(part), "{part}: {words}");
            }
        }
    }
}
