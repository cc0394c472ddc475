//! Join tokens from end to end: the relay's command makes them, nodes present them, files revoke them.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::{
    admin::{self, ADMIN},
    args::{NodeArgs, PATIENCE, Transport, reserved},
    bins::{Bins, bins},
    control::Control,
    lab::{Host, Lab},
    node::{Process, control_socket},
    relay::Relay,
};
use tokio::process::Command;

p2pnode_tests::lab_tests!();

/// A relay that takes tokens, and a host for nodes.
struct Bench {
    relay: Relay,
    host: Host,
    revoked: PathBuf,
    bins: Bins,
    lab: Lab,
}

impl Bench {
    async fn new(name: &str) -> Result<Self> {
        let (bins, lab) = (bins()?, Lab::new(name).await?);
        let revoked = lab.artifacts().file("revoked");
        fs::write(&revoked, "")?;
        let path = revoked.to_str().context("a path")?;
        let env = [
            ("RELAY_NODE_ACCESS_TOKENS", "true"),
            ("RELAY_NODE_ACCESS_REVOKED_FILE", path),
            ("RELAY_NODE_ADMIN_LISTEN", ADMIN),
        ];
        let relay = Relay::start_with(&lab, &bins, "relay", &env).await?;
        let host = lab.public_host("host").await?;
        Ok(Self {
            relay,
            host,
            revoked,
            bins,
            lab,
        })
    }

