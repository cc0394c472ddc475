//! What the operator does before anything is applied: makes keys and tokens, names the relay, renders.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pnode_tests::k8s::{self, documents};
use serde_json::Value;

use super::bench::{Bench, rendered};

/// What stands in the shipped files for the address and the id of a relay.
const EXAMPLE_HOST: &str = "/dns/relay.example.net/";
const EXAMPLE_ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

pub(super) struct RelayKey {
    ip: IpAddr,
    pub(super) id: String,
    key: PathBuf,
    pub(super) secret: Value,
}

pub(super) struct Identities {
    /// Peer ids, by ordinal.
    pub(super) ids: Vec<String>,
    pub(super) secret: Value,
}

impl Bench {
    pub(super) fn relay_key(&self, ip: IpAddr, directory: &Path) -> Result<RelayKey> {
        let key = directory.join("relay.key");
        let relay_node = || {
            let mut command = Command::new(&self.bins.relay_node);
            command.args(["id", "--key"]).arg(&key);
            command
        };
        let id = printed(&mut relay_node())?;
        let secret = one(&printed(
            relay_node().args(["--secret", "relay-node-identity"]),
        )?)?;
        Ok(RelayKey {
            ip,
            id,
            key,
            secret,
        })
    }

    pub(super) fn identities(&self, pods: &[&str]) -> Result<Identities> {
        let mut command = Command::new(&self.bins.p2pnode);
        command.args(["id", "--secret", "p2pnode-identity"]);
        for pod in pods {
            command.args(["--pod", pod]);
        }
        let secret = one(&printed(&mut command)?)?;
        let ids = pods.iter().map(|pod| {
            let told = &secret["metadata"]["annotations"][format!("{pod}.key.p2pnode/peer-id")];
            let told = told.as_str().map(str::to_owned);
            told.with_context(|| format!("no id of {pod}: {}", secret["metadata"]))
        });
        Ok(Identities {
            ids: ids.collect::<Result<_>>()?,
            secret,
        })
    }

    /// Tokens of the relay for these peers, as the Secret that `kubectl create secret` makes of their file.
    pub(super) fn join_secret(
        &self,
        relay: &RelayKey,
        peers: &[String],
        directory: &Path,
    ) -> Result<Value> {
        let file = directory.join("tokens");
        let mut tokens = String::new();
        for peer in peers {
            let mut create = Command::new(&self.bins.relay_node);
            create.args(["token", "create", "--expires", "1h", "--peer", peer]);
            create.arg("--key");
            tokens += &format!("# {peer}\n{}\n", printed(create.arg(&relay.key))?);
        }
        fs::write(&file, tokens)?;
        let mut create = self.tools.command("kubectl");
        create.args(["create", "secret", "generic", "p2pnode-join"]);
        create.args(["--dry-run=client", "--output=json", "--from-file"]);
        one(&printed(create.arg(&file))?)
    }

    pub(super) fn relay_chart(&self, relay: &RelayKey, set: &[&str]) -> Result<Vec<Value>> {
        let host = format!("externalHost={}", relay.ip);
        let set = [&[host.as_str()], set].concat();
        self.helm("relay-node", &set)
    }

    pub(super) fn node_chart(&self, relay: &RelayKey, set: &[&str]) -> Result<Vec<Value>> {
        let relays = format!("relays={{{}}}", relay.addresses().join(","));
        let set = [&[relays.as_str()], set].concat();
        self.helm("p2pnode", &set)
    }

    /// A kustomization with the relay's address in `file`, where the shipped one has an example.
    pub(super) fn kustomized(
        &self,
        relay: &RelayKey,
        overlay: &str,
        components: &[&str],
        file: &str,
    ) -> Result<Vec<Value>> {
        let root = tempfile::tempdir().context("no directory for a kustomization")?;
        let mut copy = Command::new("cp");
        printed(
            copy.arg("-r")
                .arg(k8s::folder().join("kustomize"))
                .arg(root.path()),
        )?;
        let file = root.path().join("kustomize").join(file);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        ensure!(
            text.contains(EXAMPLE_HOST),
            "{}: no {EXAMPLE_HOST}",
            file.display()
        );
        let text = text
            .replace(EXAMPLE_HOST, &format!("/ip4/{}/", relay.ip))
            .replace(EXAMPLE_ID, &relay.id);
        fs::write(&file, text)?;
        let top = root.path().join("top");
        fs::create_dir(&top)?;
        let components: Vec<_> = components
            .iter()
            .map(|one| format!("../kustomize/{one}"))
            .collect();
        let components = components.join(", ");
        let text = format!("resources: [../kustomize/{overlay}]\ncomponents: [{components}]\n");
        fs::write(top.join("kustomization.yaml"), text)?;
        rendered(self.tools.command("kubectl").arg("kustomize").arg(&top))?.context("kustomize")
    }
}

impl RelayKey {
    /// As `relay-node run` prints them under `external`.
    pub(super) fn addresses(&self) -> [String; 2] {
        let Self { ip, id, .. } = self;
        [
            format!("/ip4/{ip}/udp/443/quic-v1/p2p/{id}"),
            format!("/ip4/{ip}/tcp/443/p2p/{id}"),
        ]
    }
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn one(text: &str) -> Result<Value> {
    let [manifest] = <[Value; 1]>::try_from(documents(text)?)
        .map_err(|all| anyhow::anyhow!("{} manifests instead of one", all.len()))?;
    Ok(manifest)
}
