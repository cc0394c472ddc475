//! Kinds of values: how a text becomes a value, and the error if it does not.

use std::{
    fmt,
    net::SocketAddr,
    num::{IntErrorKind, ParseIntError},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use libp2p::PeerId;

use crate::logging;
use p2pnode_protocol::addr;
use p2pnode_protocol::quote;

/// How values of one type are parsed and printed.
///
/// The error of `parse` is one line with the value, what is wrong, and the remedy.
#[derive(Debug)]
pub struct Kind<T: 'static> {
    /// A valid value in words, such as "a duration such as 30s, 5m or 2h".
    pub expects: &'static str,
    /// The form in the file and in the schema.
    pub form: Form,
    /// Parses a value.
    pub parse: fn(&str) -> Result<T, String>,
    /// Prints a value so that `parse` accepts it.
    pub print: fn(&T) -> String,
}

/// The form of a value in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// The greatest allowed number.
        max: u64,
    },
    /// A text.
    Text,
    /// A text that may look like a number, such as the range `40000`.
    TextOrInteger,
    /// One of these texts.
    Choice(&'static [&'static str]),
}

/// `true` or `false`.
pub const BOOL: Kind<bool> = Kind {
    expects: "true or false",
    form: Form::Bool,
    parse: |text| {
        text.parse()
            .map_err(|_| format!("{} is neither true nor false", quote(text)))
    },
    print: bool::to_string,
};

/// A whole number from 0.
pub const COUNT: Kind<usize> = Kind {
    expects: "a whole number",
    form: Form::Integer {
        max: u32::MAX as u64,
    },
    parse: |text| count(text).map(|count| count as usize),
    print: usize::to_string,
};

/// A whole number of at most 32 bits, where 0 means that there is no limit.
pub const LIMIT: Kind<u32> = Kind {
    expects: "a whole number, 0 for no limit",
    form: Form::Integer {
        max: u32::MAX as u64,
    },
    parse: count,
    print: u32::to_string,
};

/// A duration with its unit, greater than zero.
pub const DURATION: Kind<Duration> = Kind {
    expects: "a duration such as 500ms, 30s, 5m or 2h",
    form: Form::Text,
    parse: |text| match duration(text)? {
        Duration::ZERO => Err(format!("{} is zero; {DURATION_HINT}", quote(text))),
        duration => Ok(duration),
    },
    print: |duration| humantime::format_duration(*duration).to_string(),
};

/// A duration where 0 means that there is no limit.
pub const DURATION_LIMIT: Kind<Duration> = Kind {
    expects: "a duration such as 30s, 5m or 2h, or 0 for no limit",
    form: Form::TextOrInteger,
    parse: |text| match text {
        "0" => Ok(Duration::ZERO),
        _ => duration(text),
    },
    print: |duration| match *duration {
        Duration::ZERO => "0".to_owned(),
        duration => humantime::format_duration(duration).to_string(),
    },
};

/// A number of bytes where 0 means that there is no limit.
pub const BYTES_LIMIT: Kind<u64> = Kind {
    expects: "a size such as 512KiB, 64MiB or 1GiB, or 0 for no limit",
    form: Form::TextOrInteger,
    parse: bytes,
    print: |bytes| print_bytes(*bytes),
};

/// A path of the file system.
pub const PATH: Kind<PathBuf> = Kind {
    expects: "a path",
    form: Form::Text,
    parse: |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(format!("{} is not a path; give a file's path", quote(text)));
        }
        Ok(PathBuf::from(text))
    },
    print: |path| path.display().to_string(),
};

/// The most bytes of the path of a Unix socket: `sockaddr_un` holds 108, with a zero byte at the end.
pub const MAX_SOCKET_PATH: usize = 107;

/// The path of a Unix socket.
pub const SOCKET_PATH: Kind<PathBuf> = Kind {
    expects: "the path of a Unix socket, of at most 107 bytes",
    form: Form::Text,
    parse: |text| {
        if text.len() > MAX_SOCKET_PATH {
            let length = text.len();
            return Err(format!(
                "{} has {length} bytes, and the path of a socket at most {MAX_SOCKET_PATH}; give a shorter one",
                quote(text)
            ));
        }
        (PATH.parse)(text)
    },
    print: PATH.print,
};

/// An IP address and a port.
pub const SOCKET_ADDR: Kind<SocketAddr> = Kind {
    expects: "an address such as 127.0.0.1:9464 or [::1]:9464",
    form: Form::Text,
    parse: |text| {
        text.parse().map_err(|_| {
            format!(
                "{} is not an IP address with a port; write 127.0.0.1:9464 or [::1]:9464",
                quote(text)
            )
        })
    },
    print: SocketAddr::to_string,
};

