//! Relays that are not configured: those on which a peer that is dialed says that it can be called.
//!
//! Pure. Each is dialed for the circuits that wait for it, and left alone when they are made: it closes what nobody uses.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

/// The most of them that are remembered.
const RELAYS: usize = 256;

/// The relays, and the circuits that wait for a connection to them. `W` is what is known of such a circuit.
#[derive(Debug)]
pub(crate) struct FoundRelays<W>(HashMap<PeerId, Relay<W>>);

#[derive(Debug)]
struct Relay<W> {
    addrs: Vec<Multiaddr>,
    dialing: Option<ConnectionId>,
    waiting: Vec<W>,
}

/// What a circuit over a relay that was found needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A dial of the relay at these addresses; it is told with [`FoundRelays::dialing`].
    Dial(Vec<Multiaddr>),
    /// To wait for the dial that is under way.
    Wait,
    /// An address: none is known.
    Nothing,
}

impl<W> Default for FoundRelays<W> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<W> FoundRelays<W> {
    /// A relay was found at these addresses. `is_connected` tells which relays to keep in mind if there are too many.
    pub(crate) fn found(
        &mut self,
        relay: PeerId,
        addrs: &[Multiaddr],
        is_connected: impl Fn(&PeerId) -> bool,
    ) {
        if self.0.len() >= RELAYS && !self.0.contains_key(&relay) {
            self.0
                .retain(|peer, relay| relay.dialing.is_some() || is_connected(peer));
        }
        let entry = self.0.entry(relay).or_insert(Relay {
            addrs: Vec::new(),
            dialing: None,
            waiting: Vec::new(),
        });
        entry.addrs = addrs.iter().flat_map(by_family).collect();
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, relay: &PeerId) -> bool {
        self.0.contains_key(relay)
    }

    /// A circuit waits for a connection to the relay.
    pub(crate) fn wait(&mut self, relay: &PeerId, circuit: W) -> Need {
        let Some(known) = self.0.get_mut(relay) else {
            return Need::Nothing;
        };
        known.waiting.push(circuit);
        match known.dialing {
            Some(_) => Need::Wait,
            None => Need::Dial(known.addrs.clone()),
        }
    }

    /// The relay is being dialed.
    pub(crate) fn dialing(&mut self, relay: &PeerId, connection: ConnectionId) {
        if let Some(relay) = self.0.get_mut(relay) {
            relay.dialing = Some(connection);
        }
    }

    /// The dial of the relay is over: the circuits that have waited for it.
    pub(crate) fn dialed(&mut self, relay: &PeerId, connection: ConnectionId) -> Vec<W> {
        match self.0.get_mut(relay) {
            Some(relay) if relay.dialing == Some(connection) => {
                relay.dialing = None;
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
        assert_eq!(relays.wait(&relay, 1), Need::Nothing);
        let known = [addr("/ip4/203.0.113.7/tcp/443")];
        relays.found(relay, &known, |_| false);
        assert!(relays.contains(&relay));
        assert_eq!(relays.wait(&relay, 1), Need::Dial(known.to_vec()));
        relays.dialing(&relay, id);
        assert_eq!(relays.wait(&relay, 2), Need::Wait);
        let other = ConnectionId::new_unchecked(2);
        assert!(relays.dialed(&relay, other).is_empty());
        assert_eq!(relays.dialed(&relay, id), [1, 2]);
        assert_eq!(relays.wait(&relay, 3), Need::Dial(known.to_vec()));
    }

    #[test]
    fn a_name_is_dialed_in_either_family() {
        let relay = PeerId::random();
        let mut relays = FoundRelays::default();
        relays.found(relay, &[addr("/dns/relay.example.net/tcp/443")], |_| false);
        let either = [
            addr("/dns4/relay.example.net/tcp/443"),
            addr("/dns6/relay.example.net/tcp/443"),
        ];
        assert_eq!(relays.wait(&relay, ()), Need::Dial(either.to_vec()));
    }

    #[test]
    fn relays_that_are_of_no_use_any_more_make_room() {
        let (kept, mut relays) = (PeerId::random(), FoundRelays::<()>::default());
        relays.found(kept, &[addr("/ip4/203.0.113.7/tcp/443")], |_| false);
        for _ in 0..3 * RELAYS {
            let some = [addr("/ip4/203.0.113.8/tcp/443")];
            relays.found(PeerId::random(), &some, |peer| *peer == kept);
            assert!(relays.0.len() <= RELAYS);
        }
        assert!(relays.contains(&kept));
    }
}
