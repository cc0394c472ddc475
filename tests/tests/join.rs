//! Join tokens from end to end: the relay's command makes them, nodes present them, files revoke them.

use std::{fs, path::PathBuf};

use p2pnode_tests::{
    admin::{self, ADMIN},
    node::printed,
    prelude::*,
};

lab_tests! {
    a_token_admits_its_peer_until_a_file_revokes_it_and_nobody_else: revoked();
    a_token_that_expires_while_its_node_is_connected_ends_what_it_gave_and_both_say_so: expires();
    a_token_that_had_expired_before_its_node_began_is_warned_of_and_refused: expired();
}

struct Bench {
    relay: Relay,
    host: Host,
    revoked: PathBuf,
    lab: Lab,
}

impl Bench {
    async fn new() -> Result<Self> {
        let lab = Lab::of_test().await?;
        let revoked = lab.artifacts().file("revoked");
        fs::write(&revoked, "")?;
        let env = [
            ("RELAY_NODE_ACCESS_TOKENS", "true"),
            (
                "RELAY_NODE_ACCESS_REVOKED_FILE",
                revoked.to_str().context("a path")?,
            ),
            ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
        ];
        Ok(Self {
            relay: Relay::start_with(&lab, "relay", &env).await?,
            host: lab.public_host("host").await?,
            revoked,
            lab,
        })
    }

    fn key(&self, name: &str) -> String {
        let key = self.lab.artifacts().file(&format!("{name}.key"));
        key.to_string_lossy().into_owned()
    }

    async fn token(&self, node: &str, expires: &str) -> Result<String> {
        let (bins, relay, node) = (bins()?, self.key("relay"), self.key(node));
        let peer = printed(&self.host, &bins.p2pnode, &["id", "--key", &node]).await?;
        let create = ["token", "create", "--peer", &peer, "--key", &relay];
        let args = [&create[..], &["--expires", expires]].concat();
        printed(&self.host, &bins.relay_node, &args).await
    }

    async fn shown(&self, token: &str) -> Result<Value> {
        let key = self.key("relay");
        let args = ["token", "show", token, "--key", &key, "--json"];
        let shown = printed(&self.host, &bins()?.relay_node, &args).await?;
        Ok(serde_json::from_str(&shown)?)
    }

    fn give(&self, name: &str, tokens: &str) -> Result<PathBuf> {
        let file = self.lab.artifacts().file(&format!("{name}.tokens"));
        fs::write(&file, tokens)?;
        Ok(file)
    }

    async fn node(&self, name: &str, tokens: Option<&str>) -> Result<Node> {
        let launch = self.relay.run(name, &self.host, &[Transport::Quic])?;
        let launch = match tokens {
            Some(tokens) => launch.env("P2PNODE_JOIN_TOKEN_FILE", self.give(name, tokens)?),
            None => launch,
        };
        launch.runs(&self.host).await
    }

    /// Gives the node of that name a new token, which it takes without a restart.
    async fn renews(&self, node: &Node) -> Result<()> {
        let seen = node.seen();
        let name = node.process.name();
        self.give(name, &self.token(name, "1h").await?)?;
        node.process.event_after(seen, "reserved", PATIENCE).await?;
        Ok(())
    }

    async fn told(&self, node: &Node) -> Result<(Value, String)> {
        let status = node.control.status().await?;
        events::has(&status, &json!({"relays": [{"relay": self.relay.id}]}))?;
        Ok((
            status["relays"][0].clone(),
            node.control.text(&["status"]).await?,
        ))
    }

    fn revoke(&self, text: &str) -> Result<()> {
        let aside = self.revoked.with_extension("new");
        fs::write(&aside, text)?;
        Ok(fs::rename(aside, &self.revoked)?)
    }
}

async fn refused(node: &Node, parts: &[&str]) -> Result<String> {
    let refused = node.process.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason");
    for part in parts {
        ensure!(reason.contains(part), "{part}: {reason}");
    }
    Ok(reason.to_owned())
}

