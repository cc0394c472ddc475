#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What one step of a random history does to a pool.
#[derive(Debug, Clone)]
enum Step {
    Claim,
    ClaimPort(u16),
    /// Releases the nth port of those in use, to cool for some seconds or at once.
    Release(usize, Option<u64>),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Claim),
        1 => any::<u16>().prop_map(Step::ClaimPort),
        1 => (90..130u16).prop_map(Step::ClaimPort),
        3 => (any::<usize>(), proptest::option::of(0..90u64)).prop_map(|(n, t)| Step::Release(n, t)),
        2 => (0..60u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

fn ranges() -> impl Strategy<Value = PortRange> {
    (100..110u16, 0..20u16).prop_map(|(start, n)| PortRange::new(start, start + n).unwrap())
}

proptest! {
    #[test]
    fn the_far_port_is_as_far_from_the_nearest_silent_one_as_any(
        range in ranges(), silent in prop::collection::btree_set(100..130u16, 0..12),
    ) {
        let len = u16::try_from(range.len()).unwrap();
        let nearest = |port: u16| {
            let away = silent.iter().map(|other| port.abs_diff(*other));
            away.map(|straight| straight.min(len.saturating_sub(straight))).min()
        };
        let mut pool = PortPool::new(range, b"peer");
        let port = pool.claim_far(silent.iter().copied().collect(), Instant::now()).unwrap();
        prop_assert_eq!(nearest(port), range.iter().map(nearest).max().unwrap());
    }

    #[test]
    fn a_history_never_hands_out_a_port_outside_or_in_use_or_cooling(
        range in ranges(), seed: Vec<u8>, steps in steps(),
    ) {
        let mut now = Instant::now();
        let mut pool = PortPool::new(range, &seed);
        let mut used: BTreeMap<u16, u32> = BTreeMap::new();
        let mut cooling: BTreeMap<u16, Instant> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Claim => match pool.claim_beside(&[], now) {
                    Ok(port) => {
                        prop_assert!(range.contains(port));
                        prop_assert!(!used.contains_key(&port), "{} was in use", port);
                        prop_assert!(cooling.remove(&port).is_none_or(|until| until <= now), "{} cooled", port);
                        used.insert(port, 1);
                    }
                    Err(exhausted) => {
                        prop_assert_eq!(exhausted.range, range);
                        let free = range.iter().find(|port| {
                            !used.contains_key(port) && cooling.get(port).is_none_or(|until| *until <= now)
                        });
                        prop_assert_eq!(free, None);
                    }
                },
                Step::ClaimPort(port) => {
                    prop_assert_eq!(pool.claim_port(port), range.contains(port));
                    if range.contains(port) {
                        *used.entry(port).or_default() += 1;
                        cooling.remove(&port);
                    }
                }
                Step::Release(n, cool) => {
                    let Some(port) = used.keys().copied().nth(n % used.len().max(1)) else { continue };
                    let until = cool.map(|seconds| now + Duration::from_secs(seconds));
                    pool.release(port, until);
                    let users = used.get_mut(&port).unwrap();
                    *users -= 1;
                    if *users == 0 {
                        used.remove(&port);
                        cooling.extend(until.map(|until| (port, until)));
                    }
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
            let counts = pool.counts(now);
            prop_assert_eq!(counts.in_use, used.len());
            prop_assert_eq!(counts.cooling, cooling.values().filter(|until| **until > now).count());
            prop_assert_eq!(counts.free + counts.in_use + counts.cooling, range.len());
            let candidates: BTreeSet<u16> = pool.candidates(now).into_iter().collect();
            prop_assert_eq!(candidates, range.iter().filter(|port| !used.contains_key(port)).collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn every_port_is_handed_out_once_before_the_range_is_exhausted(range in ranges(), seed: Vec<u8>) {
        let now = Instant::now();
        let mut pool = PortPool::new(range, &seed);
        let ports: BTreeSet<u16> = std::iter::from_fn(|| pool.claim_beside(&[], now).ok()).collect();
        prop_assert_eq!(ports, range.iter().collect::<BTreeSet<_>>());
        prop_assert!(pool.claim_beside(&[], now).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_ports_in_the_same_order(range in ranges(), seed: Vec<u8>) {
        let now = Instant::now();
        let claims = || {
            let mut pool = PortPool::new(range, &seed);
            std::iter::from_fn(move || pool.claim_beside(&[], now).ok()).collect::<Vec<_>>()
        };
        prop_assert_eq!(claims(), claims());
        prop_assert_eq!(PortPool::new(range, &seed).candidates(now), claims());
    }

    #[test]
    fn a_cooled_port_is_free_again_and_not_before(seconds in 1..600u64) {
        let now = Instant::now();
        let mut pool = PortPool::new("40000".parse().unwrap(), b"");
        pool.claim_beside(&[], now).unwrap();
        let until = now + Duration::from_secs(seconds);
        pool.release(40000, Some(until));
        prop_assert_eq!(pool.next_free_in(now), Some(Duration::from_secs(seconds)));
        prop_assert!(pool.claim_beside(&[], until - Duration::from_nanos(1)).is_err());
        prop_assert_eq!(pool.next_free_in(until), None);
        prop_assert_eq!(pool.claim_beside(&[], until), Ok(40000));
    }
}

#[test]
fn different_peers_mostly_start_at_different_ports() {
    let range = "40000-40050".parse().unwrap();
    let firsts: BTreeSet<u16> = (0..51u8)
        .map(|n| {
            PortPool::new(range, &[0, 36, 8, 1, 18, 32, n])
                .claim_beside(&[], Instant::now())
                .unwrap()
        })
        .collect();
    assert!(firsts.len() > 25, "{firsts:?}");
}

#[test]
fn the_hash_is_fnv_1a_and_stays_it() {
    // Test vectors of draft-eastlake-fnv: a change would move every node to another port on its next restart.
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn releasing_a_port_that_is_not_in_use_changes_nothing() {
    let now = Instant::now();
    let mut pool = PortPool::new("40000-40001".parse().unwrap(), b"");
    pool.release(40000, Some(now + Duration::from_secs(9)));
    pool.release(1, None);
    assert_eq!(
        pool.counts(now),
        PoolCounts {
            free: 2,
            in_use: 0,
            cooling: 0
        }
    );
}

#[test]
fn a_port_that_a_connection_holds_is_the_last_one_and_is_named_first() {
    use crate::net::holder::{HeldBy, Holder};

    let range: PortRange = "40000-40002".parse().unwrap();
    let (mut pool, now) = (PortPool::new(range, b"seed"), Instant::now());
    let first = pool.clone().claim_beside(&[], now).unwrap();
    let claimed: Vec<_> = (0..3)
        .map(|_| pool.claim_beside(&[first], now).unwrap())
        .collect();
    assert_eq!(claimed.last(), Some(&first));
    assert!(pool.claim_beside(&[first], now).is_err());

    let holder = |port, by| Holder {
        transport: p2pnode_protocol::Transport::Tcp,
        port,
        by,
    };
    let exhausted = Exhausted {
        range,
        holders: vec![
            holder(40_000, HeldBy::ThisNode),
            holder(40_001, HeldBy::Cooling),
        ],
    };
    let waits = HeldBy::Connection {
        state: crate::net::sock_diag::State::TIME_WAIT,
        left: Some(Duration::from_secs(37)),
    };
    let elsewhere = holder(50_000, waits.clone());
    let named = exhausted.held_by([elsewhere, holder(40_002, waits)]);
    assert_eq!(
        named.to_string(),
        "port range 40000-40002 exhausted: tcp 40002 held by a connection to the same remote in TIME_WAIT, 37 s left, tcp 40000 in use by this node, and so on"
    );
}

#[test]
fn the_far_half_of_a_range_is_tried_first_and_a_block_is_found_in_few_tries() {
    let range: PortRange = "40000-40050".parse().unwrap();
    let now = Instant::now();
    for first in range.iter() {
        for open in [2, 4, 8] {
            // A block of this part of the range is let out, and the punch port is not in it.
            let block = u16::try_from(range.len()).unwrap() / open;
            for start in (range.start()..=range.end() - block)
                .filter(|start| !(*start..=start + block).contains(&first))
            {
                let mut pool = PortPool::new(range, b"peer");
                let mut silent = vec![first];
                pool.claim_port(first);
                let port = loop {
                    let port = pool.claim_far(silent.clone(), now).unwrap();
                    if (start..=start + block).contains(&port) {
                        break port;
                    }
                    silent.push(port);
                };
                assert!(
                    silent.len() <= usize::from(open),
                    "{first}, open {start}+{block}: {port} after {silent:?}"
                );
            }
        }
    }
}

#[test]
fn a_range_of_one_port_has_no_far_one() {
    let mut pool = PortPool::new("40000".parse().unwrap(), b"peer");
    pool.claim_port(40_000);
    assert!(pool.claim_far(vec![40_000], Instant::now()).is_err());
}
