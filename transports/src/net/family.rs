//! Which IP families a node uses.

use std::{fmt, str::FromStr};

use p2pnode_protocol::Family;

p2pnode_protocol::named! {
    /// Which families a node may use, and which it prefers.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub enum FamilyPolicy {
        /// Both, without a preference.
        #[default]
        Auto => "auto",
        /// Both, IPv4 first.
        PreferIp4 => "prefer-ip4",
        /// Both, IPv6 first.
        PreferIp6 => "prefer-ip6",
        /// IPv4 and nothing else.
        OnlyIp4 => "only-ip4",
        /// IPv6 and nothing else.
        OnlyIp6 => "only-ip6",
    }
}

impl FamilyPolicy {
    /// Whether `family` may be used at all.
    pub const fn allows(self, family: Family) -> bool {
        match self {
            Self::Auto | Self::PreferIp4 | Self::PreferIp6 => true,
            Self::OnlyIp4 => matches!(family, Family::Ip4),
            Self::OnlyIp6 => matches!(family, Family::Ip6),
        }
    }

    /// The place of `family` in the order of preference, smaller first; equal where there is no preference.
    pub const fn rank(self, family: Family) -> u8 {
        match (self, family) {
            (Self::Auto, _)
            | (Self::PreferIp4 | Self::OnlyIp4, Family::Ip4)
            | (Self::PreferIp6 | Self::OnlyIp6, Family::Ip6) => 0,
            (Self::PreferIp4 | Self::OnlyIp4, Family::Ip6)
            | (Self::PreferIp6 | Self::OnlyIp6, Family::Ip4) => 1,
        }
    }

    /// The family that comes first where both may be used.
    pub const fn preferred(self) -> Option<Family> {
        match self {
            Self::PreferIp4 => Some(Family::Ip4),
            Self::PreferIp6 => Some(Family::Ip6),
            Self::Auto | Self::OnlyIp4 | Self::OnlyIp6 => None,
        }
    }
}

impl fmt::Display for FamilyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FamilyPolicy {
    type Err = FamilyPolicyError;

    fn from_str(text: &str) -> Result<Self, FamilyPolicyError> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| FamilyPolicyError {
                text: text.to_owned(),
            })
    }
}

/// A text that is no [`FamilyPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown family policy `{text}`; give auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6",
    text = .text.escape_debug()
)]
pub struct FamilyPolicyError {
    /// The text as it was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_policy_parses_as_it_prints() {
        for policy in FamilyPolicy::ALL {
            assert_eq!(policy.to_string().parse::<FamilyPolicy>().unwrap(), policy);
        }
    }

    #[test]
    fn only_policies_refuse_the_other_family_and_prefer_policies_put_it_second() {
        assert!(!FamilyPolicy::OnlyIp4.allows(Family::Ip6));
        assert!(FamilyPolicy::OnlyIp4.allows(Family::Ip4));
        assert!(!FamilyPolicy::OnlyIp6.allows(Family::Ip4));
        assert!(
            FamilyPolicy::PreferIp6.rank(Family::Ip6) < FamilyPolicy::PreferIp6.rank(Family::Ip4)
        );
        assert!(
            FamilyPolicy::PreferIp4.rank(Family::Ip4) < FamilyPolicy::PreferIp4.rank(Family::Ip6)
        );
        assert_eq!(
            FamilyPolicy::Auto.rank(Family::Ip4),
            FamilyPolicy::Auto.rank(Family::Ip6)
        );
    }

    proptest! {
        #[test]
        fn junk_is_named_in_the_error(text in ".*") {
            if let Err(error) = text.parse::<FamilyPolicy>() {
                prop_assert_eq!(error.to_string().lines().count(), 1);
                prop_assert_eq!(error.text, text);
            }
        }
    }
}
