//! The NAT lab: real networks of Linux namespaces, the real binaries inside them, and what the wire carried.
//!
//! A test builds a [`lab::Lab`], puts hosts behind [`nat::NatKind`]s, starts `p2pnode` and `relay-node` in them as
//! [`node::Process`]es and reads their JSON lines, while a [`capture::Capture`] in every router records each packet before
//! and after translation. [`pair::Pair`] does all of that for the main job: two peers, one NAT each, one relay.
//! [`matrix`] runs it over every pair of NATs.
//!
//! Namespaces need rights that an ordinary process gains in a user namespace of its own, which can only be entered while
//! the process has one thread. So each test binary that uses the lab says `p2pnode_tests::lab_tests!();` once, and a
//! program calls [`sandbox::enter`] as the first thing in `main`. Where that is refused, the lab names what to do.

pub mod admin;
pub mod args;
pub mod artifacts;
pub mod bins;
pub mod capture;
pub mod clock;
pub mod control;
pub mod delay;
pub mod events;
pub mod faults;
pub mod fleet;
pub mod golden;
pub mod holder;
pub mod interop;
pub mod iroh;
pub mod k8s;
pub mod lab;
pub mod matrix;
pub mod nat;
mod nft;
pub mod node;
pub mod packet;
pub mod pair;
pub mod plain;
pub mod probe;
pub mod relay;
pub mod remains;
pub mod running;
pub mod sandbox;
pub mod served;
pub mod stranger;
pub mod transfer;
pub mod usage;
mod verify;

/// Enters the sandbox of the lab before the test harness starts its threads.
///
/// To be said once, at the top of every test file that builds a [`lab::Lab`].
#[macro_export]
macro_rules! lab_tests {
    () => {
        #[used]
        #[allow(
            unsafe_code,
            reason = "a user namespace can only be entered before the harness starts threads"
        )]
        #[unsafe(link_section = ".init_array")]
        static ENTER_SANDBOX: extern "C" fn() = $crate::sandbox::enter_before_main;
    };
}
