//! What the fuzz targets (`fuzz/`) call: they see no private module.

use std::collections::{BTreeSet, HashSet};

use futures::{executor::block_on, io::Cursor};
use libp2p::PeerId;
use p2pnode_protocol::dcutr::{MAX_ADDRESSES, MAX_MESSAGE, Message, read, write};

use super::candidates::{Local, MAX_CANDIDATES, Policy};

/// Reads the body of a message. What is read is bounded, and is read again from what is written of it.
///
/// # Panics
///
/// When that is not so.
pub fn message(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else {
        return;
    };
    if let Message::Connect(addresses) = &message {
        assert!(addresses.known.len() <= MAX_ADDRESSES);
        assert!(addresses.known.len() + addresses.skipped <= bytes.len());
    }
    let mut written = Vec::new();
    block_on(write(&mut written, &message)).expect("memory has no errors");
    assert!(written.len() <= MAX_MESSAGE + 2);
    let again = block_on(read(&mut Cursor::new(&written))).expect("what is written is a message");
    match (message, again) {
        (Message::Connect(before), Message::Connect(after)) => {
            assert_eq!(before.known, after.known);
        }
        (before, after) => assert_eq!(before, after),
    }
}

/// Reads messages from a stream until one is none.
pub fn stream(bytes: &[u8]) {
    let mut stream = Cursor::new(bytes);
    while block_on(read(&mut stream)).is_ok() {}
}

/// Judges the addresses of a message.
///
/// # Panics
///
/// When more of them may be dialed than is promised, or one that leads nowhere.
pub fn candidates(bytes: &[u8]) {
    let Ok(Message::Connect(addresses)) = Message::decode(bytes) else {
        return;
    };
    let policy = Policy::open();
    let admitted = Local::default().admit(
        &policy,
        &HashSet::new(),
        PeerId::from_multihash(Default::default()).unwrap_or_else(|_| PeerId::random()),
        &[],
        &[],
        &addresses.known,
    );
    let different: BTreeSet<String> = admitted
        .candidates
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(different.len(), admitted.candidates.len());
    assert!(admitted.candidates.len() <= MAX_CANDIDATES);
    for candidate in &admitted.candidates {
        let ip = candidate.socket.ip();
        assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified());
        assert!(candidate.socket.port() != 0);
    }
}
