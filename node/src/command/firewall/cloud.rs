//! Firewalls of clouds. They are stateful and know no source ports of what leaves.

use std::fmt::Write as _;

use p2pnode_transports::Family;
use serde_json::{Value, json};

use super::rules::{Protocol, Rules};

/// The rules of a security group in the form in which `aws ec2 describe-security-groups` prints them. Each of the two lists is
/// what `aws ec2 authorize-security-group-egress` and `-ingress` take as `--ip-permissions`.
pub(super) fn aws_security_group(rules: &Rules) -> String {
    let permission = |protocol: Protocol, first: u16, last: u16, description: &str| {
        let mut permission = json!({
            "IpProtocol": protocol.lower(),
            "FromPort": first,
            "ToPort": last,
        });
        for (family, network) in rules.families.iter().zip(rules.anywhere()) {
            let (list, cidr) = match family {
                Family::Ip4 => ("IpRanges", "CidrIp"),
                Family::Ip6 => ("Ipv6Ranges", "CidrIpv6"),
            };
            permission[list] = json!([{ cidr: network, "Description": description }]);
        }
        permission
    };
    // AWS takes letters, digits, blanks and ._-:/()#,@[]+=&;{}!$* in a description.
    let out = format!(
        "p2pnode, from source ports {} (not enforced: a security group knows no source ports)",
        rules.range
    );
    let egress: Vec<Value> = rules
        .protocols
        .iter()
        .map(|protocol| permission(*protocol, 0, u16::MAX, &out))
        .collect();
    let ingress: Vec<Value> = rules
        .listen
        .iter()
        .map(|(protocol, port)| permission(*protocol, *port, *port, "p2pnode, public listener"))
        .collect();
    let group = json!({ "IpPermissionsEgress": egress, "IpPermissions": ingress });
    format!("{group:#}\n")
}

/// Commands for a shell in which `NETWORK` is the name of the VPC network. Rules of one direction have one family each.
pub(super) fn gcp(rules: &Rules) -> String {
    let mut text = format!(
        "# Lets p2pnode out: {names} from source ports {range}. Not enforced: VPC firewall rules know no source ports. They are\n\
         # stateful, so what comes back needs no rule. NETWORK is the name of the VPC network; the instances have the tag p2pnode.\n",
        names = rules.protocol_names(),
        range = rules.range,
    );
    let mut command = |name: &str,
                       direction: &str,
                       allowed: &[String],
                       addresses: &str,
                       network: &str| {
        let _ = writeln!(
            text,
            "gcloud compute firewall-rules create {name} --network=\"$NETWORK\" --direction={direction} --action=ALLOW \
             --rules={rules} --{addresses}={network} --target-tags=p2pnode",
            rules = allowed.join(","),
        );
    };
    let out: Vec<_> = rules
        .protocols
        .iter()
        .map(|protocol| protocol.lower().to_owned())
        .collect();
    let listen: Vec<_> = rules
        .listen
        .iter()
        .map(|(protocol, port)| format!("{}:{port}", protocol.lower()))
        .collect();
    for (family, network) in rules.families.iter().zip(rules.anywhere()) {
        command(
            &format!("p2pnode-egress-{family}"),
            "EGRESS",
            &out,
            "destination-ranges",
            network,
        );
        if !listen.is_empty() {
            command(
                &format!("p2pnode-ingress-{family}"),
                "INGRESS",
                &listen,
                "source-ranges",
                network,
            );
        }
    }
    text
}
