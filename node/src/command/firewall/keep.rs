//! `p2pnode firewall --format nft-snat --keep`: holds the rule in the kernel until SIGTERM, and takes it back.

use std::{io, time::Duration};

use anyhow::Context as _;
use p2pnode_transports::{Family, KeptPorts, KeptRule};

/// How often the rule is looked at. Only a kernel before 5.12 lets others remove it.
const LOOK: Duration = Duration::from_secs(2);

/// Keeps the rule until `ended`.
///
/// # Errors
///
/// If the rule of no family can be written at the start.
pub(crate) async fn keep(kept: &KeptPorts, ended: impl Future<Output = ()>) -> anyhow::Result<()> {
    let families = [Family::Ip4, Family::Ip6].into_iter();
    let families = families.filter(|family| kept.is_for(*family));
    let mut held: Vec<_> = families.map(|family| Kept::new(kept, family)).collect();
    for rule in &mut held {
        rule.look();
    }
    if held
        .iter()
        .all(|rule| rule.error.as_ref().is_some_and(is_final))
    {
        let error = held.swap_remove(0).error;
        return Err(error.unwrap_or_else(|| io::ErrorKind::Other.into())).context(
            "cannot write source NAT rules. Run it with CAP_NET_ADMIN, in the network of the node",
        );
    }
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => return Ok(()),
            () = tokio::time::sleep(LOOK) => held.iter_mut().for_each(Kept::look),
        }
    }
}

/// Another process that owns the rule ends some time.
fn is_final(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::ResourceBusy
}

struct Kept<'a> {
    ports: &'a KeptPorts,
    family: Family,
    rule: Option<KeptRule>,
    /// Of the last look, so that each is logged once.
    error: Option<io::Error>,
}

impl<'a> Kept<'a> {
    const fn new(ports: &'a KeptPorts, family: Family) -> Self {
        Self {
            ports,
            family,
            rule: None,
            error: None,
        }
    }

    /// Writes the rule if it is not there.
    fn look(&mut self) {
        let was_there = self.rule.is_some();
        let done = match self.rule.as_ref().map(KeptRule::is_intact) {
            Some(Ok(true)) => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(false)) | None => self.ports.install(self.family).map(Some),
        };
        match done {
            Ok(None) => self.error = None,
            Ok(Some(rule)) => {
                self.rule = Some(rule);
                self.error = None;
                self.written(was_there);
            }
            Err(error) => {
                if self.error.as_ref().map(io::Error::kind) != Some(error.kind()) {
                    tracing::warn!(family = %self.family, %error, "the source NAT rule cannot be written; trying again");
                }
                self.error = Some(error);
            }
        }
    }

    fn written(&self, is_again: bool) {
        let flows = self.ports.end_translated_flows(self.family);
        if let Err(error) = &flows {
            tracing::warn!(family = %self.family, %error, "flows that were translated before keep their ports until they end");
        }
        let (range, ended) = (self.ports.range, flows.unwrap_or_default());
        if is_again {
            tracing::warn!(family = %self.family, %range, flows = ended, "the source NAT rule was removed, and is there again");
        } else {
            tracing::info!(family = %self.family, %range, flows = ended, "pods keep the range");
        }
    }
}
