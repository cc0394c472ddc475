//! The congestion control of QUIC.

use std::{fmt, str::FromStr};

p2pnode_protocol::named! {
    /// The congestion control of QUIC connections. TCP's is the kernel's.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub enum Congestion {
        /// CUBIC ([RFC 9438](https://www.rfc-editor.org/rfc/rfc9438)): slows down when packets are lost.
        #[default]
        Cubic => "cubic",
        /// BBR, the first version ([draft](https://datatracker.ietf.org/doc/html/draft-cardwell-iccrg-bbr-congestion-control-00)):
        /// measures bandwidth and round trips. So it does not slow down on a path that loses packets for other reasons than
        /// congestion. quinn calls its implementation experimental.
        Bbr => "bbr",
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Congestion {
    type Err = CongestionError;

    fn from_str(text: &str) -> Result<Self, CongestionError> {
        Self::ALL
            .into_iter()
            .find(|congestion| congestion.as_str() == text)
            .ok_or_else(|| CongestionError {
                text: text.to_owned(),
            })
    }
}

/// A text that is no [`Congestion`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown congestion control `{text}`; give cubic or bbr",
    text = .text.escape_debug()
)]
pub struct CongestionError {
    /// The text as it was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_congestion_control_parses_as_it_prints() {
        for congestion in Congestion::ALL {
            let text = congestion.to_string();
            assert_eq!(text.parse::<Congestion>().unwrap(), congestion);
        }
    }

    proptest! {
        #[test]
        fn junk_is_named_in_the_error(text in ".*") {
            if let Err(error) = text.parse::<Congestion>() {
                prop_assert_eq!(error.to_string().lines().count(), 1);
                prop_assert_eq!(error.text, text);
            }
        }
    }
}
