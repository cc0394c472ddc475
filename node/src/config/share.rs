//! The ports of one node in a range that several nodes share.
//!
//! If pods behind one NAT used the same port, the NAT would rewrite the ports, and neither the range nor the advertised port
//! would hold. So each pod takes a part of the range, by the ordinal that the cluster gives it.

use p2pnode_transports::PortRange;

pub(super) const PORTS_PER_ORDINAL: &str = "dial.ports_per_ordinal";
pub(super) const ORDINAL: &str = "dial.ordinal";

/// Why a node has no part of the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The key to correct.
    pub(super) key: &'static str,
    /// The problem and the remedy.
    pub(super) problem: String,
}

/// The ports of the node with this `ordinal` in `range`, which is divided into parts of `ports_per_ordinal`; 0: not divided.
pub(super) fn part_of(
    range: PortRange,
    ports_per_ordinal: usize,
    ordinal: Option<usize>,
) -> Result<PortRange, Fault> {
    if ports_per_ordinal == 0 {
        return Ok(range);
    }
    let fault = |key, problem| Err(Fault { key, problem });
    let nodes = range.len() / ports_per_ordinal;
    if nodes == 0 {
        let problem = format!(
            "{ports_per_ordinal} is more than the {} ports of dial.port_range {range}; give each node fewer ports, or widen the range",
            range.len()
        );
        return fault(PORTS_PER_ORDINAL, problem);
    }
    let Some(ordinal) = ordinal else {
        let problem = format!(
            "is not set, and {PORTS_PER_ORDINAL} is {ports_per_ordinal}; give this node's number, from 0: in a pod, \
             P2PNODE_DIAL_ORDINAL from the label apps.kubernetes.io/pod-index"
        );
        return fault(ORDINAL, problem);
    };
    range.part(ordinal, ports_per_ordinal).map_or_else(
        || {
            let problem = format!(
                "{ordinal} has no ports: dial.port_range {range} is enough for {nodes} nodes with {ports_per_ordinal} ports \
                 each, numbers 0 to {}; widen the range, or give each node fewer ports",
                nodes - 1
            );
            fault(ORDINAL, problem)
        },
        Ok,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn range() -> PortRange {
        "40000-40050".parse().unwrap()
    }

    #[test]
    fn each_ordinal_has_ports_of_its_own() {
        for (ordinal, ports) in [(0, "40000-40009"), (1, "40010-40019"), (4, "40040-40049")] {
            let share = part_of(range(), 10, Some(ordinal)).unwrap();
            assert_eq!(share.to_string(), ports);
        }
        // All of it is a part too.
        assert_eq!(part_of(range(), 51, Some(0)), Ok(range()));
    }

    #[test]
    fn a_range_that_is_not_divided_is_whole_for_every_ordinal() {
        for ordinal in [None, Some(0), Some(1000)] {
            assert_eq!(part_of(range(), 0, ordinal), Ok(range()));
        }
    }

    #[test]
    fn an_ordinal_without_ports_is_named_with_the_last_that_has_some() {
        let fault = part_of(range(), 10, Some(5)).unwrap_err();
        assert_eq!(fault.key, ORDINAL);
        assert!(
            fault.problem.starts_with("5 has no ports: ")
                && fault.problem.contains("numbers 0 to 4;"),
            "{}",
            fault.problem
        );
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let fault = part_of(range(), 10, None).unwrap_err();
        assert_eq!(fault.key, ORDINAL);
        assert!(
            fault.problem.contains("P2PNODE_DIAL_ORDINAL"),
            "{}",
            fault.problem
        );
        // Whatever the ordinal is.
        for ordinal in [None, Some(0), Some(7)] {
            let fault = part_of(range(), 52, ordinal).unwrap_err();
            assert_eq!(fault.key, PORTS_PER_ORDINAL);
            assert!(
                fault.problem.contains("the 51 ports of"),
                "{}",
                fault.problem
            );
        }
    }
}
