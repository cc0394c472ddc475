#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::UNIX_EPOCH;

use libp2p::identity::Keypair;

use super::*;

/// A relay that takes tokens, a peer that is connected to it, and the times.
struct Bench {
    key: Keypair,
    machine: Admission,
    peer: PeerId,
    now: SystemTime,
    at: Instant,
}

const HOUR: Duration = Duration::from_secs(3600);

fn access(allow: &[PeerId], tokens: bool, revoked: &[TokenId]) -> Access {
    Access {
        allow: allow.to_vec(),
        tokens,
        revoked: revoked.to_vec(),
        revoked_file: None,
    }
}

fn rules(allow: &[PeerId], tokens: bool, revoked: &[TokenId]) -> Rules {
    Rules::new(&access(allow, tokens, revoked), [])
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let key = Keypair::generate_ed25519();
        let machine = Admission::new(key.public().to_peer_id(), rules);
        let mut bench = Self {
            key,
            machine,
            peer: PeerId::random(),
            now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            at: Instant::now(),
        };
        bench.machine.opened(bench.peer, id(1), bench.at);
        bench
    }

    fn token(&self, number: u64, lives: Duration) -> String {
        Token::sign(
            &self.key,
            TokenId::new(number),
            &self.peer,
            self.now + lives,
        )
        .unwrap()
    }

    fn present(&mut self, token: &str) -> Result<Option<SystemTime>, Refused> {
        self.machine.present(self.peer, Some(token), self.now)
    }

    fn admitted(&self) -> Result<(), Refused> {
        self.machine.admitted(&self.peer, self.now)
    }
}

#[test]
fn a_list_alone_decides_at_once_and_an_empty_one_admits_all() {
    let [friend, relay, stranger] = [(); 3].map(|()| PeerId::random());
    let now = SystemTime::now();
    let rules = Rules::new(&access(&[friend], false, &[]), [relay]);
    let mut machine = Admission::new(PeerId::random(), rules);
    for known in [friend, relay] {
        assert_eq!(machine.may_connect(&known), Ok(()));
        assert_eq!(machine.admitted(&known, now), Ok(()));
    }
    assert_eq!(machine.may_connect(&stranger), Err(Refused::NotAllowed));
    assert_eq!(machine.admitted(&stranger, now), Err(Refused::NotAllowed));
    machine.set(self::rules(&[], false, &[]), now);
    assert_eq!(machine.admitted(&stranger, now), Ok(()));
    assert_eq!(machine.may_connect(&stranger), Ok(()));
}

#[test]
fn a_token_admits_its_peer_until_it_ends_and_on_all_its_connections() {
    let mut bench = Bench::new(rules(&[], true, &[]));
    assert_eq!(bench.machine.may_connect(&bench.peer), Ok(()));
    assert_eq!(bench.admitted(), Err(Refused::NoToken));
    let token = bench.token(1, HOUR);
    assert_eq!(bench.present(&token), Ok(Some(bench.now + HOUR)));
    assert_eq!(bench.admitted(), Ok(()));
    bench.machine.opened(bench.peer, id(2), bench.at);
    bench.machine.closed(&bench.peer, id(1));
    assert_eq!(bench.admitted(), Ok(()));
    assert_eq!(
        (
            bench.machine.by_token(bench.now),
            bench.machine.waiting(bench.now)
        ),
        (1, 0)
    );
    assert_eq!(bench.machine.expire(bench.now), []);
    bench.now += HOUR;
    assert_eq!(bench.admitted(), Err(Refused::Expired));
    assert_eq!(bench.machine.expire(bench.now), [bench.peer]);
    assert_eq!(bench.machine.expire(bench.now), [], "reported once");
    assert_eq!(bench.present(&token), Err(Refused::Expired));
    bench.machine.closed(&bench.peer, id(2));
    assert!(bench.machine.peers.is_empty());
}

#[test]
fn the_end_of_the_last_connection_forgets_what_was_presented() {
    let mut bench = Bench::new(rules(&[], true, &[]));
    let token = bench.token(1, HOUR);
    bench.present(&token).unwrap();
    bench.machine.closed(&bench.peer, id(1));
    assert_eq!(bench.admitted(), Err(Refused::NoToken));
    assert_eq!(
        bench.present(&token),
        Err(Refused::NoToken),
        "not connected"
    );
}

#[test]
fn a_clock_that_jumps_ahead_ends_tokens_and_one_that_is_set_back_brings_none_to_life_by_itself() {
    let mut bench = Bench::new(rules(&[], true, &[]));
    let token = bench.token(1, HOUR);
    bench.present(&token).unwrap();
    let right = bench.now;
    bench.now += HOUR * 24 * 365;
    assert_eq!(bench.machine.expire(bench.now), [bench.peer]);
    bench.now = right;
    assert_eq!(bench.admitted(), Err(Refused::NoToken));
    assert_eq!(bench.present(&token), Ok(Some(bench.now + HOUR)));
    // Before 1970 every token is good, and nothing breaks.
    bench.now = UNIX_EPOCH - HOUR;
    assert_eq!(bench.admitted(), Ok(()));
    assert_eq!(bench.machine.expire(bench.now), []);
}

