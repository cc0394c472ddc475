//! The rights to build networks: a user namespace of our own, or those of root.
//!
//! Inside the namespace the process keeps a user id other than 0 and holds its capabilities as *ambient* ones, which
//! survive `exec`. A process that looks like root would make `tcpdump` try to become a user that the namespace does not
//! have, and fail.

use std::{env, fs, path::PathBuf, sync::OnceLock};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    UserNamespace,
    /// Those of the user who started the process: root with the capabilities for it.
    Root,
}

/// The user id inside the namespace for somebody who is root outside.
const INNER_UID_OF_ROOT: u32 = 1000;

const TOOLS: [(&str, &str); 7] = [
    ("conntrack", "conntrack"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("miniupnpd", "miniupnpd-nftables"),
];

/// Tools of single tests, which the lab itself does without.
const TOOLS_OF_TESTS: [(&str, &str); 5] = [
    ("stun", "stun-client"),
    ("turnutils_stunclient", "coturn"),
    ("knotd", "knot"),
    ("dig", "bind9-dnsutils"),
    ("curl", "curl"),
];

const TEST_THREADS: &str = "RUST_TEST_THREADS";

static ENTERED: OnceLock<Result<Rights, String>> = OnceLock::new();

/// Enters the user namespace, once per process.
pub fn enter() -> Result<Rights> {
    match ENTERED.get_or_init(|| acquire().map_err(|error| format!("{error:#}"))) {
        Ok(rights) => Ok(*rights),
        Err(error) => bail!("{error}"),
    }
}

/// Has the rights of root without a user namespace, for what needs more than one user: podman gives a pod another than its own.
pub fn stay_root() -> Result<Rights> {
    let root = || {
        if Uid::current().is_root() && holds_network_rights() {
            Ok(Rights::Root)
        } else {
            Err("playing pods needs root: podman gives each pod a user of its own; run it with sudo".to_owned())
        }
    };
    match ENTERED.get_or_init(root) {
        Ok(Rights::Root) => Ok(Rights::Root),
        Ok(Rights::UserNamespace) => {
            bail!("this process is in a user namespace, which has one user")
        }
        Err(error) => bail!("{error}"),
    }
}

/// [`enter`] in the form that the loader calls. A refusal is kept for [`check`]. `THREADS` for each processor run tests, unless
/// somebody has said otherwise; 0 is the default of the harness.
pub extern "C" fn enter_before_main<const THREADS: usize>() {
    let _kept = enter();
    if THREADS > 0 && env::var_os(TEST_THREADS).is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        #[allow(unsafe_code, reason = "the process has one thread before main")]
        unsafe {
            env::set_var(TEST_THREADS, (THREADS * processors).to_string());
        }
    }
}

pub fn check() -> Result<Rights> {
    let rights = match ENTERED.get() {
        Some(Ok(rights)) => *rights,
        Some(Err(error)) => bail!("{error}"),
        None => bail!(
            "no lab without rights: say `p2pnode_tests::lab_tests!();` in the test file, or call `sandbox::enter()` first in `main`"
        ),
    };
    let missing = missing(&TOOLS);
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!(
            "the NAT lab needs {}: install it, on Debian with `apt-get install {}`",
            names.join(", "),
            packages.join(" "),
        );
    }
    Ok(rights)
}

/// Tools that the lab or one of its tests needs and this machine lacks, each with its Debian package.
pub fn missing_tools() -> Vec<(&'static str, &'static str)> {
    [missing(&TOOLS), missing(&TOOLS_OF_TESTS)].concat()
}

fn missing(tools: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut missing = tools.to_vec();
    missing.retain(|(tool, _)| find(tool).is_none());
    missing
}

pub fn is_root() -> bool {
    Uid::effective().is_root()
}

pub fn has_tool(name: &str) -> bool {
    find(name).is_some()
}

/// The program of that name. Administration tools are found where an ordinary user's `PATH` does not lead.
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| name.into())
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|program| program.is_file())
}

fn acquire() -> Result<Rights> {
    let (uid, gid) = (Uid::current(), Gid::current());
    match enter_user_namespace(uid, gid) {
        Ok(()) => Ok(Rights::UserNamespace),
        Err(_) if uid.is_root() && holds_network_rights() => Ok(Rights::Root),
        Err(error) => Err(error).context(
            "the NAT lab needs a user namespace or root: allow user namespaces with `sysctl -w user.max_user_namespaces=15000 \
             kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0` (those of them that exist), or run as root",
        ),
    }
}

fn enter_user_namespace(uid: Uid, gid: Gid) -> Result<()> {
    let inner = if uid.is_root() {
        INNER_UID_OF_ROOT
    } else {
        uid.as_raw()
    };
    let inner_group = if gid.as_raw() == 0 {
        INNER_UID_OF_ROOT
    } else {
        gid.as_raw()
    };
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER)")?;
    fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("{inner} {uid} 1")).context("/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{inner_group} {gid} 1"))
        .context("/proc/self/gid_map")?;
    let all = caps::read(None, CapSet::Permitted).context("capabilities of the user namespace")?;
    caps::set(None, CapSet::Inheritable, &all).context("inheritable capabilities")?;
    caps::set(None, CapSet::Ambient, &all).context("ambient capabilities")?;
    Ok(())
}

fn holds_network_rights() -> bool {
    [
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_RAW,
    ]
    .into_iter()
    .all(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
}
