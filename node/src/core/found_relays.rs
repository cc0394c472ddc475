//! Relays that are not configured: those that the record of a dialed peer names.
//!
//! Pure. Each relay is dialed for the circuits that wait for it. When they are made, the relay itself closes unused connections.

use std::collections::{BTreeMap, VecDeque};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

/// The most of them that are remembered.
const RELAYS: usize = 256;

/// The relays, and the circuits that wait for a connection to them. `W` is what is known of such a circuit.
#[derive(Debug)]
pub(crate) struct FoundRelays<W> {
    relays: BTreeMap<PeerId, Relay<W>>,
    actions: VecDeque<Dial>,
}

#[derive(Debug)]
struct Relay<W> {
    addrs: Vec<Multiaddr>,
    dial: DialState,
    waiting: Vec<W>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialState {
    Idle,
    /// It is to be dialed.
    Due,
    Dialing(ConnectionId),
}

/// A relay that is to be dialed. [`FoundRelays::handle_dialing`] takes the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    /// The relay.
    pub(crate) relay: PeerId,
    /// Where it is.
    pub(crate) addrs: Vec<Multiaddr>,
}

impl<W> Default for FoundRelays<W> {
    fn default() -> Self {
        Self {
            relays: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }
}

impl<W> FoundRelays<W> {
    /// A relay was found at these addresses. `is_connected` decides which relays to remember if there are too many.
    pub(crate) fn handle_found(
        &mut self,
        relay: PeerId,
        addrs: &[Multiaddr],
        is_connected: impl Fn(&PeerId) -> bool,
    ) {
        if self.relays.len() >= RELAYS && !self.relays.contains_key(&relay) {
            self.relays
                .retain(|peer, relay| relay.dial != DialState::Idle || is_connected(peer));
        }
        let entry = self.relays.entry(relay).or_insert(Relay {
            addrs: Vec::new(),
            dial: DialState::Idle,
            waiting: Vec::new(),
        });
        entry.addrs = addrs.iter().flat_map(by_family).collect();
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, relay: &PeerId) -> bool {
        self.relays.contains_key(relay)
    }

    /// A circuit waits for a connection to the relay, if its addresses are known.
    pub(crate) fn handle_wanted(&mut self, relay: PeerId, circuit: W) {
        let Some(known) = self.relays.get_mut(&relay) else {
            return;
        };
        known.waiting.push(circuit);
        if known.dial == DialState::Idle {
            known.dial = DialState::Due;
            let addrs = known.addrs.clone();
            self.actions.push_back(Dial { relay, addrs });
        }
    }

    /// The next relay to dial, until there is none.
    pub(crate) fn poll_action(&mut self) -> Option<Dial> {
        self.actions.pop_front()
    }

    /// The relay is being dialed.
    pub(crate) fn handle_dialing(&mut self, relay: &PeerId, connection: ConnectionId) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.dial = DialState::Dialing(connection);
        }
    }

    /// The dial of the relay is over: the circuits that have waited for it.
    pub(crate) fn handle_dialed(&mut self, relay: &PeerId, connection: ConnectionId) -> Vec<W> {
        match self.relays.get_mut(relay) {
            Some(relay) if relay.dial == DialState::Dialing(connection) => {
                relay.dial = DialState::Idle;
                std::mem::take(&mut relay.waiting)
            }
            _ => Vec::new(),
        }
    }
}

/// A name is dialed in each family by itself, so that the family of the connection is known, over which circuits are asked.
fn by_family(addr: &Multiaddr) -> Vec<Multiaddr> {
    let Some(Protocol::Dns(name)) = addr.iter().next() else {
        return vec![addr.clone()];
    };
    let hosts = [Protocol::Dns4(name.clone()), Protocol::Dns6(name.clone())];
    hosts
        .into_iter()
        .map(|host| std::iter::once(host).chain(addr.iter().skip(1)).collect())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn circuits_wait_for_one_dial_of_their_relay() {
        let (relay, id) = (PeerId::random(), ConnectionId::new_unchecked(1));
        let mut relays = FoundRelays::default();
        relays.handle_wanted(relay, 1);
        assert_eq!(relays.poll_action(), None);
        let known = [addr("/ip4/203.0.113.7/tcp/443")];
        relays.handle_found(relay, &known, |_| false);
        assert!(relays.contains(&relay));
        let dial = || {
            Some(Dial {
                relay,
                addrs: known.to_vec(),
            })
        };
        relays.handle_wanted(relay, 1);
        assert_eq!(relays.poll_action(), dial());
        relays.handle_wanted(relay, 2);
        assert_eq!(relays.poll_action(), None, "before the dial is under way");
        relays.handle_dialing(&relay, id);
        relays.handle_wanted(relay, 3);
        assert_eq!(relays.poll_action(), None);
        let other = ConnectionId::new_unchecked(2);
        assert!(relays.handle_dialed(&relay, other).is_empty());
        assert_eq!(relays.handle_dialed(&relay, id), [1, 2, 3]);
        relays.handle_wanted(relay, 4);
        assert_eq!(relays.poll_action(), dial());
    }

    #[test]
    fn a_name_is_dialed_in_either_family() {
        let relay = PeerId::random();
        let mut relays = FoundRelays::default();
        relays.handle_found(relay, &[addr("/dns/relay.example.net/tcp/443")], |_| false);
        let either = [
            addr("/dns4/relay.example.net/tcp/443"),
            addr("/dns6/relay.example.net/tcp/443"),
        ];
        relays.handle_wanted(relay, ());
        let addrs = either.to_vec();
        assert_eq!(relays.poll_action(), Some(Dial { relay, addrs }));
    }

    #[test]
    fn relays_that_are_of_no_use_any_more_make_room() {
        let (kept, mut relays) = (PeerId::random(), FoundRelays::<()>::default());
        relays.handle_found(kept, &[addr("/ip4/203.0.113.7/tcp/443")], |_| false);
        for _ in 0..3 * RELAYS {
            let some = [addr("/ip4/203.0.113.8/tcp/443")];
            relays.handle_found(PeerId::random(), &some, |peer| *peer == kept);
            assert!(relays.relays.len() <= RELAYS);
        }
        assert!(relays.contains(&kept));
    }
}
