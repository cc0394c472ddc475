//! Which addresses are dialed in a round, derived alike on both sides.

use p2pnode_transports::Transport;

use crate::punch::address::Candidate;

/// The order in which transports are tried, whatever a node's own preference: both sides must agree.
const ORDER: [Transport; 2] = [Transport::Quic, Transport::Tcp];

/// What this side dials, given what each side listed.
///
/// The first transport that both listed in one family, with all addresses of that transport. If they have none in common, or with
/// `everything`, this side dials all that it received. Then each side's dial may still reach an address that needs no punch.
pub(super) fn choose(
    sent: &[Candidate],
    received: &[Candidate],
    everything: bool,
) -> Vec<Candidate> {
    match common(sent, received).next() {
        Some(transport) if !everything => received
            .iter()
            .filter(|c| c.transport == transport)
            .copied()
            .collect(),
        _ => received.to_vec(),
    }
}

/// The transports that both sides listed in one family, best first.
pub(super) fn common(
    sent: &[Candidate],
    received: &[Candidate],
) -> impl Iterator<Item = Transport> {
    ORDER.into_iter().filter(move |transport| {
        let over = |c: &&Candidate| c.transport == *transport;
        sent.iter().filter(over).any(|s| {
            received
                .iter()
                .filter(over)
                .any(|r| r.family() == s.family())
        })
    })
}

/// Whether a list has more than one transport.
pub(super) fn is_mixed(candidates: &[Candidate]) -> bool {
    candidates
        .iter()
        .any(|c| c.transport != candidates[0].transport)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list() -> impl Strategy<Value = Vec<Candidate>> {
        let one =
            (any::<bool>(), any::<bool>(), 1..u16::MAX).prop_map(|(quic, v6, port)| Candidate {
                transport: if quic {
                    Transport::Quic
                } else {
                    Transport::Tcp
                },
                socket: if v6 {
                    ([0x2001, 0, 0, 0, 0, 0, 0, 1], port).into()
                } else {
                    ([1, 2, 3, 4], port).into()
                },
            });
        prop::collection::vec(one, 0..8)
    }

    proptest! {
        #[test]
        fn both_sides_choose_the_same_transport(ours in list(), theirs in list(), everything in any::<bool>()) {
            let transports = |chosen: &[Candidate]| {
                let mut transports: Vec<Transport> = chosen.iter().map(|c| c.transport).collect();
                transports.sort();
                transports.dedup();
                transports
            };
            if common(&ours, &theirs).next().is_some() && !everything {
                prop_assert_eq!(transports(&choose(&ours, &theirs, false)), transports(&choose(&theirs, &ours, false)));
            } else {
                prop_assert_eq!(choose(&ours, &theirs, everything), theirs);
            }
        }
    }
}
