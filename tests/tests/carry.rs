//! Bytes on a session arrive whole, whatever happens to paths, nodes and relays. `cargo xtask test carry` does the same with 1 GiB and
//! with the times of the default configuration.

use std::time::Duration;

use p2pnode_tests::{carry, prelude::*};

lab_tests! {
    eim_apdf_x_eim_apdf_rewrite_carries_over_every_change_of_path: changes(NatKind::EimApdf, NatKind::EimApdfRewrite, false);
    range_firewall_x_range_firewall_carries_over_every_change_of_path: changes(NatKind::RangeFirewall, NatKind::RangeFirewall, false);
    symmetric_x_full_cone_carries_over_every_change_of_path: changes(NatKind::Symmetric, NatKind::FullCone, false);
    symmetric_x_symmetric_carries_while_it_stays_relayed: changes(NatKind::Symmetric, NatKind::Symmetric, true);
    a_node_that_stands_still_keeps_its_sessions: stopped(Transport::Quic);
    over_tcp_a_node_that_stands_still_keeps_its_sessions: stopped(Transport::Tcp);
    a_network_that_is_gone_for_less_than_the_linger_resets_nothing_and_for_more_resets_both_sides: network_gone(Transport::Quic);
    over_direct_tcp_a_network_that_is_gone_for_more_than_the_linger_resets_both_sides: network_gone(Transport::Tcp);
    a_calling_node_that_was_killed_is_a_reset_after_the_linger: caller_killed(Transport::Tcp, 4, false);
    a_calling_node_that_was_killed_and_is_back_is_a_reset_at_once: caller_killed(Transport::Quic, 300, true);
    a_serving_node_that_was_killed_and_stays_away_is_a_reset_after_the_linger: server_killed();
    a_relay_that_was_killed_is_not_noticed_on_a_direct_path: relay_killed();
}

/// 16 MiB each way.
async fn changes(a: NatKind, b: NatKind, stays_relayed: bool) -> Result<()> {
    let (bytes, pace) = (16 << 20, Duration::from_millis(8));
    carry::changes(Lab::of_test().await?, [a, b], bytes, pace, stays_relayed).await?;
    Ok(())
}

async fn stopped(over: Transport) -> Result<()> {
    let (linger, stop) = (Duration::from_secs(60), Duration::from_secs(5));
    carry::stopped(Lab::of_test().await?, over, linger, stop).await
}

async fn network_gone(over: Transport) -> Result<()> {
    let [linger, less, more] = [8, 5, 8].map(Duration::from_secs);
    carry::network_gone(Lab::of_test().await?, over, linger, [less, more]).await
}

async fn caller_killed(over: Transport, linger: u64, is_back: bool) -> Result<()> {
    let (lab, linger) = (Lab::of_test().await?, Duration::from_secs(linger));
    carry::caller_killed(lab, over, linger, is_back).await
}

async fn server_killed() -> Result<()> {
    carry::server_killed(Lab::of_test().await?, Duration::from_secs(4)).await
}

async fn relay_killed() -> Result<()> {
    carry::relay_killed(Lab::of_test().await?).await
}
