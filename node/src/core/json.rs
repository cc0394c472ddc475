//! The JSON forms of values: modules for `#[serde(with = "..")]`. A type of another crate becomes its text. A time becomes a
//! number, in the unit that the key names. One process writes these forms, and another reads them.

use std::{
    convert::Infallible,
    fmt::Display,
    str::FromStr,
    time::{Duration, TryFromFloatSecsError},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IntoDeserializer as _},
};

/// What stands for a value that is not known.
const UNKNOWN: &str = "unknown";

fn parse<T: FromStr<Err: Display>, E: serde::de::Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(E::custom)
}

/// The text of a value.
pub(crate) mod text {
    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<T, D::Error> {
        parse(&String::deserialize(d)?)
    }
}

/// The text of a value, or `null`.
pub(crate) mod text_or_null {
    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => s.collect_str(value),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(d)?
            .map(|text| parse(&text))
            .transpose()
    }
}

/// A value, or `unknown`.
pub(crate) mod or_unknown {
    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(s),
            None => s.serialize_str(UNKNOWN),
        }
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(d)?;
        (text != UNKNOWN)
            .then(|| T::deserialize(text.into_deserializer()))
            .transpose()
    }
}

/// An object whose keys are `transport/family`.
pub(crate) mod by_socket_kind {
    use std::collections::BTreeMap;

    use p2pnode_transports::{Family, Transport};

    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        ports: &BTreeMap<(Transport, Family), u16>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let name = |(transport, family): &(Transport, Family)| format!("{transport}/{family}");
        s.collect_map(ports.iter().map(|(key, port)| (name(key), port)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<(Transport, Family), u16>, D::Error> {
        let ports = BTreeMap::<String, u16>::deserialize(d)?;
        let port = |(key, port): (String, u16)| {
            let (transport, family) = key
                .split_once('/')
                .ok_or_else(|| D::Error::custom("a key without a slash"))?;
            let transport = Transport::deserialize(transport.into_deserializer())?;
            Ok((
                (transport, Family::deserialize(family.into_deserializer())?),
                port,
            ))
        };
        ports.into_iter().map(port).collect()
    }
}

/// A module for a time, and one for a time or `null`.
macro_rules! time {
    ($unit:literal, $name:ident, $or_null:ident, $number:ty, $to:expr, $of:expr) => {
        #[doc = $unit]
        pub(crate) mod $name {
            use super::*;

            pub(crate) fn serialize<S: Serializer>(
                value: &Duration,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                Serialize::serialize(&$to(*value), s)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<Duration, D::Error> {
                $of(<$number>::deserialize(d)?).map_err(D::Error::custom)
            }
        }

        #[doc = concat!($unit, " Or `null`.")]
        pub(crate) mod $or_null {
            use super::*;

            pub(crate) fn serialize<S: Serializer>(
                value: &Option<Duration>,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                Serialize::serialize(&value.map($to), s)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<Option<Duration>, D::Error> {
                let number = Option::<$number>::deserialize(d)?;
                number.map($of).transpose().map_err(D::Error::custom)
            }
        }
    };
}

time!(
    "Whole milliseconds.",
    millis,
    millis_or_null,
    u64,
    to_whole_millis,
    of_whole_millis
);
time!(
    "Milliseconds with one decimal.",
    fine_millis,
    fine_millis_or_null,
    f64,
    to_millis,
    of_millis
);
time!(
    "Whole seconds.",
    seconds,
    seconds_or_null,
    u64,
    to_seconds,
    of_seconds
);

/// Milliseconds, rounded to one decimal: no clock here is finer.
pub(crate) fn to_millis(value: Duration) -> f64 {
    (value.as_secs_f64() * 10_000.0).round() / 10.0
}

fn of_millis(millis: f64) -> Result<Duration, TryFromFloatSecsError> {
    Duration::try_from_secs_f64(millis / 1000.0)
}

fn to_whole_millis(value: Duration) -> u64 {
    u64::try_from(value.as_millis()).unwrap_or(u64::MAX)
}

fn of_whole_millis(millis: u64) -> Result<Duration, Infallible> {
    Ok(Duration::from_millis(millis))
}

fn to_seconds(value: Duration) -> u64 {
    value.as_secs()
}

fn of_seconds(seconds: u64) -> Result<Duration, Infallible> {
    Ok(Duration::from_secs(seconds))
}
