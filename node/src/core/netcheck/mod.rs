//! What a look at the network means: from [`Facts`] to checks, names of NATs, a verdict and remedies. Pure.
//!
//! The swarm gathers the facts. [`assess`] turns them into a [`Report`] and claims nothing that they do not show. What one relay
//! cannot show is `unknown`, with what it would take.

mod assess;
mod facts;
mod finding;
mod host;
mod mapping;
mod mtu;
mod nat;
mod range;
mod relay;
mod remedy;
mod report;
mod verdict;

pub(crate) use self::{
    assess::assess,
    facts::{
        Answer, Facts, Fault, HostFacts, Leg, Lifetime, Nat64, PathFacts, RelayFacts, Seen, spread,
    },
    host::unreserved,
    mtu::FULL_PAYLOAD,
    nat::{Allocation, AllocationKind, Filtering, Kind, Mapping},
    report::{Check, Id, Nat, NetcheckEvent, PeerClass, Reaches, Report, Status, Verdict},
};

#[cfg(test)]
mod tests;
