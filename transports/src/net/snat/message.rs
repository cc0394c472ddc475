//! Messages of nf_tables (`linux/netfilter/nf_tables.h`). Integers in attributes are of network byte order.

use std::net::IpAddr;

use ipnet::IpNet;
use p2pnode_protocol::Family;

use super::kept::KeptPorts;
use crate::net::interfaces::netlink::{self, AF_INET, AF_INET6, HEADER, message};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
const NEWTABLE: u16 = NFTABLES << 8;
const DELTABLE: u16 = NEWTABLE | 2;
const NEWCHAIN: u16 = NEWTABLE | 3;
const NEWRULE: u16 = NEWTABLE | 6;
const GETRULE: u16 = NEWTABLE | 7;

const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// `struct nfgenmsg`.
const FIXED: usize = 4;

/// The name of the table is attribute 1 of tables, chains and rules alike.
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const OWNER: u32 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const POSTROUTING: u32 = 4;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;

const OIFNAME: u32 = 7;
const L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const EQ: u32 = 0;
const NEQ: u32 = 1;
const LTE: u32 = 3;
const GTE: u32 = 5;
const RETURN: i32 = -5;
const PROTO_SPECIFIED: u32 = 2;
const UDP: u8 = 17;
const TCP: u8 = 6;
const IFNAMSIZ: usize = 16;

/// The expressions of each rule, in their order.
pub(super) fn rules(kept: &KeptPorts, family: Family) -> Vec<Vec<u8>> {
    let mut rules = Vec::new();
    if let Some(out) = &kept.out {
        let mut name = out.clone().into_bytes();
        name.resize(IFNAMSIZ, 0);
        let leaves_elsewhere = [meta(OIFNAME), compare(NEQ, &name)];
        rules.push([&leaves_elsewhere[..], &[go_on()]].concat());
    }
    let offsets = match family {
        Family::Ip4 => (12, 16),
        Family::Ip6 => (8, 24),
    };
    rules.extend(kept.pods_of(family).map(|pods| {
        let mut rule = within(pods, offsets.1);
        rule.push(go_on());
        rule
    }));
    for pods in kept.pods_of(family) {
        for (protocol, _) in [(UDP, kept.udp), (TCP, kept.tcp)]
            .iter()
            .filter(|(_, is_on)| *is_on)
        {
            let mut rule = within(pods, offsets.0);
            rule.extend([meta(L4PROTO), compare(EQ, &[*protocol])]);
            rule.extend(keep(kept));
            rules.push(rule);
        }
    }
    let element = |expression: &Vec<u8>| attribute(NESTED | LIST_ELEMENT, expression);
    rules
        .iter()
        .map(|rule| rule.iter().flat_map(element).collect())
        .collect()
}

/// Replaces the table by one with these rules, in one step.
pub(super) fn replace(table: &str, family: Family, is_owned: bool, rules: &[Vec<u8>]) -> Vec<u8> {
    let table = name(TABLE, table);
    let flags = if is_owned {
        number(TABLE_FLAGS, OWNER)
    } else {
        Vec::new()
    };
    let hook = [
        number(HOOK_NUMBER, POSTROUTING),
        number(HOOK_PRIORITY, KeptPorts::PRIORITY.cast_unsigned()),
    ];
    let chain = [
        table.clone(),
        name(CHAIN_NAME, KeptPorts::CHAIN),
        attribute(NESTED | CHAIN_HOOK, &hook.concat()),
        name(CHAIN_TYPE, "nat"),
    ];
    let mut parts = vec![
        // So that there is one to delete.
        request(NEWTABLE, CREATE, family, &table),
        request(DELTABLE, 0, family, &table),
        request(NEWTABLE, CREATE, family, &[&table[..], &flags].concat()),
        request(NEWCHAIN, CREATE, family, &chain.concat()),
    ];
    parts.extend(rules.iter().map(|rule| {
        let rule = [
            table.clone(),
            name(RULE_CHAIN, KeptPorts::CHAIN),
            attribute(NESTED | RULE_EXPRESSIONS, rule),
        ];
        request(NEWRULE, CREATE | APPEND, family, &rule.concat())
    }));
    batch(&parts)
}

