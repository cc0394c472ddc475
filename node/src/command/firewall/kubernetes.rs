//! A NetworkPolicy.

use std::fmt::Write as _;

use super::rules::Rules;

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
    text += "  egress:\n    # Relays, peers and DNS; where they are is not known beforehand.\n    - to:\n";
    for network in rules.anywhere() {
        let _ = writeln!(text, "        - ipBlock: {{ cidr: \"{network}\" }}");
    }
    text += "      ports:\n        - { protocol: UDP }\n        - { protocol: TCP }\n";
    text
}
