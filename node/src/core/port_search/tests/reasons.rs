//! Each reason for which there is no search has a case.

use super::*;

/// Why there is no search in the case of this reason. A reason without a case does not compile.
fn caused(reason: NoSearch) -> Option<NoSearch> {
    type Change = fn(&mut [Side; 2]);
    let as_it_is: Change = |_| {};
    let (kinds, change): ([Kind; 2], Change) = match reason {
        NoSearch::NotSymmetric => ([Kind::Stable(0), Kind::Stable(9)], as_it_is),
        NoSearch::RandomBoth => ([Kind::Random, Kind::Random], as_it_is),
        NoSearch::Family => ([BLOCK, Kind::Stable(7)], |[one, _]| {
            one.mapped.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
        }),
        NoSearch::SameNat => ([BLOCK, Kind::Stable(7)], |[one, other]| {
            one.mapped.set_ip(other.mapped.ip());
        }),
        NoSearch::NoPorts => ([BLOCK, Kind::Stable(7)], |[one, _]| one.sockets = 0),
    };
    let mut nats = [1, 2].map(|nth| Nat::new(nth, kinds[usize::from(nth) - 1], 1));
    let mut sides = sides(&mut nats, 51);
    change(&mut sides);
    plans(sides).err()
}

#[test]
fn what_cannot_be_found_is_not_tried_and_has_a_reason() {
    for reason in NoSearch::ALL {
        assert_eq!(caused(reason), Some(reason));
    }
    let reason = |kinds| World::new(kinds, 51, NEAR, 1).err();
    assert_eq!(reason([Kind::Random, BLOCK]), Some(NoSearch::RandomBoth));
    let large = Kind::Block(20_000, 8_000);
    assert_eq!(reason([large, BLOCK]), Some(NoSearch::RandomBoth));
}
