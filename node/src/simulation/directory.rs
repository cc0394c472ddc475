//! What a node asks of the directory, and what it registers there.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::directory::Registration;

use super::{World, exchange::Answer};
use crate::core::state::QueryId;

/// How long a lookup or a registration takes at the most.
const DIRECTORY: Duration = Duration::from_secs(10);

impl World {
    /// Asks all connected relays, and ends when all have answered.
    pub(super) fn look_up(&mut self, host: usize, query: QueryId, of: PeerId) {
        let node = self.hosts[host].node().unwrap();
        let relays: Vec<PeerId> = node.state.relays().relays().collect();
        let legs = relays
            .iter()
            .filter_map(|relay| self.ends_of(host, Some(*relay)).first().copied());
        let legs: Vec<ConnectionId> = legs.collect();
        self.look_up_at(host, query, of, legs);
    }

    fn look_up_at(&mut self, host: usize, query: QueryId, of: PeerId, mut legs: Vec<ConnectionId>) {
        let Some(leg) = legs.pop() else {
            return self.after(Duration::ZERO, move |world| {
                let now = world.network.now;
                if let Some(node) = world.hosts[host].node() {
                    node.state.handle_lookup_ended(query, now);
                }
            });
        };
        self.ask(
            leg,
            DIRECTORY,
            move |world, question| world.serve_lookup(question, of),
            move |world, answer| {
                let now = world.network.now;
                if let Some(Answer::Record(Some(value))) = answer
                    && let Some(node) = world.hosts[host].node()
                {
                    let registration = Registration::read(&of.to_bytes(), &value).unwrap();
                    node.state.handle_record(query, &registration, now);
                }
                world.look_up_at(host, query, of, legs);
            },
        );
    }

    pub(super) fn register(
        &mut self,
        host: usize,
        query: QueryId,
        relay: PeerId,
        addrs: &[Multiaddr],
    ) {
        let wall = self.network.wall();
        let leg = self.ends_of(host, Some(relay)).first().copied();
        self.note(host, &format!("registers {} addresses", addrs.len()));
        let seq = self.hosts[host].node().unwrap().state.next_seq(wall);
        let value = Registration::sign(&self.hosts[host].keypair, seq, addrs).unwrap();
        let done = move |world: &mut Self, answer: Option<Answer>| {
            let (now, arrived) = (
                world.network.now,
                matches!(answer, Some(Answer::Taken(true))),
            );
            if let Some(node) = world.hosts[host].node() {
                node.state.handle_registered(query, arrived, now);
            }
        };
        match leg {
            Some(leg) => self.ask(
                leg,
                DIRECTORY,
                move |world, question| world.serve_registration(question, value),
                done,
            ),
            None => self.after(Duration::ZERO, move |world| done(world, None)),
        }
    }
}
