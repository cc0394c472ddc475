//! DNS UPDATE ([RFC 2136](https://www.rfc-editor.org/rfc/rfc2136)) with TSIG ([RFC 8945](https://www.rfc-editor.org/rfc/rfc8945)), as
//! messages without sockets.
//!
//! Names are written without compression. The key is HMAC-SHA256. The function that signs is an argument, so this crate needs no
//! cryptography.

use std::net::IpAddr;

/// The longest name in bytes, and the longest label.
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// How far the clocks of both sides may differ, in seconds.
const FUDGE: u16 = 300;

/// The name of the algorithm.
const ALGORITHM: &str = "hmac-sha256";

mod class {
    pub(super) const IN: u16 = 1;
    pub(super) const NONE: u16 = 254;
    pub(super) const ANY: u16 = 255;
}

mod kind {
    pub(super) const A: u16 = 1;
    pub(super) const SOA: u16 = 6;
    pub(super) const PTR: u16 = 12;
    pub(super) const TXT: u16 = 16;
    pub(super) const AAAA: u16 = 28;
    pub(super) const SRV: u16 = 33;
    pub(super) const TSIG: u16 = 250;
}

/// UPDATE, in the field of the opcode, and the mask of the answer's code.
const UPDATE: u16 = 5 << 11;
const RESPONSE: u16 = 1 << 15;
const CODE: u16 = 0xf;
const NOT_AUTH: u16 = 9;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address, of either family.
    Address(IpAddr),
    /// A host and port.
    Service {
        /// The port.
        port: u16,
        /// The name of the host.
        host: String,
    },
    /// One text of at most 255 bytes; the rest is cut.
    Text(String),
    /// Another name.
    Pointer(String),
}

/// One change of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Add this record.
    Add {
        /// Its name.
        name: String,
        /// What it says.
        data: Data,
        /// How long others may keep it, in seconds.
        ttl: u32,
    },
    /// Delete this record.
    Delete {
        /// Its name.
        name: String,
        /// What it says.
        data: Data,
    },
    /// Delete all records of the type of `like` at this name.
    DeleteAll {
        /// The name.
        name: String,
        /// A record of the type; what it says means nothing.
        like: Data,
    },
}

/// Why there is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name that the DNS cannot hold.
    #[error("{0} is too long for the DNS")]
    Name(String),
}

/// Why an update did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The answer cannot be read, or answers something else.
    #[error("the answer is malformed")]
    Malformed,
    /// The server does not know the key, or the secret is another one.
    #[error("the server does not accept the TSIG key {0}: its name or its secret is wrong")]
    Key(String),
    /// The clocks differ by more than five minutes.
    #[error("the clock of this host and that of the server differ by more than {FUDGE} s")]
    Clock,
    /// The answer is not signed with the key.
    #[error("the answer is not signed with the TSIG key {0}")]
    Unsigned(String),
    /// Another code.
    #[error("the server refuses: {0}")]
    Code(&'static str),
}

/// The name of a key and what signs with its secret.
pub struct Key<'a> {
    /// The name, as the server knows it.
    pub name: &'a str,
    /// HMAC-SHA256 with the secret.
    pub sign: &'a (dyn Fn(&[u8]) -> [u8; 32] + Sync),
}

/// An update that was written, to which an answer may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The message.
    pub bytes: Vec<u8>,
    id: u16,
    mac: Option<[u8; 32]>,
}

