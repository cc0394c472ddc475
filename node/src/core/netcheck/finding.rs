//! What a look at the network says about a dial that did not end direct.

use super::{Check, Id, PeerClass, Reaches, Report, Status, nat::AllocationKind};
use crate::{
    core::{
        event::{NotDirect, Outcome, Reached},
        finding::{Finding, FindingId, Remedy},
        peers::Path,
        search_report::{PortClass, SearchClass, SearchReport},
    },
    punch::Reason,
};

impl Report {
    /// What stands in the way of a dial that ended so, with this last search for ports; `None` if it is direct, or if nothing shows it.
    pub(crate) fn finding(
        &self,
        outcome: &Outcome,
        search: Option<&SearchReport>,
    ) -> Option<Finding> {
        let reason = match (outcome.outcome, &outcome.reason) {
            (Reached::Direct, _) | (_, None) => return None,
            (Reached::Relayed | Reached::Unreachable, Some(reason)) => reason,
        };
        self.in_the_way(reason, search, outcome.path.as_ref())
    }

    /// The same for a peer that stays relayed for this reason, over this path.
    pub(crate) fn in_the_way(
        &self,
        reason: &NotDirect,
        search: Option<&SearchReport>,
        path: Option<&Path>,
    ) -> Option<Finding> {
        if self.reaches() == Reaches::Nobody {
            let why = [
                (Id::Range, FindingId::RangeBlocked),
                (Id::Mtu, FindingId::Mtu),
            ];
            let why = self.first_of(&why);
            let relay = self.checks.iter().find(|check| check.id == Id::Relay)?;
            let text = match relay.remedy.as_ref().map(|remedy| remedy.id.as_str()) {
                Some("wrong_peer") => "another peer answers for the relay",
                Some(
                    "no_route" | "no_socket" | "open_files" | "ports_in_use" | "forbidden_here"
                    | "no_buffers" | "exhausted" | "privileged_ports",
                ) => "this host asks no relay",
                Some(_) | None => "no relay answers",
            };
            let lost = || of(relay, FindingId::RelayUnreachable, text);
            return Some(why.unwrap_or_else(lost));
        }
        let hides = |reason: &Reason| reason.is_of_network();
        if matches!(reason, NotDirect::Punch(reason) if hides(reason))
            && let Some(hidden) = path.and_then(|path| self.hidden_from(path))
        {
            return Some(hidden);
        }
        // A peer that is off, or that does not punch, is not a matter of the network.
        let is_lost = match reason {
            NotDirect::Punch(reason) => matches!(
                reason,
                Reason::Timeout
                    | Reason::SymmetricBoth
                    | Reason::Unreachable
                    | Reason::Refused
                    | Reason::DialFailed
                    | Reason::NoCandidates
            ),
            NotDirect::Unreachable(_) => false,
        };
        if !is_lost {
            return None;
        }
        let why = self.first_of(&[
            (Id::Udp, FindingId::UdpBlocked),
            (Id::Range, FindingId::RangeBlocked),
            (Id::Mtu, FindingId::Mtu),
        ]);
        if why.is_some() {
            return why;
        }
        if self.verdict.is_hard() {
            let check = self.failed(Id::Nat)?;
            let ports = match check.nat?.allocation.kind {
                AllocationKind::Random => PortClass::Random.words(),
                AllocationKind::Block => PortClass::Block.words(),
                AllocationKind::Sequential => PortClass::Sequential.words(),
                AllocationKind::Preserved | AllocationKind::Unknown => {
                    "a port for each destination"
                }
            };
            let text = format!("symmetric here: {ports}");
            return Some(of(check, FindingId::SymmetricHere, &text));
        }
        // What both sides have measured for a search replaces the guess that follows.
        let class = search.filter(|search| !search.moves);
        if let Some(class) = class.and_then(|search| search.class) {
            return measured(class);
        }
        let timed_out = matches!(reason, NotDirect::Punch(Reason::Timeout));
        (timed_out && self.verdict.direct.contains(&PeerClass::EimApdf)).then(|| Finding {
            id: FindingId::SymmetricThere,
            text: "symmetric there, or nothing gets in there: the NAT here lets peers behind most others become direct".to_owned(),
            remedy: Some(Remedy::look_there()),
        })
    }

    /// The relay of a path sees a NAT in place of this host.
    fn hidden_from(&self, path: &Path) -> Option<Finding> {
        let relay = path.hops.first()?.remote?.ip();
        let mut checks = self.checks.iter();
        let check = checks.find(|check| check.hidden_from == Some(relay))?;
        Some(of(check, FindingId::RelayNat, &check.text))
    }

    /// The finding of the first check of these that has failed.
    fn first_of(&self, ids: &[(Id, FindingId)]) -> Option<Finding> {
        let mut found = ids.iter().filter_map(|(id, finding)| {
            let check = self.failed(*id)?;
            Some(of(check, *finding, &check.text))
        });
        found.next()
    }

    fn failed(&self, id: Id) -> Option<&Check> {
        let failed = |check: &&Check| check.id == id && check.status == Status::Fail;
        self.checks.iter().find(failed)
    }
}

/// What the classes of a search say. If both NATs have one mapping for all destinations, they do not say what stands in the way.
fn measured(class: SearchClass) -> Option<Finding> {
    let symmetric = |ports| (ports != PortClass::Stable).then_some(ports);
    let (id, side, ports, remedy) = match (symmetric(class.here), symmetric(class.there)) {
        (Some(ports), _) => {
            let remedy = Remedy::preserve_range();
            (FindingId::SymmetricHere, "here", ports, remedy)
        }
        (None, Some(ports)) => {
            let remedy = Remedy::look_there();
            (FindingId::SymmetricThere, "there", ports, remedy)
        }
        (None, None) => return None,
    };
    Some(Finding {
        id,
        text: format!("symmetric {side}: {}", ports.words()),
        remedy: Some(remedy),
    })
}

fn of(check: &Check, id: FindingId, text: &str) -> Finding {
    Finding {
        id,
        text: text.to_owned(),
        remedy: check.remedy.clone(),
    }
}
