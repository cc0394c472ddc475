//! `/readyz` of real nodes: it tells the truth, and its body says what is missing.

use p2pnode_tests::{
    admin::{self, ADMIN, ADMIN_LISTEN},
    holder::hold,
    prelude::*,
    schema,
};

lab_tests! {
    a_node_is_ready_as_long_as_it_can_be_reached_and_says_what_is_missing: reachable();
    a_node_without_a_port_for_its_sockets_is_not_ready_before_it_has_one: without_a_port();
}

async fn start() -> Result<(Lab, Relay, Site, Host)> {
    let lab = Lab::of_test().await?;
    let relay = Relay::start(&lab, "relay").await?;
    let (site, host) = lab.home("a", NatKind::EimApdf).await?;
    Ok((lab, relay, site, host))
}

async fn is_ready(host: &Host) -> Result<()> {
    let body = admin::readiness(host, 200).await?;
    ensure!(body == "ready\n", "{body:?}");
    Ok(())
}

async fn reachable() -> Result<()> {
    let (_lab, mut relay, _site, host) = start().await?;
    let node = relay
        .run("a", &host, &[Transport::Quic])?
        .env(ADMIN_LISTEN, ADMIN);
    let _node = node.reserves(&host).await?;
    is_ready(&host).await?;
    has_a_page(&host).await?;

    relay.process.kill().await?;
    let missing = admin::readiness(&host, 503).await?;
    let reservation = "not ready\nreservation: held on none of 1 relay(s)";
    ensure!(
        missing.starts_with(reservation) && missing.lines().count() == 2,
        "{missing:?}"
    );
    let read = admin::metrics(&host).await?;
    read.is("p2pnode_reservations", &[("relay", "0")], 0.0)?;
    let live = admin::get(&host, "/livez").await?;
    ensure!(live.status == 200, "{live:?}");

    relay.restart().await?;
    is_ready(&host).await
}

/// The page on `/`, and what it reads: the objects that `status --sessions --json` and `netcheck --json` print.
async fn has_a_page(host: &Host) -> Result<()> {
    let page = admin::get(host, "/").await?;
    let is_page = page.head.contains("text/html") && page.body.contains("fetched(\"status.json\")");
    ensure!(page.status == 200 && is_page, "{page:?}");
    for (path, schema) in [("/status.json", "status"), ("/netcheck.json", "netcheck")] {
        let answer = admin::get(host, path).await?;
        schema::validate(schema, &serde_json::from_str(&answer.body)?)?;
        ensure!(
            page.body.contains(&path[1..]),
            "the page does not read {path}"
        );
    }
    let control = admin::get(host, "/v1/status").await?;
    ensure!(
        control.status == 404,
        "the control socket's requests are not here: {control:?}"
    );
    Ok(())
}

async fn without_a_port() -> Result<()> {
    let (_lab, relay, _site, host) = start().await?;
    let held = hold(&host, RANGE)?;
    let node = relay
        .run("a", &host, &[Transport::Quic])?
        .env(ADMIN_LISTEN, ADMIN);
    let node = node.runs(&host).await?;
    let warned = "WARN p2pnode::swarm::node: punch sockets: port range";
    node.process.logged(warned, PATIENCE).await?;
    // Its first dial has failed.
    node.process.event("relay_unreachable", PATIENCE).await?;
    let missing = admin::readiness(&host, 503).await?;
    let lines: Vec<_> = missing.lines().collect();
    ensure!(
        lines.len() == 3
            && lines[1].starts_with("punch sockets: port range 40000-40050 exhausted: udp ")
            && lines[2].starts_with("reservation: "),
        "{missing:?}"
    );
    let read = admin::metrics(&host).await?;
    let exhausted = [
        ("transport", "quic"),
        ("family", "ip4"),
        ("outcome", "exhausted"),
    ];
    ensure!(
        read.sum("p2pnode_dials_total", &exhausted) >= 1.0,
        "{read:?}"
    );
    drop(held);
    is_ready(&host).await
}