/// A name of a host, as the `Host` of an HTTP request names it.
pub const HOST_NAME: Kind<String> = Kind {
    expects: "a host name such as metrics.example.net, without a port",
    form: Form::Text,
    parse: |text| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(is_of_name) {
            return Err(format!(
                "{} is not a host name; write it without a scheme, a port or a wildcard: metrics.example.net",
                quote(text)
            ));
        }
        Ok(name.to_ascii_lowercase())
    },
    print: String::clone,
};

/// A peer id, in base58 or as a CID.
pub const PEER_ID: Kind<PeerId> = Kind {
    expects: "a peer id such as 12D3KooW...",
    form: Form::Text,
    parse: |text| addr::peer_id(text).map_err(|error| error.to_string()),
    print: PeerId::to_string,
};

/// An address to listen on.
pub const LISTEN_ADDR: Kind<addr::Endpoint> = Kind {
    expects: "a listen address such as /ip4/0.0.0.0/udp/4001/quic-v1 or /ip6/::/tcp/4001",
    form: Form::Text,
    parse: |text| addr::listen(text).map_err(|error| error.to_string()),
    print: addr::Endpoint::to_string,
};

/// An address to dial, with or without `/p2p/<id>`.
pub const DIAL_ADDR: Kind<addr::Endpoint> = Kind {
    expects: "an address such as /ip4/203.0.113.10/udp/4001/quic-v1 or /dns/peer.example.net/tcp/4001",
    form: Form::Text,
    parse: |text| addr::dialable(text).map_err(|error| error.to_string()),
    print: addr::Endpoint::to_string,
};

/// A log filter: a level, or a level for each target.
pub const LOG_FILTER: Kind<logging::Filter> = Kind {
    expects: "a level (error, warn, info, debug, trace, off) or a filter such as info,quinn=debug",
    form: Form::Text,
    parse: |text| {
        text.parse()
            .map_err(|error: logging::Error| error.to_string())
    },
    print: logging::Filter::to_string,
};

/// The format of log lines.
pub const LOG_FORMAT: Kind<logging::Format> = Kind {
    expects: "text or json",
    form: Form::Choice(logging::Format::NAMES),
    parse: |text| {
        text.parse()
            .map_err(|error: logging::Error| error.to_string())
    },
    print: logging::Format::to_string,
};

/// Parses with the `FromStr` of `T`, whose error should contain the value and the remedy.
///
/// # Errors
/// The text of the error of `T`.
pub fn from_str<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The choice named `text` of `choices`.
///
/// # Errors
/// If there is none; the error lists all choices.
pub fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices
        .iter()
        .find_map(|(name, choice)| (*name == text).then_some(*choice))
        .ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            format!("{} is none of {}", quote(text), names.join(", "))
        })
}

const DURATION_HINT: &str = "write a number and a unit: 500ms, 30s, 5m or 2h";

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|error: ParseIntError| {
        if *error.kind() == IntErrorKind::PosOverflow {
            format!("{} is too large; give at most {}", quote(text), u32::MAX)
        } else {
            format!("{} is not a whole number; give one from 0", quote(text))
        }
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    // The relay protocol counts seconds in 32 bits, and no timer here needs more.
    const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);
    // The parser accepts "0" without a unit.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} has no unit; {DURATION_HINT}", quote(text)));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err(format!(
            "{} is too long; give at most {}s",
            quote(text),
            u32::MAX
        )),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!(
            "{} is not a duration; {DURATION_HINT}",
            quote(text)
        )),
    }
}

/// Units by size, greatest first, so that printing finds the greatest that divides. Kubernetes writes them without the B.
const BINARY_UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const DECIMAL_UNITS: [(&str, u64); 6] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = |why: &str| format!("{} {why}; write 512KiB, 64MiB or 1GiB", quote(text));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(wrong("is not a size"));
    }
    let unit = unit.trim_start_matches(' ');
    let factor = if unit.is_empty() {
        1
    } else {
        BINARY_UNITS
            .iter()
            .chain(&DECIMAL_UNITS)
            .find_map(|(name, factor)| {
                let of_kubernetes = name.strip_suffix("iB").zip(unit.strip_suffix('i'));
                let is_same = *name == unit || of_kubernetes.is_some_and(|(a, b)| a == b);
                is_same.then_some(*factor)
            })
            .ok_or_else(|| wrong("has an unknown unit"))?
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| wrong("is too large"))
}

fn print_bytes(bytes: u64) -> String {
    for (name, factor) in BINARY_UNITS {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{name}", bytes / factor);
        }
    }
    bytes.to_string()
}
