//! `/p2pnode/shared-key/1`: a relay reports to a node that another host uses its key.
//!
//! A node names its process in the [join request](crate::join::Request::instance). Two processes of one peer may both hold a
//! reservation and both answer pings. The relay then sends each of them a [`Notice`] with the place of the other one. The relay
//! repeats the notice while that lasts. A node forgets it after [`LASTS`], or with the connection.
//!
//! A stream carries one [`Notice`] and one [`Received`], each in a [`json`](crate::frame::json) frame.

use std::{net::SocketAddr, time::Duration};

use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};

use crate::exchange;

/// How long a notice holds: two repetitions may be lost, since a relay sends one with each ping, every 15 s.
pub const LASTS: Duration = Duration::from_secs(50);

/// The protocol, for [`exchange`].
#[derive(Debug)]
pub enum SharedKey {}

impl exchange::Protocol for SharedKey {
    const NAME: StreamProtocol = StreamProtocol::new("/p2pnode/shared-key/1");
    const MAX_MESSAGE: usize = 256;
    type Request = Notice;
    type Answer = Received;
}

/// Another host uses the key of the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Where the relay sees the other host.
    pub at: SocketAddr,
}

/// A node has read a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::frame::json::memory;

    #[test]
    fn messages_are_the_json_that_the_protocol_says() {
        let at = "198.51.100.7:40001".parse().unwrap();
        let written = memory::written(256, &Notice { at });
        assert_eq!(written, memory::frame(br#"{"at":"198.51.100.7:40001"}"#));
        assert_eq!(memory::written(256, &Received {}), memory::frame(b"{}"));
        let later = memory::frame(br#"{"at":"[2001:db8::7]:443","since_ms":7}"#);
        let read: Notice = memory::read(256, &later).unwrap();
        assert_eq!(read.at, "[2001:db8::7]:443".parse().unwrap());
    }
}