/// What a peer is answered in the case of this refusal. A refusal without a case does not compile.
fn caused(refused: Refused) -> Result<Option<SystemTime>, Refused> {
    let mut bench = Bench::new(rules(&[], true, &[TokenId::new(5)]));
    let stranger = Bench::new(rules(&[], true, &[]));
    let (peer, number, ends) = (bench.peer, TokenId::new(1), bench.now + HOUR);
    let token = match refused {
        Refused::NotAllowed => {
            bench = Bench::new(rules(&[stranger.peer], false, &[]));
            Some(bench.token(1, HOUR))
        }
        Refused::NoToken => None,
        Refused::Malformed => Some(String::new()),
        Refused::OtherRelay => Token::sign(&stranger.key, number, &peer, ends).ok(),
        Refused::OtherPeer => Token::sign(&bench.key, number, &stranger.peer, ends).ok(),
        Refused::Expired => Some(bench.token(1, Duration::ZERO)),
        Refused::Revoked => Some(bench.token(5, HOUR)),
        Refused::TooOften => {
            for _ in 0..MAX_TRIES {
                assert_eq!(bench.present("nonsense"), Err(Refused::Malformed));
            }
            Some(bench.token(1, HOUR))
        }
    };
    let peer = bench.peer;
    let answer = bench.machine.present(peer, token.as_deref(), bench.now);
    assert!(bench.admitted().is_err());
    answer
}

#[test]
fn each_refusal_has_a_case_that_causes_it_and_a_name_of_its_own() {
    let (mut names, mut counted) = (HashSet::new(), HashSet::new());
    for refused in Refused::ALL {
        assert_eq!(caused(refused), Err(refused));
        assert!(names.insert(refused.refusal().as_str()));
        counted.insert(refused.reason().as_str());
    }
    let tokens = [
        "no_token",
        "token_malformed",
        "token_foreign",
        "token_expired",
        "token_revoked",
    ];
    assert_eq!(counted, tokens.into_iter().chain(["access"]).collect());
}

#[test]
fn a_token_that_is_refused_takes_nothing_away_and_a_newer_one_lasts_longer() {
    let mut bench = Bench::new(rules(&[], true, &[]));
    let (first, second) = (bench.token(1, HOUR), bench.token(2, HOUR * 2));
    bench.present(&first).unwrap();
    assert_eq!(bench.present("nonsense"), Err(Refused::Malformed));
    assert_eq!(bench.admitted(), Ok(()));
    bench.present(&second).unwrap();
    bench.now += HOUR;
    assert_eq!(bench.machine.expire(bench.now), []);
    assert_eq!(bench.admitted(), Ok(()));
}

#[test]
fn after_some_tries_nothing_more_is_verified_and_the_connection_is_overdue() {
    let mut bench = Bench::new(rules(&[], true, &[]));
    let good = bench.token(1, HOUR);
    for _ in 0..MAX_TRIES {
        assert_eq!(bench.machine.overdue(bench.now, bench.at), []);
        assert_eq!(bench.present("nonsense"), Err(Refused::Malformed));
    }
    assert_eq!(bench.present(&good), Err(Refused::TooOften));
    let overdue = bench.machine.overdue(bench.now, bench.at);
    assert_eq!(overdue, [(bench.peer, id(1))]);
}

#[test]
fn who_is_not_admitted_in_time_is_overdue_and_nobody_else() {
    let friend = PeerId::random();
    let mut bench = Bench::new(rules(&[friend], true, &[]));
    bench.machine.opened(friend, id(2), bench.at);
    let just = bench.at + PATIENCE - Duration::from_millis(1);
    assert_eq!(bench.machine.overdue(bench.now, just), []);
    let late = bench.at + PATIENCE;
    assert_eq!(
        bench.machine.overdue(bench.now, late),
        [(bench.peer, id(1))]
    );
    // The wall clock has no say in it.
    let overdue = bench.machine.overdue(bench.now + HOUR, just);
    assert_eq!(overdue, []);
    let token = bench.token(1, HOUR);
    bench.present(&token).unwrap();
    assert_eq!(bench.machine.overdue(bench.now, late), []);
}

#[test]
fn new_rules_end_the_admission_of_those_whom_they_do_not_admit() {
    let [kept, dropped] = [(); 2].map(|()| PeerId::random());
    let mut bench = Bench::new(rules(&[kept, dropped], true, &[]));
    bench.machine.opened(kept, id(2), bench.at);
    bench.machine.opened(dropped, id(3), bench.at);
    let token = bench.token(7, HOUR);
    bench.present(&token).unwrap();
    let new = rules(&[kept], true, &[TokenId::new(7)]);
    let difference = bench.machine.rules().difference(&new);
    let expected = Difference {
        disallowed: 1,
        revoked: 1,
        ..Difference::default()
    };
    assert_eq!(difference, expected);
    let mut ended = bench.machine.set(new.clone(), bench.now);
    ended.sort_by_key(|(peer, _)| *peer == dropped);
    let expected = [(bench.peer, Refused::Revoked), (dropped, Refused::NoToken)];
    assert_eq!(ended, expected);
    assert_eq!(bench.machine.set(new, bench.now), [], "they were reported");
    // Without tokens a peer that had one is a stranger.
    let mut bench = Bench::new(rules(&[kept], true, &[]));
    let token = bench.token(7, HOUR);
    bench.present(&token).unwrap();
    let ended = bench.machine.set(rules(&[kept], false, &[]), bench.now);
    assert_eq!(ended, [(bench.peer, Refused::NotAllowed)]);
}

#[test]
fn a_token_that_is_restored_is_good_again() {
    let mut bench = Bench::new(rules(&[], true, &[TokenId::new(7)]));
    let token = bench.token(7, HOUR);
    assert_eq!(bench.present(&token), Err(Refused::Revoked));
    assert_eq!(bench.machine.set(rules(&[], true, &[]), bench.now), []);
    assert!(bench.present(&token).is_ok());
}
