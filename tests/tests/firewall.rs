//! `p2pnode firewall`: hosts that drop everything but what its rules let through still register, punch and end direct.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use p2pnode_tests::{
    args::{PATIENCE, Transport},
    bins::Bins,
    lab::{Host, Lab},
    nat::{NatKind, RANGE},
    node::{Launch, output},
    running::{Both, Running},
    sandbox::tool,
};

p2pnode_tests::lab_tests!();

/// What stands on the host already: nothing leaves, nothing comes in, but loopback, and the neighbours without which IPv6 has no
/// packets at all. The chains jump to the printed ones, as their comments say.
const NFT: &str = "
table inet filter {
    chain output { type filter hook output priority filter; policy drop; oifname lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; jump p2pnode-out; }
    chain input { type filter hook input priority filter; policy drop; iifname lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; jump p2pnode-in; }
}
";
const IPTABLES: &str = "*filter
:OUTPUT DROP [0:0]
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
-A OUTPUT -o lo -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A OUTPUT -j P2PNODE-OUT
-A INPUT -j P2PNODE-IN
COMMIT
";

struct Rules<'a> {
    lab: &'a Lab,
    bins: &'a Bins,
}

impl Rules<'_> {
    /// What `p2pnode firewall` prints, in a file.
    async fn printed(&self, host: &Host, format: &str) -> Result<String> {
        let args = ["firewall", "--format", format];
        let printed = output(&host.device, &self.bins.p2pnode, &args, PATIENCE).await?;
        let error = String::from_utf8_lossy(&printed.stderr);
        ensure!(printed.status.success(), "{args:?}: {error}");
        self.file(format, &printed.stdout)
    }

    fn file(&self, name: &str, rules: &[u8]) -> Result<String> {
        let path = self.lab.artifacts().file(name);
        fs::write(&path, rules)?;
        Ok(path.display().to_string())
    }

    async fn run(&self, host: &Host, program: &str, args: &[&str]) -> Result<()> {
        let program = tool(program);
        let ran = output(&host.device, Path::new(&program), args, PATIENCE).await?;
        let error = String::from_utf8_lossy(&ran.stderr);
        ensure!(
            ran.status.success(),
            "{} {args:?}: {error}",
            program.display()
        );
        Ok(())
    }

    async fn nft(&self, host: &Host) -> Result<()> {
        let printed = self.printed(host, "nft").await?;
        let drop = self.file("drop.nft", NFT.as_bytes())?;
        self.run(host, "nft", &["-c", "-f", &printed]).await?;
        // Twice: what is loaded again replaces what was loaded.
        for rules in [&printed, &drop, &printed] {
            self.run(host, "nft", &["-f", rules]).await?;
        }
        Ok(())
    }

    async fn iptables(&self, host: &Host) -> Result<()> {
        let printed = self.printed(host, "iptables").await?;
        let drop = self.file("drop.iptables", IPTABLES.as_bytes())?;
        for restore in ["iptables-restore", "ip6tables-restore"] {
            self.run(host, restore, &["--test", "--noflush", &printed])
                .await?;
            for rules in [&printed, &drop, &printed] {
                self.run(host, restore, &["--noflush", rules]).await?;
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn hosts_that_drop_all_else_register_punch_and_are_direct_over_both_transports() -> Result<()>
{
    for transport in Transport::ALL {
        let name = format!("firewall-{transport}");
        let running = Running::new(name, NatKind::DualStack, NatKind::EimApdfRewrite);
        let prepared = running.transports(&[transport]).prepare().await?;
        let rules = Rules {
            lab: &prepared.lab,
            bins: &prepared.bins,
        };
        rules.nft(&prepared.a.host).await?;
        rules.iptables(&prepared.b.host).await?;
        let both = prepared.start().await?;
        for (side, firewall) in [(&both.a_side, "nft"), (&both.b_side, "iptables")] {
            dropped(&both, &side.host, transport, firewall).await?;
        }
        both.dial().await?;
        both.settled(PATIENCE).await?;
        for side in [&both.a_side, &both.b_side] {
            side.settle().await?;
            let strays = side.strays();
            ensure!(strays.is_empty(), "{strays:?}");
        }
        both.lab.succeeded();
    }
    Ok(())
}

/// The firewall is one: what gets to the relay from the range gets nowhere from the port beside it.
async fn dropped(both: &Both, host: &Host, transport: Transport, firewall: &str) -> Result<()> {
    let (first, last) = (RANGE.start(), RANGE.end());
    let beside = last + 1;
    // The whole range: the host's node holds some of its ports.
    for (ports, code) in [
        (format!("{first}-{last}"), 0),
        (format!("{beside}-{beside}"), 4),
    ] {
        let mut launch = Launch::new(format!("{firewall}-{ports}"), &both.bins.p2pnode)
            .args(["dial", &both.relay.id, "--json", "--until", "connected"])
            .args(["--timeout", "3s", "--port-range", &ports]);
        for addr in both.relay.addresses(host, &[transport]) {
            launch = launch.args(["--addr", &addr]);
        }
        let mut dial = launch.start(&host.device, both.lab.artifacts())?;
        let status = dial.exit(PATIENCE).await?;
        ensure!(
            status.code() == Some(code),
            "{firewall}: source ports {ports}: {status}: {:?}",
            dial.events()
        );
    }
    Ok(())
}
