//! Unmodified libp2p at the far side, as the peer that is dialed and as the one that dials.
//!
//! A punch needs one of the two dials to get through. Plain libp2p advertises the port that it listens on in the place of
//! the one that was observed (libp2p-identify 0.48, `emit_new_external_addr_candidate_event`), so behind a NAT that
//! rewrites ports its address is wrong, and what we send there reaches nobody. Its own dial to our address still gets in
//! where our NAT lets in every port of an IP that we have sent to. Nothing on our side can do more: the right port
//! is known only to the relay, and to the plain peer, which does not report it.

use p2pnode_tests::{
    args::Transport::{Quic, Tcp},
    interop::{Dialer, run},
    nat::NatKind::{self, *},
};

macro_rules! tests {
    ($module:ident, $transport:ident, $dialer:ident:
        $($name:ident: $ours:path, $plain:path => $expected:literal;)*) => {
        mod $module {
            use super::*;
            p2pnode_tests::lab_tests! {
                $($name: run($ours, $plain, $transport, Dialer::$dialer, $expected);)*
            }
        }
    };
}

macro_rules! pairs {
    ($($module:ident: $transport:ident, $dialer:ident;)*) => { $(tests! { $module, $transport, $dialer:
        // Ports are preserved at the plain peer: it gets direct as our own would.
        eim_apdf_x_plain_eim_apdf_is_direct: EimApdf, EimApdf => "direct";
        eim_apdf_rewrite_x_plain_eim_apdf_is_direct: EimApdfRewrite, EimApdf => "direct";
        eim_apdf_x_plain_full_cone_is_direct: EimApdf, FullCone => "direct";
        eim_apdf_rewrite_x_plain_public_is_direct: EimApdfRewrite, NatKind::None => "direct";
        symmetric_x_plain_full_cone_is_direct: Symmetric, FullCone => "direct";
        symmetric_x_plain_address_restricted_is_direct: Symmetric, AddressRestricted => "direct";
        symmetric_x_plain_public_is_direct: Symmetric, NatKind::None => "direct";
        // They are not, but our NAT is open enough for its dial.
        full_cone_x_plain_eim_apdf_rewrite_is_direct: FullCone, EimApdfRewrite => "direct";
        address_restricted_x_plain_eim_apdf_rewrite_is_direct: AddressRestricted, EimApdfRewrite => "direct";
        full_cone_x_plain_symmetric_is_direct: FullCone, Symmetric => "direct";
        // Its address is wrong, and our NAT admits only what we have sent to.
        eim_apdf_x_plain_eim_apdf_rewrite_stays_relayed: EimApdf, EimApdfRewrite => "relayed";
        // As between our own.
        symmetric_x_plain_eim_apdf_stays_relayed: Symmetric, EimApdf => "relayed";
    })* };
}

p2pnode_tests::lab_tests! { threads: 2; }
pairs! {
    quic_ours_dials: Quic, Ours;
    quic_plain_dials: Quic, Plain;
    tcp_ours_dials: Tcp, Ours;
    tcp_plain_dials: Tcp, Plain;
}
