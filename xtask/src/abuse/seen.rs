//! What is counted from outside: bytes, addresses, characters.

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result};
use p2pnode_tests::host::Host;

/// What the kernel has counted as sent by the interface of a host.
pub(super) fn sent_bytes(host: &Host) -> Result<f64> {
    let devices = host.device.run_sync(|| {
        fs::read_to_string("/proc/thread-self/net/dev").context("/proc/thread-self/net/dev")
    })?;
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let sent = line.and_then(|line| line.split_whitespace().nth(8));
    Ok(sent.context("eth0 is not counted")?.parse()?)
}

/// Whether no relay can vouch for the address from outside.
pub(super) fn is_inner(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let inner = ip.is_private() || ip.is_loopback() || ip.is_link_local();
            let nobody = ip.is_broadcast() || ip.is_multicast() || ip.is_unspecified();
            inner
                || nobody
                || (a == 100 && (64..128).contains(&b))
                || ip.octets() == [168, 63, 129, 16]
        }
        IpAddr::V6(ip) => match ip.segments() {
            [0x64, 0xff9b, ..] | [0x2002, ..] => true,
            [0, 0, 0, 0, 0, ..] => true,
            _ => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_multicast(),
        },
    }
}

/// Characters that a terminal obeys, and lines that a stranger has forged.
pub(super) fn obeyed(text: &str) -> u64 {
    let controls = text.chars().filter(|c| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    let forged = text.lines().filter(|line| line.starts_with("INFO forged"));
    (controls.count() + forged.count()) as u64
}