/// Deletes the table.
pub(super) fn delete(table: &str, family: Family) -> Vec<u8> {
    let table = name(TABLE, table);
    batch(&[request(DELTABLE, 0, family, &table)])
}

/// The type and the content of a request for the rules of the table.
pub(super) fn list(table: &str, family: Family) -> (u16, Vec<u8>) {
    let table = name(TABLE, table);
    (GETRULE, [fixed(family, 0).to_vec(), table].concat())
}

/// Whether a message is a rule of the table: older kernels list those of all tables.
pub(super) fn is_of(name: &str, rule: &[u8]) -> bool {
    let attributes = rule.get(HEADER + FIXED..).unwrap_or_default();
    let table = netlink::attribute(attributes, TABLE);
    netlink::u16_at(rule, 4) == Some(NEWRULE)
        && table.and_then(|table| table.strip_suffix(&[0])) == Some(name.as_bytes())
}

fn batch(parts: &[Vec<u8>]) -> Vec<u8> {
    let end = |kind| {
        message(
            kind,
            0,
            &[0, 0, NFTABLES.to_be_bytes()[0], NFTABLES.to_be_bytes()[1]],
        )
    };
    [end(BATCH_BEGIN), parts.concat(), end(BATCH_END)].concat()
}

fn request(kind: u16, flags: u16, family: Family, attributes: &[u8]) -> Vec<u8> {
    message(kind, ACK | flags, &[&fixed(family, 0), attributes].concat())
}

pub(super) const fn fixed(family: Family, resource: u16) -> [u8; FIXED] {
    let family = match family {
        Family::Ip4 => AF_INET,
        Family::Ip6 => AF_INET6,
    };
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

/// Matches an address in the header, at this offset, in this network.
fn within(network: IpNet, offset: u32) -> Vec<Vec<u8>> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (address, mask) = (octets(network.addr()), octets(network.netmask()));
    let mut expressions = vec![payload(NETWORK_HEADER, offset, address.len())];
    if network.prefix_len() < network.max_prefix_len() {
        let attributes = [
            number(1, 1),
            number(2, 1),
            number(3, length(address.len())),
            data(4, &mask),
            data(5, &vec![0; mask.len()]),
        ];
        expressions.push(expression("bitwise", &attributes));
    }
    expressions.push(compare(EQ, &address));
    expressions
}

/// Matches a source port of the range, and masquerades to a port of the range: its own, unless that is taken.
fn keep(kept: &KeptPorts) -> Vec<Vec<u8>> {
    let (first, last) = (
        kept.range.start().to_be_bytes(),
        kept.range.end().to_be_bytes(),
    );
    let load =
        |register, value: &[u8]| expression("immediate", &[number(1, register), data(2, value)]);
    let masquerade = [number(1, PROTO_SPECIFIED), number(2, 1), number(3, 2)];
    vec![
        payload(TRANSPORT_HEADER, 0, 2),
        compare(GTE, &first),
        compare(LTE, &last),
        load(1, &first),
        load(2, &last),
        expression("masq", &masquerade),
    ]
}

/// Leaves the packet to the next chain.
fn go_on() -> Vec<u8> {
    let code = number(1, RETURN.cast_unsigned());
    let verdict = attribute(NESTED | 2, &code);
    expression(
        "immediate",
        &[number(1, 0), attribute(NESTED | 2, &verdict)],
    )
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, 1), number(2, key)])
}

fn payload(base: u32, offset: u32, len: usize) -> Vec<u8> {
    let attributes = [
        number(1, 1),
        number(2, base),
        number(3, offset),
        number(4, length(len)),
    ];
    expression("payload", &attributes)
}

fn compare(operator: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, 1), number(2, operator), data(3, value)])
}

fn expression(kind: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    [name(1, kind), attribute(NESTED | 2, &attributes.concat())].concat()
}

fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(NESTED | kind, &attribute(1, value))
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn name(kind: u16, name: &str) -> Vec<u8> {
    attribute(kind, &[name.as_bytes(), &[0]].concat())
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

pub(super) fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    let mut attribute = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), content].concat();
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}
