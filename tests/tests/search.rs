//! Searches for a pair of ports, through NATs that map by destination.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    args::Transport,
    lab::Lab,
    nat::{NatKind, RANGE},
    search::Searched,
};

/// Ports enough that one series finds a random port in 99 of 100 searches.
const WIDE: RangeInclusive<u16> = 40000..=40255;

const DIALS: usize = 3;

p2pnode_tests::lab_tests! {
    threads: 2;
    symmetric_x_eim_apdf_is_direct: direct(NatKind::Symmetric, NatKind::EimApdf, WIDE, ["random", "stable"]);
    eim_apdf_x_symmetric_is_direct: direct(NatKind::EimApdf, NatKind::Symmetric, WIDE, ["stable", "random"]);
    block_x_eim_apdf_rewrite_is_direct: direct(NatKind::SymmetricBlock, NatKind::EimApdfRewrite, RANGE, ["block", "stable"]);
    sequential_x_eim_apdf_is_direct: direct(NatKind::SymmetricSequential, NatKind::EimApdf, RANGE, ["sequential", "stable"]);
    block_x_block_is_direct: direct(NatKind::SymmetricBlock, NatKind::SymmetricBlock, RANGE, ["block", "block"]);
    random_x_random_is_not_tried: random_is_not_tried();
    tcp_alone_is_not_searched: tcp_is_not_searched();
}

async fn direct(
    a: NatKind,
    b: NatKind,
    range: RangeInclusive<u16>,
    classes: [&str; 2],
) -> Result<()> {
    let lab = Lab::of_test().await?;
    let mut searched = Searched::start(&lab, a, b, range).await?.dial("a").await?;
    let is_missed = |searched: &Searched| {
        let mut searches = searched.result.all("search");
        searches.any(|search| search.text("/outcome") == "not_found")
    };
    // Two blocks are missed in 2 of 100 series. The next dial is another peer's, so nobody rests.
    let mut dials = 1;
    while dials < DIALS && is_missed(&searched) {
        searched = searched.peers.dial(&format!("a{dials}")).await?;
        dials += 1;
    }
    let dial = &searched.result;
    dial.is("direct")?;
    let search = dial.all("search").last().context("no search")?;
    let [here, there] = classes;
    ensure!(
        search.text("/class/here") == here && search.text("/class/there") == there,
        "{}",
        search.line
    );
    ensure!(search.text("/outcome") == "found", "{}", search.line);
    searched.verify_direct().await?;
    searched.verify_packets(dials).await?;
    Ok(())
}

async fn random_is_not_tried() -> Result<()> {
    let lab = Lab::of_test().await?;
    let searched = Searched::start(&lab, NatKind::Symmetric, NatKind::Symmetric, RANGE).await?;
    let searched = searched.dial("a").await?;
    let dial = &searched.result;
    dial.is("relayed")?;
    let search = dial.all("search").last().context("no search")?;
    ensure!(
        search.text("/outcome") == "not_tried" && search.text("/reason") == "random_both",
        "{}",
        search.line
    );
    let probes = searched.probes().await?;
    ensure!(probes == [0, 0], "{probes:?} probes");
    Ok(())
}

async fn tcp_is_not_searched() -> Result<()> {
    let lab = Lab::of_test().await?;
    let (a, b) = (NatKind::SymmetricBlock, NatKind::EimApdf);
    let searched = Searched::over(&lab, a, b, RANGE, &[Transport::Tcp]).await?;
    let searched = searched.dial("a").await?;
    searched.result.is("relayed")?;
    ensure!(searched.result.all("search").next().is_none());
    Ok(())
}
