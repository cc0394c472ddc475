//! Transfers of which some streams have come, at a receiver.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::json;

use crate::{data::Head, tell};

/// Counts the streams of transfers, and tells of each that is whole.
pub struct Tally {
    /// Whether what comes is left unread.
    pub unread: bool,
    transfers: Mutex<HashMap<u64, Transfer>>,
}

struct Transfer {
    began: Instant,
    bytes: u64,
    ended: u32,
}

impl Tally {
    /// Without transfers.
    pub fn new(unread: bool) -> Self {
        Self {
            unread,
            transfers: Mutex::default(),
        }
    }

    /// The first bytes of a stream are there.
    pub fn began(&self, head: &Head) {
        self.count(head, |_| ());
    }

    /// All bytes of a stream are there.
    pub fn ended(&self, head: &Head) {
        let whole = self.count(head, |transfer| {
            transfer.bytes += head.bytes;
            transfer.ended += 1;
            (transfer.ended == head.streams).then(|| (transfer.bytes, transfer.began.elapsed()))
        });
        if let Some((bytes, took)) = whole {
            let mut transfers = self
                .transfers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            transfers.remove(&head.transfer);
            tell(&json!({"event": "received", "bytes": bytes, "seconds": took.as_secs_f64()}));
        }
    }

    fn count<T>(&self, head: &Head, count: impl FnOnce(&mut Transfer) -> T) -> T {
        let mut transfers = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        count(transfers.entry(head.transfer).or_insert_with(|| Transfer {
            began: Instant::now(),
            bytes: 0,
            ended: 0,
        }))
    }
}
