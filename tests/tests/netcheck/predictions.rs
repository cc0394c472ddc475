//! What two looks predict of a dial, against what the dial does.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use p2pnode_tests::{matrix, prelude::*};

use super::{LONG, Net, checks, look, net};

/// Pairs that are dialed otherwise.
const PAIRS: [(NatKind, NatKind); 2] = [
    (NatKind::Symmetric, NatKind::EimApdf),
    (NatKind::Symmetric, NatKind::FullCone),
];

/// The peer class of a side in a family, by the name of its NAT.
fn class(report: &Event, family: &str) -> Option<&'static str> {
    let nat = checks(report, "nat").find(|nat| nat["family"] == family)?;
    Some(match nat["kind"].as_str()? {
        "none" => "public",
        "full-cone" => "full-cone",
        "address-restricted" => "address-restricted",
        "symmetric" => "symmetric",
        _ => "eim-apdf",
    })
}

/// What both looks say about a dial.
fn predicted(a: &Event, b: &Event) -> &'static str {
    let is_direct = |of: &Event, peer: &str| {
        let direct = of.json["verdict"]["direct"].as_array();
        direct.is_some_and(|direct| direct.iter().any(|class| class == peer))
    };
    let families = ["ip4", "ip6"].into_iter();
    let mut shared = families.filter_map(|family| Some((class(a, family)?, class(b, family)?)));
    match shared.next() {
        Some((of_a, of_b)) if is_direct(a, of_b) && is_direct(b, of_a) => "direct",
        Some(_) | None => "relayed",
    }
}

pub(crate) async fn run() -> Result<()> {
    let net = net().await?;
    let mut pairs = PAIRS.to_vec();
    if env::var_os(LONG).is_some() {
        pairs = matrix::cells()
            .iter()
            .map(|cell| (cell.a, cell.b))
            .collect();
        pairs.dedup();
    }
    // A lab takes one host after another.
    let kinds: BTreeSet<NatKind> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let mut looks = Vec::new();
    for kind in kinds {
        looks.push((kind, Peer::new(&net.lab, kind.name(), kind).await?));
    }
    let mut reports = BTreeMap::new();
    for some in looks.chunks(3) {
        let report = |at: usize| report(&net, some.get(at));
        let (a, b, c) = tokio::try_join!(report(0), report(1), report(2))?;
        reports.extend([a, b, c].into_iter().flatten());
    }
    let mut sides = Vec::new();
    for (at, (a, b)) in pairs.into_iter().enumerate() {
        let [from, to] = [format!("a{at}"), format!("b{at}")];
        let caller = Peer::new(&net.lab, &from, a).await?;
        let called = Peer::new(&net.lab, &to, b).await?;
        let expected = predicted(&reports[&a], &reports[&b]);
        sides.push(Sides {
            at,
            pair: format!("{a} x {b}"),
            caller,
            called,
            expected,
        });
    }
    for some in sides.chunks(3) {
        let dial = |at: usize| dial(&net, some.get(at));
        tokio::try_join!(dial(0), dial(1), dial(2))?;
    }
    Ok(())
}

async fn report(net: &Net, side: Option<&(NatKind, Peer)>) -> Result<Option<(NatKind, Event)>> {
    let Some((kind, side)) = side else {
        return Ok(None);
    };
    let name = format!("look-{kind}");
    let (_, report) = look(&name, &side.host, &[&net.relay, &net.partner]).await?;
    Ok(Some((*kind, report)))
}

/// The two sides of a pair, and what is predicted for them.
struct Sides {
    at: usize,
    pair: String,
    caller: Peer,
    called: Peer,
    expected: &'static str,
}

/// Dials from one side to the other.
async fn dial(net: &Net, sides: Option<&Sides>) -> Result<()> {
    let Some(sides) = sides else {
        return Ok(());
    };
    let [from, to, dial] = ["a", "b", "dial"].map(|name| format!("{name}{}", sides.at));
    let (relay, over) = (&net.relay, &Transport::ALL);
    let (called, caller) = tokio::try_join!(
        relay.node(&to, &sides.called.host, over),
        relay.node(&from, &sides.caller.host, over)
    )?;
    let dial = caller.dial(&dial, &called.id).await?;
    let result = dial.is(sides.expected);
    result.map(drop).with_context(|| sides.pair.clone())
}
