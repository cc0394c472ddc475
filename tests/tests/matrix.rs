//! The main job over the whole NAT matrix, one test for each pair of NATs and transport.

use p2pnode_tests::{
    args::Transport,
    matrix::{Expected::*, run},
    nat::NatKind::*,
    nat_pairs,
};

macro_rules! tests {
    ($($name:ident: $a:ident, $b:ident => $expected:expr;)*) => {
        mod quic {
            use super::*;
            p2pnode_tests::lab_tests! { $($name: run($a, $b, &[Transport::Quic], $expected);)* }
        }
        mod tcp {
            use super::*;
            p2pnode_tests::lab_tests! { $($name: run($a, $b, &[Transport::Tcp], $expected);)* }
        }
    };
}

// A pair waits more than it computes.
p2pnode_tests::lab_tests! { threads: 6; }
nat_pairs!(tests);

mod both {
    use super::*;
    p2pnode_tests::lab_tests! {
        eim_apdf_rewrite_x_cgnat_is_direct: run(EimApdfRewrite, Cgnat, &Transport::ALL, Direct);
    }
}
