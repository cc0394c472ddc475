//! stdout: results only, one per line. Logs go to stderr.

use std::io::{self, Write};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people and for copying: `listening /ip4/...`.
    Text,
    /// One JSON object per line: `{"event":"listening","address":"/ip4/..."}`.
    Json,
}

/// The only writer to stdout.
pub(crate) struct Output<W> {
    writer: W,
    format: Format,
    local: PeerId,
}

impl<W: Write> Output<W> {
    /// Writes what concerns the relay `local`.
    pub(crate) fn new(writer: W, format: Format, local: PeerId) -> Self {
        Self {
            writer,
            format,
            local,
        }
    }

    /// The relay listens on `address`.
    pub(crate) fn listening(&mut self, address: &Multiaddr) -> io::Result<()> {
        self.address("listening", address)
    }

    /// The relay gives `address` out as its own.
    pub(crate) fn external(&mut self, address: &Multiaddr) -> io::Result<()> {
        self.address("external", address)
    }

    /// Writes `address` so that it can be given to a peer as `--relay`: with the peer id at its end.
    fn address(&mut self, event: &str, address: &Multiaddr) -> io::Result<()> {
        let address = with_peer(address, self.local);
        match self.format {
            Format::Text => writeln!(self.writer, "{event} {address}"),
            Format::Json => {
                let line = serde_json::json!({ "event": event, "address": address.to_string() });
                writeln!(self.writer, "{line}")
            }
        }?;
        // Whoever waits for the line reads from a pipe, where stdout is not flushed by line.
        self.writer.flush()
    }
}

fn with_peer(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    match address.iter().last() {
        Some(Protocol::P2p(_)) => address.clone(),
        _ => address.clone().with(Protocol::P2p(peer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn written(format: Format, address: &str) -> String {
        let mut text = Vec::new();
        let address = address.parse().expect("a multiaddr");
        Output::new(&mut text, format, RELAY.parse().expect("a peer id"))
            .listening(&address)
            .expect("written");
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn a_line_of_text_can_be_given_as_relay() {
        let line = written(Format::Text, "/ip4/203.0.113.10/udp/443/quic-v1");
        assert_eq!(
            line,
            format!("listening /ip4/203.0.113.10/udp/443/quic-v1/p2p/{RELAY}\n")
        );
    }

    #[test]
    fn json_is_one_object_per_line() {
        let line = written(Format::Json, "/ip4/203.0.113.10/tcp/443");
        assert_eq!(
            line,
            format!(
                "{{\"event\":\"listening\",\"address\":\"/ip4/203.0.113.10/tcp/443/p2p/{RELAY}\"}}\n"
            )
        );
    }

    #[test]
    fn a_peer_id_that_is_there_is_not_added_again() {
        let line = written(
            Format::Text,
            &format!("/ip4/203.0.113.10/tcp/443/p2p/{RELAY}"),
        );
        assert_eq!(line.matches("/p2p/").count(), 1);
    }
}
