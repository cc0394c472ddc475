//! Whether this host's kernel suits the range.

use p2pnode_transports::PortRange;

use super::{Check, Facts, HostFacts, Id, Nat64, Status, facts::KEPT_ALIVE, report::check};
use crate::{
    config::Rotate,
    core::{finding::Remedy, mappings::RouterFacts},
};

pub(super) fn host(facts: &Facts) -> Check {
    let (range, host) = (facts.range, &facts.host);
    if let Some(exhausted) = &host.unbound {
        let text = format!("{exhausted}; so a punch socket is missing");
        let remedy = Remedy::no_port(exhausted);
        return check(Id::Host, Status::Fail, text, Some(remedy));
    }
    if facts.lacks_files() {
        let text = "too many files are open, so parts of this look were not made";
        let remedy = Remedy::open_files();
        return check(Id::Host, Status::Fail, text, Some(remedy));
    }
    if host.forbidden > 0 {
        let text = format!("{} ports of {range} need a privilege", host.forbidden);
        let remedy = Remedy::privileged_ports();
        return check(Id::Host, Status::Warn, text, Some(remedy));
    }
    let holds = |(first, last): (u16, u16), port: u16| (first..=last).contains(&port);
    let is_reserved = |port: u16| host.reserved.iter().any(|of| holds(*of, port));
    let may_be_taken =
        |port: u16| host.ephemeral.is_some_and(|of| holds(of, port)) && !is_reserved(port);
    if host.timestamps == Some(false) {
        let text = "TCP timestamps are off";
        return check(Id::Host, Status::Warn, text, Some(Remedy::timestamps()));
    }
    if let Some(seconds) = host.udp_timeout.filter(|seconds| *seconds < 2 * KEPT_ALIVE) {
        let text = format!("conntrack of this host forgets flows of UDP after {seconds} s");
        return check(Id::Host, Status::Warn, text, Some(Remedy::udp_timeout()));
    }
    let open = range.iter().filter(|port| may_be_taken(*port)).count();
    if open > 0 {
        let text =
            format!("{open} ports of {range} are ephemeral ports of the system, and not reserved");
        let remedy = Remedy::reserve_ports(range, &host.reserved);
        return check(Id::Host, Status::Warn, text, Some(remedy));
    }
    let waiting = match host.waiting {
        0 => String::new(),
        some => format!("; {some} TCP sockets of the range wait for their end"),
    };
    let taken = match host.taken {
        0 => String::new(),
        some => format!("; other programs have {some} of its ports"),
    };
    check(
        Id::Host,
        Status::Ok,
        format!("sysctls are right for {range}{waiting}{taken}"),
        None,
    )
}

/// What reserves the range, if the system may give its ports to other programs.
pub(crate) fn unreserved(range: PortRange, host: HostFacts) -> Option<Remedy> {
    let facts = Facts {
        range,
        relays: Vec::new(),
        paths: Vec::new(),
        claims: Vec::new(),
        router: RouterFacts::default(),
        nat64: Nat64::Unknown,
        rotate: Rotate::Auto,
        clock_ahead: None,
        searches: false,
        // Not what this is about.
        host: HostFacts {
            timestamps: None,
            udp_timeout: None,
            unbound: None,
            forbidden: 0,
            ..host
        },
    };
    self::host(&facts).remedy
}
