//! A question on a stream and its answer.

use std::time::Duration;

use libp2p::swarm::ConnectionId;
use p2pnode_protocol::{hop::HopReply, introduction::IntroductionReply, join::JoinReply};
use relay_node::core::{CircuitId, Reservation};

use super::World;
use crate::core::dialer::CircuitFailure;

/// What comes back.
pub(super) enum Answer {
    Join(JoinReply),
    Hop(HopReply),
    Introduction(IntroductionReply),
    Record(Option<Vec<u8>>),
    /// What was sent was taken, or not.
    Taken(bool),
    Reservation(Option<Reservation>),
    Circuit(Result<CircuitId, CircuitFailure>),
}

/// What is done with an answer, or without one.
type Done = Box<dyn FnOnce(&mut World, Option<Answer>)>;

/// A question that was not answered yet.
pub(super) struct Exchange {
    pub(super) over: ConnectionId,
    done: Done,
}

/// Identifies a question to the program that answers it.
#[derive(Clone, Copy)]
pub(super) struct Question {
    number: u64,
    /// The end at which it has arrived.
    pub(super) at: ConnectionId,
}

impl World {
    /// Asks over a connection. `serve` happens at its far end and answers sooner or later; `done` gets the answer, or nothing if
    /// the connection or the time ends before.
    pub(super) fn ask(
        &mut self,
        over: ConnectionId,
        patience: Duration,
        serve: impl FnOnce(&mut Self, Question) + 'static,
        done: impl FnOnce(&mut Self, Option<Answer>) + 'static,
    ) {
        let number = self.number();
        let done = Box::new(done);
        self.exchanges.insert(number, Exchange { over, done });
        if self.ends.contains_key(&over) {
            self.send(over, move |world, at| serve(world, Question { number, at }));
            self.after(patience, move |world| world.end_exchange(number, None));
        } else {
            self.after(Duration::ZERO, move |world| {
                world.end_exchange(number, None)
            });
        }
    }

    pub(super) fn answer(&mut self, question: Question, answer: Answer) {
        self.send(question.at, move |world, _| {
            world.end_exchange(question.number, Some(answer));
        });
    }

    fn end_exchange(&mut self, number: u64, answer: Option<Answer>) {
        if let Some(exchange) = self.exchanges.remove(&number) {
            (exchange.done)(self, answer);
        }
    }

    /// A connection has ended, and with it the answers that were to come over it.
    pub(super) fn end_exchanges(&mut self, over: ConnectionId) {
        let open = self.exchanges.iter();
        let open = open.filter(|(_, exchange)| exchange.over == over);
        let open: Vec<u64> = open.map(|(number, _)| *number).collect();
        for number in open {
            self.end_exchange(number, None);
        }
    }
}
