//! `id`: the peer id of a key, or the key as a Secret for a Kubernetes cluster.

use std::fmt::Write as _;

use clap::Args;
use libp2p::{PeerId, identity::Keypair};
use multibase::Base;

use crate::exit::Usage;

/// The entry of a Secret without pods: the name of the key file.
const ENTRY: &str = "identity.key";

/// Arguments of `id`.
#[derive(Debug, Clone, Args)]
pub struct IdArgs {
    /// Key file
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// Print a Kubernetes Secret of this name with the key instead, for `kubectl create -f -`; its annotations hold the peer id. The
    /// output is as secret as the key
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    pub secret: Option<String>,
    /// Pod of a StatefulSet that gets the key, under POD.key; repeatable. Without --key each pod gets a new key, which exists only in
    /// the output. Without --pod the key is under identity.key
    #[arg(long, value_name = "POD", value_parser = object_name, requires = "secret")]
    pub pod: Vec<String>,
}

impl IdArgs {
    /// The output. `load` returns the key of the key file, and creates it if there is none.
    ///
    /// # Errors
    /// If the arguments give one key to several pods, if `load` fails, or if a key cannot be encoded.
    pub fn answer(&self, load: impl FnOnce() -> anyhow::Result<Keypair>) -> anyhow::Result<String> {
        let Some(secret) = &self.secret else {
            return Ok(format!("{}\n", load()?.public().to_peer_id()));
        };
        let keys = match (self.pod.as_slice(), &self.key) {
            ([], _) => vec![(ENTRY.to_owned(), load()?)],
            ([pod], Some(_)) => vec![(format!("{pod}.key"), load()?)],
            (pods, Some(key)) => {
                return Err(Usage(format!(
                    "--key {key} is one key, and --pod names {} pods; give each its own, or leave --key out for new ones",
                    pods.len()
                ))
                .into());
            }
            (pods, None) => {
                let mut sorted = pods.to_vec();
                sorted.sort();
                if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(
                        Usage(format!("--pod {} is given twice; give it once", twice[0])).into(),
                    );
                }
                let new = |pod: &String| (format!("{pod}.key"), Keypair::generate_ed25519());
                pods.iter().map(new).collect()
            }
        };
        manifest(secret, &keys)
    }
}

/// The Secret as YAML. [`object_name`] ensures that its names need no escapes.
fn manifest(name: &str, keys: &[(String, Keypair)]) -> anyhow::Result<String> {
    let ids: Vec<(&str, PeerId)> = keys
        .iter()
        .map(|(entry, key)| (entry.as_str(), key.public().to_peer_id()))
        .collect();
    let mut yaml =
        format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{name}\"\n  annotations:\n");
    for (entry, id) in ids {
        // At most 63 characters may follow the slash, and an entry may be longer.
        writeln!(yaml, "    \"{entry}.p2pnode/peer-id\": {id}")?;
    }
    yaml += "type: Opaque\ndata:\n";
    for (entry, key) in keys {
        let bytes = key.to_protobuf_encoding()?;
        writeln!(yaml, "  \"{entry}\": {}", Base::Base64Pad.encode(bytes))?;
    }
    Ok(yaml)
}

/// Pods and Secrets have names of hosts (RFC 1123). Entries and annotations contain them, which leaves 200 characters.
fn object_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 200 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 200 lower-case letters, digits, hyphens and dots, with a letter or a digit at both ends".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde_json::Value;

    use super::*;

    fn args(secret: Option<&str>, pods: &[&str], key: Option<&str>) -> IdArgs {
        IdArgs {
            key: key.map(str::to_owned),
            secret: secret.map(str::to_owned),
            pod: pods.iter().map(|pod| (*pod).to_owned()).collect(),
        }
    }

    fn read(yaml: &str) -> Value {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn key_of(secret: &Value, entry: &str) -> Keypair {
        let text = secret["data"][entry].as_str().unwrap();
        let bytes = Base::Base64Pad.decode(text).unwrap();
        Keypair::from_protobuf_encoding(&bytes).unwrap()
    }

    #[test]
    fn a_secret_holds_the_key_and_its_id() {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id().to_string();
        for (pods, given, entry) in [
            (&[][..], None, "identity.key"),
            (&["p2pnode-0"], Some("a.key"), "p2pnode-0.key"),
        ] {
            let asked = args(Some("p2pnode-identity"), pods, given);
            let yaml = asked.answer(|| Ok(key.clone())).unwrap();
            let secret = read(&yaml);
            assert_eq!(secret["kind"], "Secret");
            assert_eq!(secret["metadata"]["name"], "p2pnode-identity");
            assert_eq!(key_of(&secret, entry).public(), key.public());
            let annotated = &secret["metadata"]["annotations"][format!("{entry}.p2pnode/peer-id")];
            assert_eq!(*annotated, id.as_str(), "{yaml}");
            assert_eq!(secret["data"].as_object().unwrap().len(), 1);
        }
        let plain = args(None, &[], None).answer(|| Ok(key)).unwrap();
        assert_eq!(plain, format!("{id}\n"));
    }

    #[test]
    fn each_pod_gets_a_key_of_its_own_and_no_file_is_read() {
        let asked = args(Some("s"), &["p2pnode-0", "p2pnode-1"], None);
        let yaml = asked.answer(|| anyhow::bail!("a file is read")).unwrap();
        let secret = read(&yaml);
        let keys = ["p2pnode-0.key", "p2pnode-1.key"].map(|entry| key_of(&secret, entry).public());
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn one_key_for_several_pods_and_a_pod_twice_are_refused() {
        for (pods, key, part) in [
            (["a-0", "a-1"], Some("f"), "--key f is one key"),
            (["a-0", "a-0"], None, "--pod a-0 is given twice"),
        ] {
            let asked = args(Some("s"), &pods, key);
            let error = asked
                .answer(|| Ok(Keypair::generate_ed25519()))
                .unwrap_err();
            assert!(error.is::<Usage>());
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn names_are_those_that_kubernetes_accepts() {
        for name in ["a", "p2pnode-identity", "a.b-c.9", &"a".repeat(200)] {
            assert!(object_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a\n",
            "ä",
            &"a".repeat(201),
        ] {
            assert!(object_name(name).is_err(), "{name:?}");
        }
    }
}
