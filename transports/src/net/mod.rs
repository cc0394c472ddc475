//! Ports, sockets and what both transports share: range, pool, claims on ports, expected punches, budgets of connections, and
//! errors.

pub(crate) mod addr;
pub(crate) mod alternatives;
pub(crate) mod arrivals;
pub(crate) mod budget;
pub(crate) mod closed;
pub(crate) mod connection;
pub(crate) mod datagrams;
pub(crate) mod error;
pub(crate) mod family;
pub(crate) mod files;
pub(crate) mod found;
pub(crate) mod holder;
pub(crate) mod identify;
pub(crate) mod interfaces;
pub(crate) mod kin;
pub(crate) mod learned;
pub(crate) mod pool;
pub(crate) mod ports;
pub(crate) mod proposals;
pub(crate) mod punches;
pub(crate) mod range;
pub(crate) mod record;
pub(crate) mod shared;
pub(crate) mod silence;
pub(crate) mod snat;
pub(crate) mod sock_diag;
pub(crate) mod socket;
pub(crate) mod stun;
pub(crate) mod stun_socket;
