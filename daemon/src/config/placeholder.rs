//! Names and addresses that stand for real ones in examples ([RFC 2606](https://www.rfc-editor.org/rfc/rfc2606),
//! [RFC 5737](https://www.rfc-editor.org/rfc/rfc5737)).

use std::collections::BTreeSet;

use libp2p::{Multiaddr, multiaddr::Protocol};

/// What is worth a warning of these addresses, each with its key: one line for each name or address of an example.
#[must_use]
pub fn warnings<'a>(
    addresses: impl IntoIterator<Item = (&'static str, &'a Multiaddr)>,
) -> Vec<String> {
    let all = addresses.into_iter().flat_map(|(key, address)| {
        let parts = address.iter();
        parts.filter_map(move |part| warning(key, &part))
    });
    let once: BTreeSet<_> = all.collect();
    once.into_iter().collect()
}

fn warning(key: &str, part: &Protocol<'_>) -> Option<String> {
    if let Protocol::Dns(name)
    | Protocol::Dns4(name)
    | Protocol::Dns6(name)
    | Protocol::Dnsaddr(name) = part
        && is_placeholder(name)
    {
        return Some(format!(
            "{key}: {name} is a name of examples, which no DNS resolves; give the real name or address"
        ));
    }
    // Of IPv6 there is only one such network, which labs use.
    if let Protocol::Ip4(ip) = part
        && ip.is_documentation()
    {
        return Some(format!(
            "{key}: {ip} is an address of examples, which no host has; give the real address"
        ));
    }
    None
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
    fn an_address_of_examples_is_warned_of_and_a_real_one_is_not() {
        let of = |text: &str| {
            let address = text
                .parse::<Multiaddr>()
                .unwrap_or_else(|_| Multiaddr::empty());
            warnings([("relays", &address)])
        };
        let warnings = of("/ip4/203.0.113.10/udp/443/quic-v1");
        assert!(
            warnings[0].starts_with("relays: 203.0.113.10 is an address of examples"),
            "{warnings:?}"
        );
        assert!(of("/ip4/198.18.0.1/tcp/443").is_empty());
        assert!(of("/ip6/2001:db8::1/tcp/443").is_empty());
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