async fn revoked() -> Result<()> {
    let bench = Bench::new().await?;
    let token = bench.token("friend", "1h").await?;
    let stranger = bench.node("stranger", None).await?;
    let create = "relay-node token create --peer";
    refused(&stranger, &["no token: ", create, "join.token_file"]).await?;
    let friend = bench.node("friend", Some(&token)).await?;
    reserved(&friend.process).await?;

    // A file that is broken changes nothing; one that is right does, within moments.
    let shown = bench.shown(&token).await?;
    events::has(&shown, &json!({"this_relay": true, "expired": false}))?;
    let id = shown["id"].as_str().context("an id")?;
    bench.revoke("nonsense\n")?;
    bench
        .relay
        .process
        .logged("the old rules hold", PATIENCE)
        .await?;
    let events = friend.process.events();
    ensure!(
        !events
            .iter()
            .any(|event| event.name() == "reservation_lost")
    );
    bench.revoke(&format!("{id}\n"))?;
    friend.process.event("reservation_lost", PATIENCE).await?;
    refused(&friend, &[&format!("the token {id} was revoked")]).await?;
    bench.renews(&friend).await?;
    let metrics = admin::metrics(&bench.relay.host).await?;
    for outcome in ["refused", "applied"] {
        metrics.is("relay_reloads_total", &[("outcome", outcome)], 1.0)?;
    }
    for reason in ["no_token", "token_revoked"] {
        let denied = metrics.sum("relay_denied_total", &[("reason", reason)]);
        ensure!(denied >= 1.0, "{reason}: {denied}");
    }
    Ok(())
}

async fn expires() -> Result<()> {
    let bench = Bench::new().await?;
    // Time enough to connect, on a machine that is busy with other tests.
    let token = bench.token("friend", "20s").await?;
    let friend = bench.node("friend", Some(&token)).await?;
    reserved(&friend.process).await?;
    let (relay, text) = bench.told(&friend).await?;
    events::has(&relay, &json!({"reserved": true, "refused": null}))?;
    ensure!(text.contains(" reserved "), "{text}");

    friend.process.event("reservation_lost", PATIENCE).await?;
    let process = &bench.relay.process;
    process
        .logged("a peer is no longer admitted", PATIENCE)
        .await?;
    process.logged("token_expired", PATIENCE).await?;
    // It comes again, and the relay answers why not.
    let create = format!("relay-node token create --peer {}", friend.id);
    let reason = refused(
        &friend,
        &["the token expired on ", &create, "friend.tokens"],
    )
    .await?;
    let (relay, text) = bench.told(&friend).await?;
    events::has(&relay, &json!({"reserved": false, "refused": reason}))?;
    ensure!(text.contains(&format!(" refused     {reason}")), "{text}");
    let metrics = admin::metrics(&bench.relay.host).await?;
    let expired = metrics.sum("relay_denied_total", &[("reason", "token_expired")]);
    ensure!(expired >= 1.0, "{expired}");
    metrics.is("relay_reservations", &[], 0.0)?;
    metrics.is("relay_records", &[], 0.0)?;

    // Once, however often it comes.
    let events = friend.process.events();
    let refusals = events
        .iter()
        .filter(|event| event.name() == "relay_refused");
    ensure!(refusals.count() == 1, "{events:?}");
    bench.renews(&friend).await?;
    let (relay, _) = bench.told(&friend).await?;
    ensure!(relay["refused"].is_null(), "{relay}");
    Ok(())
}

async fn expired() -> Result<()> {
    let bench = Bench::new().await?;
    let token = bench.token("late", "1s").await?;
    // The relay's clock and the node's are the same.
    while bench.shown(&token).await?["expired"] != true {}
    let late = bench.node("late", Some(&token)).await?;
    late.process.logged("expired on", PATIENCE).await?;
    refused(&late, &["the token expired on "]).await?;
    Ok(())
}