impl Update {
    /// A message that changes `zone`. `unix` is the time in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Invalid`].
    pub fn new(
        id: u16,
        zone: &str,
        changes: &[Change],
        key: Option<&Key<'_>>,
        unix: u64,
    ) -> Result<Self, Invalid> {
        let count = u16::try_from(changes.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        for field in [id, UPDATE, 1, 0, count, 0] {
            bytes.extend(field.to_be_bytes());
        }
        put_name(&mut bytes, zone)?;
        put(&mut bytes, &[kind::SOA, class::IN]);
        for change in changes.iter().take(usize::from(count)) {
            put_change(&mut bytes, change)?;
        }
        let mut mac = None;
        if let Some(key) = key {
            let mut signed = bytes.clone();
            put_variables(&mut signed, key.name, unix, 0, &[])?;
            let made = (key.sign)(&signed);
            put_tsig(&mut bytes, key.name, unix, &made, id)?;
            bytes[10..12].copy_from_slice(&1u16.to_be_bytes());
            mac = Some(made);
        }
        Ok(Self { bytes, id, mac })
    }

    /// Whether `bytes` are an answer to this one, in which case it is read.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn read_answer(&self, bytes: &[u8], key: Option<&Key<'_>>) -> Result<(), Refused> {
        let field = |at: usize| u16_at(bytes, at).ok_or(Refused::Malformed);
        if field(0)? != self.id || field(2)? & RESPONSE == 0 {
            return Err(Refused::Malformed);
        }
        let code = field(2)? & CODE;
        let tsig = Tsig::find(bytes);
        if let Some(key) = key {
            let named = || key.name.to_owned();
            match tsig.as_ref().map(|tsig| tsig.error) {
                Some(16 | 17) => return Err(Refused::Key(named())),
                Some(18) => return Err(Refused::Clock),
                _ if code == NOT_AUTH => return Err(Refused::Key(named())),
                Some(_) | None => {}
            }
            let is_signed = tsig.is_some_and(|tsig| tsig.is_by(key, bytes, self.mac));
            if code == 0 && !is_signed {
                return Err(Refused::Unsigned(named()));
            }
        }
        match code {
            0 => Ok(()),
            1 => Err(Refused::Code("FORMERR: the message is malformed to it")),
            2 => Err(Refused::Code("SERVFAIL: it has a problem of its own")),
            4 => Err(Refused::Code("NOTIMP: it takes no updates")),
            5 => Err(Refused::Code(
                "REFUSED: its policy does not let this key update the zone",
            )),
            9 => Err(Refused::Code(
                "NOTAUTH: it is not the primary of the zone, or wants a key",
            )),
            10 => Err(Refused::Code("NOTZONE: a name is not in the zone")),
            _ => Err(Refused::Code("with an unusual code")),
        }
    }
}

/// The signature of an answer.
struct Tsig<'a> {
    /// Where the record begins.
    at: usize,
    unix: u64,
    mac: &'a [u8],
    id: u16,
    error: u16,
    other: &'a [u8],
}

impl<'a> Tsig<'a> {
    /// The last record, if it is one.
    fn find(bytes: &'a [u8]) -> Option<Self> {
        let counts = [4, 6, 8, 10].map(|at| u16_at(bytes, at));
        let [questions, answers, authorities, additional] = counts;
        let mut at = 12;
        for _ in 0..questions? {
            at = after_name(bytes, at)? + 4;
        }
        let records = u32::from(answers?) + u32::from(authorities?) + u32::from(additional?);
        let mut last = None;
        for _ in 0..records {
            let name = at;
            at = after_name(bytes, at)?;
            let length = usize::from(u16_at(bytes, at + 8)?);
            last = Some((name, u16_at(bytes, at)?, at + 10, length));
            at += 10 + length;
        }
        let (name, of, data, length) = last?;
        let data = bytes.get(data..data.checked_add(length)?)?;
        if of != kind::TSIG {
            return None;
        }
        let at = after_name(data, 0)?;
        let time = data.get(at..at + 6)?;
        let unix = time
            .iter()
            .fold(0, |time, byte| time << 8 | u64::from(*byte));
        let size = usize::from(u16_at(data, at + 8)?);
        let mac = data.get(at + 10..at + 10 + size)?;
        let rest = at + 10 + size;
        let other = usize::from(u16_at(data, rest + 4)?);
        Some(Self {
            at: name,
            unix,
            mac,
            id: u16_at(data, rest)?,
            error: u16_at(data, rest + 2)?,
            other: data.get(rest + 6..rest + 6 + other)?,
        })
    }

    fn is_by(&self, key: &Key<'_>, bytes: &[u8], request: Option<[u8; 32]>) -> bool {
        let Some(request) = request else {
            return false;
        };
        let mut signed = Vec::new();
        signed.extend(32u16.to_be_bytes());
        signed.extend(request);
        let message = signed.len();
        signed.extend(&bytes[..self.at]);
        signed[message..message + 2].copy_from_slice(&self.id.to_be_bytes());
        let additional = u16_at(bytes, 10).unwrap_or_default().saturating_sub(1);
        signed[message + 10..message + 12].copy_from_slice(&additional.to_be_bytes());
        let variables = put_variables(&mut signed, key.name, self.unix, self.error, self.other);
        let made = (key.sign)(&signed);
        let differs = self
            .mac
            .iter()
            .zip(made)
            .fold(0, |all, (a, b)| all | (a ^ b));
        variables.is_ok() && self.mac.len() == made.len() && differs == 0
    }
}

