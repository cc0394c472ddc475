//! What a look at the network says about a dial that did not end direct.

use super::{Check, Id, PeerClass, Reaches, Report, Status, nat::AllocationKind};
use crate::{
    core::{
        event::{NotDirect, Outcome, Reached},
        finding::{Finding, FindingId, Remedy},
    },
    punch::Reason,
};

impl Report {
    /// What stands in the way of a dial that ended so; `None` if it is direct, or if the look does not show it.
    pub(crate) fn finding(&self, outcome: &Outcome) -> Option<Finding> {
        let reason = match (outcome.outcome, &outcome.reason) {
            (Reached::Direct, _) | (_, None) => return None,
            (Reached::Relayed | Reached::Unreachable, Some(reason)) => reason,
        };
        self.in_the_way(reason)
    }

    /// The same for a peer that stays relayed for this reason.
    pub(crate) fn in_the_way(&self, reason: &NotDirect) -> Option<Finding> {
        if self.reaches() == Reaches::Nobody {
            let check = self.failed(Id::Relay)?;
            return Some(of(check, FindingId::RelayUnreachable, "no relay answers"));
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
        for (id, finding) in [
            (Id::Udp, FindingId::UdpBlocked),
            (Id::Range, FindingId::RangeBlocked),
            (Id::Mtu, FindingId::Mtu),
        ] {
            if let Some(check) = self.failed(id) {
                return Some(of(check, finding, &check.text));
            }
        }
        if self.verdict.relayed.contains(&PeerClass::EimApdf) {
            let check = self.failed(Id::Nat)?;
            let ports = match check.nat?.allocation.kind {
                AllocationKind::Random => "random ports",
                AllocationKind::Block => "ports of a block",
                AllocationKind::Sequential => "ports one after another",
                AllocationKind::Preserved | AllocationKind::Unknown => {
                    "a port for each destination"
                }
            };
            let text = format!("symmetric here: {ports}");
            return Some(of(check, FindingId::SymmetricHere, &text));
        }
        let timed_out = matches!(reason, NotDirect::Punch(Reason::Timeout));
        (timed_out && self.verdict.direct.contains(&PeerClass::EimApdf)).then(|| Finding {
            id: FindingId::SymmetricThere,
            text: "symmetric there, or nothing gets in there: the NAT here lets peers behind most others become direct".to_owned(),
            remedy: Some(Remedy::look_there()),
        })
    }

    fn failed(&self, id: Id) -> Option<&Check> {
        let failed = |check: &&Check| check.id == id && check.status == Status::Fail;
        self.checks.iter().find(failed)
    }
}

fn of(check: &Check, id: FindingId, text: &str) -> Finding {
    Finding {
        id,
        text: text.to_owned(),
        remedy: check.remedy.clone(),
    }
}
