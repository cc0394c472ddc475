//! A search for a pair of ports, where a NAT maps each destination to another port. Pure.
//!
//! 1. [`Searches`] decides with whom this node searches, and when: one search at a time, with rests that grow.
//! 2. A sample of the range shows how the NAT allocates ports ([`side`]).
//! 3. [`Plan`] follows from both sides, so both make the same.
//! 4. [`Search`] sends what the plan says, within a [`Budget`](budget::Budget), until a probe arrives: it names the pair.
//!
//! Decision 1000 says why.

mod aging;
mod budget;
mod fresh;
mod looks;
mod pairs;
mod plan;
mod rests;
mod search;
mod searches;
mod side;

pub(crate) use self::{
    aging::Aging,
    pairs::Hop,
    plan::{Begin, Does},
    search::{Action, Counts, Ended, Search, Socket},
    searches::{Ask, Searches, Step},
    side::Sample,
};

pub use crate::core::search_report::{
    NoSearch, PortClass, SearchClass, SearchOutcome, SearchReport,
};

#[cfg(test)]
mod tests;