    async fn output(&self, program: &PathBuf, args: &[&str]) -> Result<String> {
        let output = Command::new(program).args(args).output().await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{args:?}: {error}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A token of the relay for the node of that name.
    async fn token(&self, node: &str, expires: &str) -> Result<String> {
        let [relay, node] =
            ["relay", node].map(|name| self.lab.artifacts().file(&format!("{name}.key")));
        let (relay, node) = (relay.to_string_lossy(), node.to_string_lossy());
        let peer = self
            .output(&self.bins.p2pnode, &["id", "--key", &node])
            .await?;
        let args = [
            "token",
            "create",
            "--peer",
            &peer,
            "--expires",
            expires,
            "--key",
            &relay,
        ];
        self.output(&self.bins.relay_node, &args).await
    }

    /// Starts that node, with these tokens in its file.
    fn node(&self, name: &str, tokens: Option<&str>) -> Result<Process> {
        let args = NodeArgs::new(&self.relay, &self.host, &[Transport::Quic]);
        let mut launch = args.run(&self.lab, &self.bins, name);
        if let Some(tokens) = tokens {
            let file = self.lab.artifacts().file(&format!("{name}.tokens"));
            fs::write(&file, tokens)?;
            launch = launch.env("P2PNODE_JOIN_TOKEN_FILE", file);
        }
        launch.start(&self.host.device, self.lab.artifacts())
    }

    /// What `p2pnode status` of that node says of the relay: as JSON, and to people.
    async fn told(&self, node: &Process) -> Result<(serde_json::Value, String)> {
        let control = Control::new(
            &self.bins.p2pnode,
            &control_socket(self.lab.artifacts(), node.name()),
        );
        let status = control.status().await?;
        let relay = status["relays"][0].clone();
        ensure!(relay["relay"] == self.relay.id, "{status}");
        Ok((relay, control.text(&["status"]).await?))
    }

    fn revoke(&self, text: &str) -> Result<()> {
        let aside = self.revoked.with_extension("new");
        fs::write(&aside, text)?;
        Ok(fs::rename(aside, &self.revoked)?)
    }
}

#[tokio::test]
async fn a_token_admits_its_peer_until_a_file_revokes_it_and_nobody_else() -> Result<()> {
    let bench = Bench::new("join-tokens").await?;
    let token = bench.token("friend", "1h").await?;
    let stranger = bench.node("stranger", None)?;
    let refused = stranger.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason");
    for part in [
        "no token: ",
        "relay-node token create --peer",
        "join.token_file",
    ] {
        ensure!(reason.contains(part), "{part}: {reason}");
    }
    let friend = bench.node("friend", Some(&token))?;
    reserved(&friend).await?;

    // A file that is broken changes nothing; one that is right does, within moments.
    let key = bench.lab.artifacts().file("relay.key");
    let key = key.to_string_lossy();
    let shown = bench
        .output(
            &bench.bins.relay_node,
            &["token", "show", &token, "--key", &key, "--json"],
        )
        .await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    ensure!(
        shown["this_relay"] == true && shown["expired"] == false,
        "{shown}"
    );
    let id = shown["id"].as_str().context("an id")?;
    bench.revoke("nonsense\n")?;
    let held = "the old rules hold";
    bench.relay.process.logged(held, PATIENCE).await?;
    ensure!(
        friend
            .events()
            .iter()
            .all(|event| event.name() != "reservation_lost")
    );
    bench.revoke(&format!("{id}\n"))?;
    friend.event("reservation_lost", PATIENCE).await?;
    let refused = friend.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason");
    ensure!(
        reason.contains(&format!("the token {id} was revoked")),
        "{reason}"
    );
    // A new token is taken without a restart.
    let renewed = bench.token("friend", "1h").await?;
    let seen = friend.events().len();
    fs::write(bench.lab.artifacts().file("friend.tokens"), renewed)?;
    friend.event_after(seen, "reserved", PATIENCE).await?;
    let metrics = admin::metrics(&bench.relay.host).await?;
    for (outcome, count) in [("refused", 1.0), ("applied", 1.0)] {
        let reloads = metrics.sum("relay_reloads_total", &[("outcome", outcome)]);
        ensure!(reloads == count, "{outcome}: {reloads}");
    }
    for reason in ["no_token", "token_revoked"] {
        let denied = metrics.sum("relay_denied_total", &[("reason", reason)]);
        ensure!(denied >= 1.0, "{reason}: {denied}");
    }
    bench.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_token_that_expires_while_its_node_is_connected_ends_what_it_gave_and_both_say_so()
-> Result<()> {
    let bench = Bench::new("join-expires").await?;
    // Time enough to connect, on a machine that is busy with other tests.
    let token = bench.token("friend", "20s").await?;
    let friend = bench.node("friend", Some(&token))?;
    let id = reserved(&friend).await?;
    let (relay, text) = bench.told(&friend).await?;
    ensure!(
        relay["reserved"] == true && relay["refused"].is_null(),
        "{relay}"
    );
    ensure!(text.contains(" reserved "), "{text}");

    friend.event("reservation_lost", PATIENCE).await?;
    let process = &bench.relay.process;
    process
        .logged("a peer is no longer admitted", PATIENCE)
        .await?;
    process.logged("token_expired", PATIENCE).await?;
    // It comes again, and is told why not.
    let refused = friend.event("relay_refused", PATIENCE).await?;
    let reason = refused.text("/reason").to_owned();
    let create = format!("relay-node token create --peer {id}");
    for part in ["the token expired on ", &create, "friend.tokens"] {
        ensure!(reason.contains(part), "{part}: {reason}");
    }
    let (relay, text) = bench.told(&friend).await?;
    ensure!(
        relay["reserved"] == false && relay["refused"] == reason,
        "{relay}"
    );
    ensure!(text.contains(&format!(" refused     {reason}")), "{text}");
    let metrics = admin::metrics(&bench.relay.host).await?;
    let expired = metrics.sum("relay_denied_total", &[("reason", "token_expired")]);
    ensure!(expired >= 1.0, "{expired}");
    for gone in ["relay_reservations", "relay_records"] {
        ensure!(metrics.sum(gone, &[]) == 0.0, "{gone}");
    }

    // Once, however often it comes.
    let said = friend.events();
    let refusals = said.iter().filter(|event| event.name() == "relay_refused");
    ensure!(refusals.count() == 1);
    let renewed = bench.token("friend", "1h").await?;
    let seen = friend.events().len();
    fs::write(bench.lab.artifacts().file("friend.tokens"), renewed)?;
    friend.event_after(seen, "reserved", PATIENCE).await?;
    let (relay, _) = bench.told(&friend).await?;
    ensure!(relay["refused"].is_null(), "{relay}");
    bench.lab.succeeded();
    Ok(())
}

#[tokio::test]
async fn a_token_that_was_over_before_its_node_began_is_warned_of_and_refused() -> Result<()> {
    let bench = Bench::new("join-expired").await?;
    let token = bench.token("late", "1s").await?;
    // The relay's clock and the node's are the same.
    let key = bench.lab.artifacts().file("relay.key");
    let key = key.to_string_lossy();
    loop {
        let args = ["token", "show", &token, "--key", &key, "--json"];
        let shown = bench.output(&bench.bins.relay_node, &args).await?;
        if serde_json::from_str::<serde_json::Value>(&shown)?["expired"] == true {
            break;
        }
    }
    let late = bench.node("late", Some(&token))?;
    late.logged("expired on", PATIENCE).await?;
    let refused = late.event("relay_refused", PATIENCE).await?;
    ensure!(refused.text("/reason").contains("the token expired on "));
    bench.lab.succeeded();
    Ok(())
}
