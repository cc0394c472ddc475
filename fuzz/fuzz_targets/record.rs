//! A record of the directory, under any key: the first byte is the length of the key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pnode_protocol::directory::Registration;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    if let Ok(record) = Registration::read(key, value) {
        assert_eq!(record.peer.to_bytes(), key);
        let found = record.found();
        assert!(found.relays.iter().all(|via| via.relay != record.peer));
    }
});
