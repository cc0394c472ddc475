//! The range of source ports that a node may send from.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// An inclusive, non-empty range of port numbers without port 0: `40000-40050`, or `40000` for a single port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    start: u16,
    end: u16,
}

impl PortRange {
    /// The range from `start` to `end`, both included.
    ///
    /// # Errors
    ///
    /// [`RangeErrorKind::Zero`] where it would contain port 0, [`RangeErrorKind::Reversed`] where `end` is below `start`.
    pub fn new(start: u16, end: u16) -> Result<Self, RangeError> {
        let fail = |kind| RangeError {
            text: format!("{start}-{end}"),
            kind,
        };
        if start == 0 || end == 0 {
            return Err(fail(RangeErrorKind::Zero));
        }
        if end < start {
            return Err(fail(RangeErrorKind::Reversed));
        }
        Ok(Self { start, end })
    }

    /// The first port.
    pub const fn start(self) -> u16 {
        self.start
    }

    /// The last port.
    pub const fn end(self) -> u16 {
        self.end
    }

    /// How many ports: at least one, at most 65535.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize + 1
    }

    /// Whether `port` lies in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.start <= port && port <= self.end
    }

    /// The part with this `index` of consecutive parts of `size` ports each, from the first port on. `None` if the part would not
    /// lie in the range as a whole, or has no ports. Parts with different indices have no port in common.
    pub fn part(self, index: usize, size: usize) -> Option<Self> {
        let first = index
            .checked_mul(size)?
            .checked_add(usize::from(self.start))?;
        let last = first.checked_add(size.checked_sub(1)?)?;
        let part = Self {
            start: u16::try_from(first).ok()?,
            end: u16::try_from(last).ok()?,
        };
        (part.end <= self.end).then_some(part)
    }

    /// Every port, ascending.
    pub const fn iter(self) -> RangeInclusive<u16> {
        self.start..=self.end
    }
}

impl fmt::Display for PortRange {
    /// Always both ends, also of a single port: what is printed says that it is a range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl FromStr for PortRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let fail = |kind| RangeError {
            text: text.to_owned(),
            kind,
        };
        let (start, end) = match text.split_once('-') {
            Some((start, end)) => (port(start).map_err(fail)?, port(end).map_err(fail)?),
            None => {
                let only = port(text).map_err(fail)?;
                (only, only)
            }
        };
        if end < start {
            return Err(fail(RangeErrorKind::Reversed));
        }
        Ok(Self { start, end })
    }
}

/// One port: digits only. `str::parse` alone would let a sign through.
fn port(text: &str) -> Result<u16, RangeErrorKind> {
    if text.is_empty() {
        return Err(RangeErrorKind::Missing);
    }
    if text.contains(char::is_whitespace) {
        return Err(RangeErrorKind::Blank);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeErrorKind::NotANumber);
    }
    match text.parse::<u16>() {
        Ok(0) => Err(RangeErrorKind::Zero),
        Ok(port) => Ok(port),
        // Nothing but digits, and not empty: the only way left to fail is to be too large.
        Err(_) => Err(RangeErrorKind::TooLarge),
    }
}

/// A text that is no [`PortRange`], and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid port range `{text}`: {kind}; give a port or first-last, as in 40000-40050", text = .text.escape_debug())]
pub struct RangeError {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub kind: RangeErrorKind,
}

