//! The NAT matrix: every pair of NATs, over QUIC and over TCP, with what is expected of it.

use anyhow::Result;
use tokio::sync::Semaphore;

use crate::{args::Transport, nat::NatKind, pair::Pair};

/// Pings of a dial that is to be there when the grace period of its circuit, of 5 s, is over: one a second.
const PINGS_BEYOND_GRACE: usize = 12;

/// Cells that build, dial and punch at a time. More of them wait.
pub(crate) static SLOTS: Semaphore = Semaphore::const_new(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Direct,
    /// The relay, exit code 3 and this reason.
    Relayed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub a: NatKind,
    pub b: NatKind,
    pub transport: Transport,
}

/// Hands the pairs to a macro: all unordered pairs of the kinds that can be punched, each kind on both sides, and the symmetric NAT
/// with the kinds that matter, whichever side dials. Each line: name, the dialer's NAT, the dialed one's, what it must end as.
///
/// Nothing translates between the families here; the dual-stack relay joins them. A symmetric side's dial gets in from whatever
/// port where the filter is no filter by port; the port that a symmetric NAT will use is known to nobody before it is used, and a
/// filter by port admits no other.
#[macro_export]
macro_rules! nat_pairs {
    ($with:ident) => { $with! {
        eim_apdf_x_eim_apdf_is_direct: EimApdf, EimApdf => Direct;
        eim_apdf_rewrite_x_eim_apdf_is_direct: EimApdfRewrite, EimApdf => Direct;
        eim_apdf_x_full_cone_is_direct: EimApdf, FullCone => Direct;
        address_restricted_x_eim_apdf_is_direct: AddressRestricted, EimApdf => Direct;
        eim_apdf_x_firewall_is_direct: EimApdf, Firewall => Direct;
        cgnat_x_eim_apdf_is_direct: Cgnat, EimApdf => Direct;
        eim_apdf_x_range_firewall_is_direct: EimApdf, RangeFirewall => Direct;
        ip6_firewall_x_eim_apdf_stays_relayed: Ip6Firewall, EimApdf => Relayed("unreachable");
        eim_apdf_x_dual_stack_is_direct: EimApdf, DualStack => Direct;
        eim_apdf_rewrite_x_eim_apdf_rewrite_is_direct: EimApdfRewrite, EimApdfRewrite => Direct;
        full_cone_x_eim_apdf_rewrite_is_direct: FullCone, EimApdfRewrite => Direct;
        eim_apdf_rewrite_x_address_restricted_is_direct: EimApdfRewrite, AddressRestricted => Direct;
        firewall_x_eim_apdf_rewrite_is_direct: Firewall, EimApdfRewrite => Direct;
        eim_apdf_rewrite_x_cgnat_is_direct: EimApdfRewrite, Cgnat => Direct;
        range_firewall_x_eim_apdf_rewrite_is_direct: RangeFirewall, EimApdfRewrite => Direct;
        eim_apdf_rewrite_x_ip6_firewall_stays_relayed: EimApdfRewrite, Ip6Firewall => Relayed("unreachable");
        dual_stack_x_eim_apdf_rewrite_is_direct: DualStack, EimApdfRewrite => Direct;
        full_cone_x_full_cone_is_direct: FullCone, FullCone => Direct;
        address_restricted_x_full_cone_is_direct: AddressRestricted, FullCone => Direct;
        full_cone_x_firewall_is_direct: FullCone, Firewall => Direct;
        cgnat_x_full_cone_is_direct: Cgnat, FullCone => Direct;
        full_cone_x_range_firewall_is_direct: FullCone, RangeFirewall => Direct;
        ip6_firewall_x_full_cone_stays_relayed: Ip6Firewall, FullCone => Relayed("unreachable");
        full_cone_x_dual_stack_is_direct: FullCone, DualStack => Direct;
        address_restricted_x_address_restricted_is_direct: AddressRestricted, AddressRestricted => Direct;
        firewall_x_address_restricted_is_direct: Firewall, AddressRestricted => Direct;
        address_restricted_x_cgnat_is_direct: AddressRestricted, Cgnat => Direct;
        range_firewall_x_address_restricted_is_direct: RangeFirewall, AddressRestricted => Direct;
        address_restricted_x_ip6_firewall_stays_relayed: AddressRestricted, Ip6Firewall => Relayed("unreachable");
        dual_stack_x_address_restricted_is_direct: DualStack, AddressRestricted => Direct;
        firewall_x_firewall_is_direct: Firewall, Firewall => Direct;
        cgnat_x_firewall_is_direct: Cgnat, Firewall => Direct;
        firewall_x_range_firewall_is_direct: Firewall, RangeFirewall => Direct;
        ip6_firewall_x_firewall_stays_relayed: Ip6Firewall, Firewall => Relayed("unreachable");
        firewall_x_dual_stack_is_direct: Firewall, DualStack => Direct;
        cgnat_x_cgnat_is_direct: Cgnat, Cgnat => Direct;
        range_firewall_x_cgnat_is_direct: RangeFirewall, Cgnat => Direct;
        cgnat_x_ip6_firewall_stays_relayed: Cgnat, Ip6Firewall => Relayed("unreachable");
        dual_stack_x_cgnat_is_direct: DualStack, Cgnat => Direct;
        range_firewall_x_range_firewall_is_direct: RangeFirewall, RangeFirewall => Direct;
        ip6_firewall_x_range_firewall_stays_relayed: Ip6Firewall, RangeFirewall => Relayed("unreachable");
        range_firewall_x_dual_stack_is_direct: RangeFirewall, DualStack => Direct;
        ip6_firewall_x_ip6_firewall_is_direct: Ip6Firewall, Ip6Firewall => Direct;
        dual_stack_x_ip6_firewall_is_direct: DualStack, Ip6Firewall => Direct;
        dual_stack_x_dual_stack_is_direct: DualStack, DualStack => Direct;
        symmetric_x_full_cone_is_direct: Symmetric, FullCone => Direct;
        full_cone_x_symmetric_is_direct: FullCone, Symmetric => Direct;
        symmetric_x_address_restricted_is_direct: Symmetric, AddressRestricted => Direct;
        address_restricted_x_symmetric_is_direct: AddressRestricted, Symmetric => Direct;
        symmetric_x_eim_apdf_stays_relayed: Symmetric, EimApdf => Relayed("timeout");
        eim_apdf_x_symmetric_stays_relayed: EimApdf, Symmetric => Relayed("timeout");
        symmetric_x_eim_apdf_rewrite_stays_relayed: Symmetric, EimApdfRewrite => Relayed("timeout");
        eim_apdf_rewrite_x_symmetric_stays_relayed: EimApdfRewrite, Symmetric => Relayed("timeout");
        symmetric_x_symmetric_stays_relayed: Symmetric, Symmetric => Relayed("timeout");
    } };
}

