//! Findings that explain why a dial stays relayed.

use super::*;

#[test]
fn a_dial_that_stays_relayed_gets_the_finding_that_explains_it() {
    use crate::{
        core::{event::NotDirect, finding::FindingId},
        punch::Reason,
    };

    let timeout = NotDirect::Punch(Reason::Timeout);
    let found = |facts: &Facts, reason: &NotDirect| assess(facts).in_the_way(reason, None, None);
    let symmetric = found(&facts(vec![LAB[6].1.path(2)]), &timeout).unwrap();
    assert_eq!(
        (symmetric.id, symmetric.text.as_str()),
        (FindingId::SymmetricHere, "symmetric here: random ports")
    );
    assert!(
        symmetric
            .remedy
            .unwrap()
            .command
            .unwrap()
            .contains("nft-snat")
    );
    let good = facts(vec![LAB[3].1.path(2)]);
    assert_eq!(
        found(&good, &timeout).unwrap().id,
        FindingId::SymmetricThere
    );
    let unknown = facts(vec![LAB[3].1.path(1)]);
    assert_eq!(
        found(&unknown, &timeout),
        None,
        "one relay does not show it"
    );
    let others = [
        NotDirect::Punch(Reason::RemoteUnsupported),
        NotDirect::Punch(Reason::Disabled),
        NotDirect::Unreachable("nobody is there".to_owned()),
    ];
    for reason in &others {
        assert_eq!(found(&good, reason), None, "{reason}");
    }
    let mut blocked = good;
    blocked.paths[0].sample[0].1 = None;
    assert_eq!(
        found(&blocked, &timeout).unwrap().id,
        FindingId::RangeBlocked
    );
    blocked.relays[0].legs[0].answer = Answer::Silent;
    assert_eq!(
        found(&blocked, &timeout).unwrap().id,
        FindingId::RangeBlocked,
        "from other ports than the punch port"
    );
    blocked.paths[0].sample.clear();
    assert_eq!(
        found(&blocked, &timeout).unwrap().id,
        FindingId::RelayUnreachable
    );
}

#[test]
fn what_both_sides_have_measured_for_a_search_replaces_the_guess_about_the_other_side() {
    use crate::{
        core::{
            event::NotDirect,
            finding::FindingId,
            search_report::{PortClass, SearchClass, SearchOutcome, SearchReport},
        },
        punch::Reason,
    };

    let report = assess(&facts(vec![LAB[3].1.path(2)]));
    let found = |class: Option<(PortClass, PortClass)>, moves| {
        let search = SearchReport {
            peer: PeerId::random(),
            class: class.map(|(here, there)| SearchClass {
                here,
                there,
                confidence: None,
            }),
            took: Duration::ZERO,
            sent: 0,
            received: 0,
            ignored: 0,
            outcome: SearchOutcome::NotTried,
            moves,
            reason: None,
        };
        let timeout = NotDirect::Punch(Reason::Timeout);
        let found = report.in_the_way(&timeout, Some(&search), None);
        found.map(|finding| (finding.id, finding.text))
    };
    let (stable, random) = (PortClass::Stable, PortClass::Random);
    assert_eq!(found(Some((stable, stable)), false), None);
    for (here, there, id, text) in [
        (
            stable,
            random,
            FindingId::SymmetricThere,
            "symmetric there: random ports",
        ),
        (
            PortClass::Block,
            stable,
            FindingId::SymmetricHere,
            "symmetric here: ports of a block",
        ),
    ] {
        let expected = Some((id, text.to_owned()));
        assert_eq!(found(Some((here, there)), false), expected);
    }
    // A search without classes, and one that moves a path, measure no NAT.
    for (class, moves) in [(None, false), (Some((stable, stable)), true)] {
        let guess = found(class, moves).map(|(id, _)| id);
        assert_eq!(guess, Some(FindingId::SymmetricThere));
    }
}
