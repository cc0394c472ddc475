//! A NetworkPolicy.

use std::fmt::Write as _;

use p2pnode_transports::Family;

use super::rules::Rules;

/// Private networks, and metadata services of clouds.
const EXCEPT_IP4: &[&str] = &[
    "10.0.0.0/8",
    "100.64.0.0/10",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
];

/// The same, and what a NAT64 maps to IPv4.
const EXCEPT_IP6: &[&str] = &["64:ff9b::/96", "fc00::/7", "fe80::/10"];

/// The cluster's DNS, and pods in the same namespace.
const EGRESS_INSIDE: &str = "  egress:
    # The DNS of the cluster; 169.254.20.10 is its cache on the node.
    - to:
        - namespaceSelector: {}
          podSelector:
            matchLabels:
              k8s-app: kube-dns
        - ipBlock: { cidr: 169.254.20.10/32 }
      ports:
        - { protocol: UDP, port: 53 }
        - { protocol: TCP, port: 53 }
    # Relays and peers in the same namespace.
    - to:
        - podSelector:
            matchLabels:
              app.kubernetes.io/name: p2pnode
        - podSelector:
            matchLabels:
              app.kubernetes.io/name: relay-node
      ports:
        - { protocol: UDP }
        - { protocol: TCP }
    # Relays and peers, wherever they are, but no private network and no metadata service of a cloud.
    # Add private networks in which relays or peers are.
    - to:
";

/// For `kubectl apply -f -`: the policy of the manifests in `k8s/`.
///
/// The policy lets in what comes to the range. A stateful firewall would not need that. A policy applies to pods, and the NAT in
/// front of them has already filtered.
pub(super) fn network_policy(rules: &Rules) -> String {
    let range = rules.range;
    let mut text = format!(
        "# A NetworkPolicy knows no source ports: that packets leave from {range} alone is for the firewall around the cluster.\n\
         apiVersion: networking.k8s.io/v1\n\
         kind: NetworkPolicy\n\
         metadata:\n  \
           name: p2pnode\n\
         spec:\n  \
           podSelector:\n    \
             matchLabels:\n      \
               app.kubernetes.io/name: p2pnode\n  \
           policyTypes: [Ingress, Egress]\n  \
           ingress:\n    \
             # Peers that punch, or that dial an open port of the range.\n    \
             - ports:\n",
    );
    for protocol in rules.protocols.iter().map(|protocol| protocol.upper()) {
        let _ = writeln!(
            text,
            "        - {{ protocol: {protocol}, port: {}, endPort: {} }}",
            range.start(),
            range.end()
        );
    }
    for (protocol, port) in &rules.listen {
        let _ = writeln!(
            text,
            "        - {{ protocol: {}, port: {port} }}",
            protocol.upper()
        );
    }
    if let Some(admin) = rules.admin {
        let _ = writeln!(
            text,
            "    # Probes and metrics.\n    - ports:\n        - {{ protocol: TCP, port: {admin} }}"
        );
    }
    text += EGRESS_INSIDE;
    for family in &rules.families {
        let (everywhere, except) = match family {
            Family::Ip4 => ("0.0.0.0/0", EXCEPT_IP4),
            Family::Ip6 => ("::/0", EXCEPT_IP6),
        };
        let _ = writeln!(
            text,
            "        - ipBlock:\n            cidr: \"{everywhere}\"\n            except:"
        );
        for network in except {
            let _ = writeln!(text, "              - \"{network}\"");
        }
    }
    for relay in &rules.private_relays {
        let length = if relay.is_ipv4() { 32 } else { 128 };
        let _ = writeln!(text, "        - ipBlock: {{ cidr: \"{relay}/{length}\" }}");
    }
    text += "      ports:\n        - { protocol: UDP }\n        - { protocol: TCP }\n";
    text
}
