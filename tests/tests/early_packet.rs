//! Routers that take or answer a punch that comes before their own host has opened the way for it.

use p2pnode_tests::{
    args::Transport,
    matrix::{Expected::Direct, run},
    nat::NatKind::{Accepts, EimApdf, EimApdfRewrite, Rejects},
};

p2pnode_tests::lab_tests! {
    threads: 2;
    quic_to_a_router_that_accepts: run(EimApdf, Accepts, &[Transport::Quic], Direct);
    quic_from_a_router_that_accepts: run(Accepts, EimApdfRewrite, &[Transport::Quic], Direct);
    quic_between_routers_that_accept: run(Accepts, Accepts, &[Transport::Quic], Direct);
    tcp_to_a_router_that_accepts: run(EimApdf, Accepts, &[Transport::Tcp], Direct);
    tcp_from_a_router_that_accepts: run(Accepts, EimApdfRewrite, &[Transport::Tcp], Direct);
    tcp_between_routers_that_accept: run(Accepts, Accepts, &[Transport::Tcp], Direct);
    both_between_routers_that_accept: run(Accepts, Accepts, &Transport::ALL, Direct);
    quic_between_routers_that_reject: run(Rejects, Rejects, &[Transport::Quic], Direct);
    tcp_between_routers_that_reject: run(Rejects, Rejects, &[Transport::Tcp], Direct);
}