pub fn cells() -> Vec<Cell> {
    macro_rules! kinds {
        ($($name:ident: $a:ident, $b:ident => $expected:expr;)*) => {
            [$((NatKind::$a, NatKind::$b)),*]
        };
    }
    let pairs = nat_pairs!(kinds).into_iter();
    let cells = pairs.flat_map(|(a, b)| Transport::ALL.map(|transport| Cell { a, b, transport }));
    cells.collect()
}

/// Runs one pair in a lab of its own: relayed first, unless the relay introduces the two, then direct, then pings on that very
/// connection, which is the only one that is left; or relayed for the expected reason. The captures show what the JSON says, and no
/// packet from outside the range.
pub async fn run(
    a: NatKind,
    b: NatKind,
    transports: &[Transport],
    expected: Expected,
) -> Result<()> {
    let slot = SLOTS.acquire().await?;
    let mut peers = Pair::of_test(a, b).over(transports).start().await?;
    let Expected::Relayed(reason) = expected else {
        let mut process = peers.start_dial("a", PINGS_BEYOND_GRACE)?;
        let direct = peers.became_direct(&process).await?;
        // What is left to do is to wait.
        drop(slot);
        peers.verify_one_is_left(&process, direct).await?;
        let dial = process.ended().await?;
        return peers.verify_direct(&dial, PINGS_BEYOND_GRACE).await;
    };
    let dial = peers.dial().await?;
    peers.verify_relayed(&dial, reason).await
}
