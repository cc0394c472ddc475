//! Names that stand for a real one in examples ([RFC 2606](https://www.rfc-editor.org/rfc/rfc2606)).

use std::collections::BTreeSet;

use libp2p::{Multiaddr, multiaddr::Protocol};

/// What is worth a warning of these addresses, each with its key: one line for each name of an example.
#[must_use]
pub fn warnings<'a>(
    addresses: impl IntoIterator<Item = (&'static str, &'a Multiaddr)>,
) -> Vec<String> {
    let mut named = BTreeSet::new();
    for (key, address) in addresses {
        for part in address {
            if let Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name) = part
                && is_placeholder(&name)
            {
                named.insert((key, name.into_owned()));
            }
        }
    }
    let warning = |(key, name)| {
        format!(
            "{key}: {name} is a name of examples, which no DNS resolves; give the real name or address"
        )
    };
    named.into_iter().map(warning).collect()
}

fn is_placeholder(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let mut labels = name.rsplit('.');
    matches!(
        (labels.next(), labels.next()),
        (Some("example" | "invalid"), _) | (Some("com" | "net" | "org"), Some("example"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_examples_are_placeholders() {
        for name in [
            "relay.example.net",
            "EXAMPLE.COM.",
            "a.example",
            "x.invalid",
        ] {
            assert!(is_placeholder(name), "{name}");
        }
        for name in [
            "relay.example.de",
            "example-relay.net",
            "relay.net",
            "myexample.org",
            "",
        ] {
            assert!(!is_placeholder(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_warned_of_once() {
        let addr = |text: &str| text.parse::<Multiaddr>();
        let udp =
            addr("/dns/relay.example.net/udp/443/quic-v1").unwrap_or_else(|_| Multiaddr::empty());
        let tcp = addr("/dns/relay.example.net/tcp/443").unwrap_or_else(|_| Multiaddr::empty());
        let warnings = warnings([("relays", &udp), ("relays", &tcp)]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
}
