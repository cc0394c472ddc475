//! The decisions of a relay, without IO: admission, reservations, circuits, records and their copies, and its end.
//!
//! [`RelayState`] is all of it. The swarm reports what has happened with its `handle_*` methods and carries out the [`Action`]s that
//! it returns; a simulator can do the same. Time, wall clock and randomness are arguments.

mod admission;
mod circuits;
mod clock;
mod connections;
mod denial;
mod denied;
mod drain;
mod external;
mod front;
mod handshakes;
mod introductions;
mod limits;
mod memory;
mod peer_relays;
mod policy;
mod rates;
mod records;
mod replication;
mod reservations;
mod source;
mod state;
mod stun;
mod twins;
mod verdict;

pub use self::{
    admission::{Difference, Refused},
    circuits::{CircuitId, Cut, End, Traffic},
    clock::Now,
    denial::DenialReason,
    denied::Denied,
    front::Translated,
    policy::{Refusal, Route, Volume},
    rates::Request,
    state::{
        Access, AccessTotals, Action, Delivery, Event, Hop, Keep, Opened, RecordOutcome,
        RelayState, Reservation, ReservationEnd, Settings, Stored, Totals,
    },
    twins::SharedKey,
};
pub(crate) use self::{
    external::is_link_local,
    limits::LONGEST,
    stun::{Asked, Ignored, Outcome, Stun},
};