fn put(bytes: &mut Vec<u8>, fields: &[u16]) {
    bytes.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
}

fn put_name(bytes: &mut Vec<u8>, name: &str) -> Result<(), Invalid> {
    let too_long = || Invalid::Name(name.to_owned());
    let begin = bytes.len();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).map_err(|_| too_long())?;
        if usize::from(length) > MAX_LABEL {
            return Err(too_long());
        }
        bytes.push(length);
        bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    bytes.push(0);
    match bytes.len() - begin > MAX_NAME {
        true => Err(too_long()),
        false => Ok(()),
    }
}

fn put_change(bytes: &mut Vec<u8>, change: &Change) -> Result<(), Invalid> {
    let (name, data, of_class, ttl) = match change {
        Change::Add { name, data, ttl } => (name, data, class::IN, *ttl),
        Change::Delete { name, data } => (name, data, class::NONE, 0),
        Change::DeleteAll { name, like } => (name, like, class::ANY, 0),
    };
    put_name(bytes, name)?;
    let of = match data {
        Data::Address(IpAddr::V4(_)) => kind::A,
        Data::Address(IpAddr::V6(_)) => kind::AAAA,
        Data::Service { .. } => kind::SRV,
        Data::Text(_) => kind::TXT,
        Data::Pointer(_) => kind::PTR,
    };
    put(bytes, &[of, of_class]);
    bytes.extend(ttl.to_be_bytes());
    let mut value = Vec::new();
    if of_class != class::ANY {
        match data {
            Data::Address(IpAddr::V4(ip)) => value.extend(ip.octets()),
            Data::Address(IpAddr::V6(ip)) => value.extend(ip.octets()),
            Data::Service { port, host } => {
                put(&mut value, &[0, 0, *port]);
                put_name(&mut value, host)?;
            }
            Data::Text(text) => {
                let text = &text.as_bytes()[..text.len().min(255)];
                value.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                value.extend(text);
            }
            Data::Pointer(name) => put_name(&mut value, name)?,
        }
    }
    put(bytes, &[u16::try_from(value.len()).unwrap_or(u16::MAX)]);
    bytes.extend(value);
    Ok(())
}

/// What is signed besides the message.
fn put_variables(
    bytes: &mut Vec<u8>,
    key: &str,
    unix: u64,
    error: u16,
    other: &[u8],
) -> Result<(), Invalid> {
    put_name(bytes, key)?;
    put(bytes, &[class::ANY, 0, 0]);
    put_name(bytes, ALGORITHM)?;
    bytes.extend(&unix.to_be_bytes()[2..]);
    put(
        bytes,
        &[FUDGE, error, u16::try_from(other.len()).unwrap_or(u16::MAX)],
    );
    bytes.extend(other);
    Ok(())
}

fn put_tsig(
    bytes: &mut Vec<u8>,
    key: &str,
    unix: u64,
    mac: &[u8; 32],
    id: u16,
) -> Result<(), Invalid> {
    put_name(bytes, key)?;
    put(bytes, &[kind::TSIG, class::ANY, 0, 0]);
    let mut value = Vec::new();
    put_name(&mut value, ALGORITHM)?;
    value.extend(&unix.to_be_bytes()[2..]);
    put(&mut value, &[FUDGE, 32]);
    value.extend(mac);
    put(&mut value, &[id, 0, 0]);
    put(bytes, &[u16::try_from(value.len()).unwrap_or(u16::MAX)]);
    bytes.extend(value);
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    crate::mapping::u16_at(bytes, at)
}

/// Where what follows a name begins. A pointer ends a name.
fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            192.. => return (at + 2 <= bytes.len()).then_some(at + 2),
            64..=191 => return None,
        }
    }
}

/// Reads whatever a server sends, for the fuzz target.
///
/// # Panics
///
/// Never: the names are short.
#[doc(hidden)]
pub fn read_anything(bytes: &[u8]) {
    let sign = |_: &[u8]| [7; 32];
    let key = Key {
        name: "k",
        sign: &sign,
    };
    let update = Update::new(7, "example.net", &[], Some(&key), 0);
    let update = update.expect("the names are short");
    let _ = update.read_answer(bytes, Some(&key));
    let _ = update.read_answer(bytes, None);
}

#[cfg(test)]
mod tests;
