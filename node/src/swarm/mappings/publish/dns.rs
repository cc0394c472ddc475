//! Records in a zone: where a mapping is reached (A, AAAA), under which port (SRV), what it is (TXT), and how to find it (PTR).
//!
//! For a mapping NAME over TCP of this node, which has the label ID, `ID.ZONE` has the address. `ID._NAME._tcp.ZONE` has the port
//! and a text, `_NAME._tcp.ZONE` has a PTR and a SRV of each node ([RFC 6763](https://www.rfc-editor.org/rfc/rfc6763)).

use std::{fs, time::Duration};

use aws_lc_rs::hmac;
use p2pnode_protocol::{
    Family,
    dns_update::{Change as Record, Data, Key, Update},
};
use p2pnode_transports::Handle;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::Dns,
    core::mappings::{Change, Entry, Publication},
};

/// How long others may keep a record: what is published has to follow within 30 s.
const TTL: u32 = 15;

/// How long the server has to answer, and after which time it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Zone {
    config: Dns,
    sockets: Handle,
    /// The label of this node.
    label: String,
}

impl Zone {
    pub(super) fn new(config: Dns, sockets: Handle, label: &str) -> Self {
        Self {
            config,
            sockets,
            label: label.to_owned(),
        }
    }

    pub(super) async fn publish(&self, publication: &Publication) -> Result<(), String> {
        let secret = match &self.config.tsig {
            Some((name, file)) => {
                let text = fs::read_to_string(file)
                    .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
                let secret = secret(&text).ok_or_else(|| {
                    format!("{} holds no base64 and no key of BIND", file.display())
                })?;
                Some((name.clone(), hmac::Key::new(hmac::HMAC_SHA256, &secret)))
            }
            None => None,
        };
        let sign = |bytes: &[u8]| {
            let mut made = [0; 32];
            if let Some((_, key)) = &secret {
                made.copy_from_slice(hmac::sign(key, bytes).as_ref());
            }
            made
        };
        let key = secret.as_ref().map(|(name, _)| Key { name, sign: &sign });
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let unix = unix.map_or(0, |since| since.as_secs());
        let records = self.records(publication);
        let update = Update::new(
            fastrand::u16(..),
            &self.config.zone,
            &records,
            key.as_ref(),
            unix,
        );
        let update = update.map_err(|error| error.to_string())?;
        let answer = self.exchange(&update.bytes).await?;
        let server = self.config.server;
        let done = update.read_answer(&answer, key.as_ref());
        done.map_err(|refused| format!("{server}: {refused}"))
    }

    /// Sends it from a port of the range until an answer comes.
    async fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let server = self.config.server;
        let failed = |error: &dyn std::fmt::Display| format!("{server}: {error}");
        let socket = self.sockets.claim_udp(Family::from(server.ip()));
        let socket = socket.map_err(|error| failed(&error))?;
        let socket = socket.socket();
        socket
            .connect(server)
            .await
            .map_err(|error| failed(&error))?;
        let end = Instant::now() + ANSWER;
        let mut buffer = vec![0; 4096];
        while Instant::now() < end {
            socket.send(bytes).await.map_err(|error| failed(&error))?;
            let wait = end.min(Instant::now() + AGAIN);
            match timeout_at(wait, socket.recv(&mut buffer)).await {
                Ok(Ok(length)) => return Ok(buffer[..length].to_vec()),
                Ok(Err(error)) => return Err(failed(&error)),
                Err(_) => {}
            }
        }
        Err(format!("{server}: no answer within 5 s"))
    }

    fn records(&self, publication: &Publication) -> Vec<Record> {
        let zone = &self.config.zone;
        let host = format!("{}.{zone}", self.label);
        let mut records = Vec::new();
        let public = |entry: &Entry| Data::Address(entry.public.ip());
        // The address of the node is one for all its mappings of a family.
        let all = publication.changes.iter();
        let any = |change: &'_ Change| change.any().cloned();
        for like in all.filter_map(any) {
            let (name, like) = (host.clone(), public(&like));
            records.push(Record::DeleteAll { name, like });
        }
        for data in publication.entries.iter().map(public) {
            let (name, ttl) = (host.clone(), TTL);
            records.push(Record::Add { name, data, ttl });
        }
        for change in &publication.changes {
            self.change(change, &host, &mut records);
        }
        records
    }

    fn change(&self, change: &Change, host: &str, records: &mut Vec<Record>) {
        let Some(any) = change.any() else {
            return;
        };
        let protocol = any.protocol.name().to_lowercase();
        let service = format!("_{}._{protocol}.{}", any.name, self.config.zone);
        let instance = format!("{}.{service}", self.label);
        let at = |entry: &Entry| Data::Service {
            port: entry.public.port(),
            host: host.to_owned(),
        };
        let text = Data::Text(format!("name={}", any.name));
        for like in [at(any), text.clone()] {
            let name = instance.clone();
            records.push(Record::DeleteAll { name, like });
        }
        for before in change.before.iter().chain(&change.doubt) {
            let name = service.clone();
            let data = at(before);
            records.push(Record::Delete { name, data });
        }
        let pointer = Data::Pointer(instance.clone());
        let Some(now) = &change.now else {
            let (name, data) = (service, pointer);
            records.push(Record::Delete { name, data });
            return;
        };
        let added = [
            (&instance, at(now)),
            (&instance, text),
            (&service, at(now)),
            (&service, pointer),
        ];
        records.extend(added.map(|(name, data)| Record::Add {
            name: name.clone(),
            data,
            ttl: TTL,
        }));
    }
}

/// The secret in a file: base64 alone, or a key as BIND writes it.
fn secret(text: &str) -> Option<Vec<u8>> {
    let quoted = text.split_once("secret").map(|(_, rest)| {
        let mut parts = rest.split('"');
        parts.nth(1).unwrap_or_default()
    });
    let text = quoted.unwrap_or(text).trim();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let (mut held, mut bytes) = (0, Vec::new());
    for digit in text.trim_end_matches('=').bytes() {
        let value = digits.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_base64_or_as_a_key_of_bind() {
        assert_eq!(secret("cDJwbm9kZQ==\n").unwrap(), b"p2pnode");
        let key = "key \"k\" {\n  algorithm hmac-sha256;\n  secret \"cDJwbm9kZQ==\";\n};\n";
        assert_eq!(secret(key).unwrap(), b"p2pnode");
        for wrong in ["", "\n", "not base64!", "key { secret ; }"] {
            assert_eq!(secret(wrong), None, "{wrong}");
        }
    }
}
