//! What commands with a node of their own do before they start it.

use libp2p::identity::Keypair;
use p2pnode_daemon::{
    exit::Usage,
    identity::{self, Named},
    key_lock::KeyLock,
    logging,
};

use crate::{
    config::{Key, Log},
    core::tokens::TokenFileError,
};

/// What a command reports that needs a relay.
pub(super) const NO_RELAY: &str =
    "no relay is known: give its address with --relay, or in `relays` of the configuration";

/// An invalid file of tokens is a fault of usage, as an invalid configuration is.
pub(super) fn usage(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<TokenFileError>() {
        Ok(wrong) => Usage(wrong.to_string()).into(),
        Err(other) => other,
    }
}

pub(super) fn prepare(
    key: &Key,
    named: Named,
    log: &Log,
) -> anyhow::Result<(Keypair, Option<KeyLock>)> {
    logging::init(&log.level, log.format)?;
    Ok(match key {
        Key::File(path) => {
            let key = identity::load_or_create(path, named)?;
            (key, Some(KeyLock::take(path)?))
        }
        Key::Throwaway { .. } => (Keypair::generate_ed25519(), None),
    })
}