/// Why a text is no [`PortRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeErrorKind {
    /// A port is missing on one side of the dash, or the text is empty.
    #[error("a port is missing")]
    Missing,
    /// There are blanks.
    #[error("it contains blanks")]
    Blank,
    /// Something else than digits and one dash: a sign, letters, a second dash.
    #[error("a port consists of digits only")]
    NotANumber,
    /// Port 0, which stands for "any port" and therefore for no range.
    #[error("port 0 cannot be sent from")]
    Zero,
    /// A port above 65535.
    #[error("a port is at most 65535")]
    TooLarge,
    /// The last port is below the first.
    #[error("the last port is below the first")]
    Reversed,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_port_is_a_range_of_one() {
        let range: PortRange = "40000".parse().unwrap();
        assert_eq!((range.start(), range.end(), range.len()), (40000, 40000, 1));
        assert_eq!(range.to_string(), "40000-40000");
    }

    #[test]
    fn each_malformed_text_is_refused_with_the_text_and_its_reason() {
        use RangeErrorKind as Kind;
        for (text, kind) in [
            ("80-79", Kind::Reversed),
            ("0", Kind::Zero),
            ("0-5", Kind::Zero),
            ("00000", Kind::Zero),
            ("65536", Kind::TooLarge),
            ("40000-99999999999999999999", Kind::TooLarge),
            ("", Kind::Missing),
            ("-", Kind::Missing),
            ("40000-", Kind::Missing),
            ("-40000", Kind::Missing),
            (" 40000", Kind::Blank),
            ("40000 - 40050", Kind::Blank),
            ("40000-40050\n", Kind::Blank),
            ("\u{a0}1", Kind::Blank),
            ("+40000", Kind::NotANumber),
            ("40000-+40050", Kind::NotANumber),
            ("40000--40050", Kind::NotANumber),
            ("4e4", Kind::NotANumber),
            ("٤٠٠٠٠", Kind::NotANumber),
        ] {
            let error = text.parse::<PortRange>().unwrap_err();
            assert_eq!(error.kind, kind, "{text:?}");
            let message = error.to_string();
            assert!(
                message.contains(&text.escape_debug().to_string()),
                "{message}"
            );
            assert!(message.contains(&kind.to_string()), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn new_refuses_what_parsing_refuses() {
        assert_eq!(
            PortRange::new(80, 79).unwrap_err().kind,
            RangeErrorKind::Reversed
        );
        assert_eq!(
            PortRange::new(0, 79).unwrap_err().kind,
            RangeErrorKind::Zero
        );
        assert_eq!(PortRange::new(1, 65535).unwrap().len(), 65535);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_give_the_same_range(a in 1..=u16::MAX, b in 1..=u16::MAX) {
            let range = PortRange::new(a.min(b), a.max(b)).unwrap();
            prop_assert_eq!(range.to_string().parse::<PortRange>().unwrap(), range);
        }

        #[test]
        fn junk_never_panics_and_is_named_in_the_error(text in ".*") {
            if let Err(error) = text.parse::<PortRange>() {
                prop_assert_eq!(error.text, text);
            }
        }

        #[test]
        fn near_misses_parse_only_as_what_they_say(text in "[-+ 0-9]{0,14}") {
            if let Ok(range) = text.parse::<PortRange>() {
                prop_assert!(range.start() >= 1 && range.start() <= range.end());
                prop_assert!(text.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
            }
        }

        #[test]
        fn parts_lie_in_the_range_one_after_the_other(
            a in 1..=u16::MAX, n in 0..200u16, size in 0..60usize, index in 0..70usize
        ) {
            let range = PortRange::new(a, a.saturating_add(n)).unwrap();
            match range.part(index, size) {
                Some(part) => {
                    prop_assert_eq!(part.len(), size);
                    prop_assert!(range.contains(part.start()) && range.contains(part.end()));
                    prop_assert_eq!(usize::from(part.start() - range.start()), index * size);
                }
                None => prop_assert!(size == 0 || (index + 1) * size > range.len()),
            }
            prop_assert_eq!(range.part(usize::MAX, size), None);
            prop_assert_eq!(range.part(index, usize::MAX), None);
        }

        #[test]
        fn contains_and_iter_agree(a in 1..=u16::MAX, n in 0..200u16, port in 0..=u16::MAX) {
            let range = PortRange::new(a, a.saturating_add(n)).unwrap();
            prop_assert_eq!(range.contains(port), range.iter().any(|p| p == port));
            prop_assert_eq!(range.iter().count(), range.len());
        }
    }
}
