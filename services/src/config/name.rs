//! Names of services, protocols of raw streams, and `SERVICE@PEER`.

use std::{fmt, str::FromStr, sync::Arc};

use p2pnode_protocol::quote;

/// The name of a service: 1 to 63 lower-case letters, digits and hyphens. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=63).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(format!(
                "{} is not a name for a service; use 1 to 63 lower-case letters, digits and hyphens",
                quote(text)
            ));
        }
        Ok(Self(text.into()))
    }
}

/// The protocol of a raw stream: `/x/NAME`, as Kubo's `ipfs p2p` has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawProtocol(Arc<str>);

impl RawProtocol {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RawProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RawProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let name = text.strip_prefix("/x/").unwrap_or_default();
        if name.is_empty() || text.len() > 127 || !name.bytes().all(plain) {
            return Err(format!(
                "{} is not a protocol of raw streams; write /x/ and a name, such as /x/web",
                quote(text)
            ));
        }
        Ok(Self(text.into()))
    }
}

/// What a forward brings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A service, over sessions.
    Service(ServiceName),
    /// A raw stream.
    Raw(RawProtocol),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => name.fmt(f),
            Self::Raw(protocol) => protocol.fmt(f),
        }
    }
}

/// `SERVICE@PEER` or `/x/NAME@PEER`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The service.
    pub what: What,
    /// A peer id or a name of `peers`, as written.
    pub peer: String,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.what, self.peer)
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((what, peer)) = text.rsplit_once('@').filter(|(_, peer)| !peer.is_empty()) else {
            return Err(format!(
                "{} names no peer; write SERVICE@PEER, such as db@west or db@12D3KooW...",
                quote(text)
            ));
        };
        let what = match what.starts_with('/') {
            true => What::Raw(what.parse()?),
            false => What::Service(what.parse()?),
        };
        Ok(Self {
            what,
            peer: peer.to_owned(),
        })
    }
}
