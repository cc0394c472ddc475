//! The NAT lab: real networks of Linux namespaces, the real binaries inside them, and what the wire carried.
//!
//! A test builds a [`lab::Lab`], puts hosts behind [`nat::NatKind`]s, starts `p2pnode` and `relay-node` in them as
//! [`node::Process`]es and reads their JSON lines, while a [`capture::Capture`] in every router records each packet before
//! and after translation. [`pair::Pair`] does all of that for the main job: two peers, one NAT each, one relay.
//! [`matrix`] runs it over every pair of NATs.
//!
//! Namespaces need rights that an ordinary process gains in a user namespace of its own, which can only be entered while
//! the process has one thread. So each test file names its tests in [`lab_tests!`], and a program calls [`sandbox::enter`] as the first thing in `main`. Where that is refused, the lab names what to do.

pub mod admin;
pub mod aging;
pub mod args;
pub mod artifacts;
pub mod bins;
pub mod capture;
pub mod carry;
pub mod clock;
mod command;
pub mod control;
pub mod delay;
pub mod events;
pub mod faults;
pub mod fleet;
pub mod flood;
pub mod golang;
pub mod golden;
pub mod holder;
pub mod home;
pub mod host;
pub mod interop;
pub mod iroh;
pub mod k8s;
pub mod lab;
pub mod matrix;
pub mod nat;
pub mod nat64;
pub mod node;
pub mod packet;
pub mod pair;
pub mod peer;
pub mod plain;
pub mod probe;
pub mod relay;
mod routable;
pub mod router;
pub mod running;
pub mod sandbox;
pub mod schema;
pub mod search;
pub mod served;
pub mod services;
pub mod soak;
pub mod stranger;
pub mod terminal;
pub mod transfer;
mod transport;
pub mod usage;
pub mod verify;

pub mod prelude {
    pub use anyhow::{Context as _, Result, ensure};
    pub use serde_json::{Value, json};

    pub use crate::{
        args::{NodeArgs, PATIENCE, Transport, reserved},
        bins::bins,
        control,
        events::{self, Event},
        host::Host,
        lab::{Lab, Site},
        lab_tests,
        nat::{NatKind, RANGE},
        node::{self, Dial, Launch, Process},
        pair::{Pair, Peers},
        peer::Peer,
        relay::Relay,
        running::{Both, Node, Prepared, Running},
    };
}

/// Declares the tests of a file, each as a name and a future, and enters the sandbox before the test harness starts threads.
///
/// With `threads: N;` before the tests, N tests for each processor run at a time instead of one. A file without tests of its own
/// invokes the macro without arguments.
#[macro_export]
macro_rules! lab_tests {
    (threads: $threads:literal; $($tests:tt)*) => {
        $crate::lab_tests! { @sandbox $threads }
        $crate::lab_tests! { @tests $($tests)* }
    };
    (@sandbox $threads:literal) => {
        const _: () = {
            #[used]
            #[allow(
                unsafe_code,
                reason = "a user namespace can only be entered before the harness starts threads"
            )]
            #[unsafe(link_section = ".init_array")]
            static ENTER_SANDBOX: extern "C" fn() =
                $crate::sandbox::enter_before_main::<$threads>;
        };
    };
    (@tests $($name:ident: $body:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                $crate::artifacts::test(concat!(module_path!(), "::", stringify!($name)), $body).await
            }
        )*
    };
    ($($tests:tt)*) => {
        $crate::lab_tests! { threads: 0; $($tests)* }
    };
}
