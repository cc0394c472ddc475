//! Whether long packets come through, and in which direction they are lost.

use p2pnode_transports::Transport;

use super::{
    Check, Facts, Id, PathFacts, Status,
    facts::LEAST_PAYLOAD,
    relay::takes_short,
    report::{check, of_path},
};
use crate::core::finding::Remedy;

/// The longest that is tried: what IPv6 leaves of 1,500 bytes. quinn looks no further.
pub(crate) const FULL_PAYLOAD: u16 = 1452;

pub(super) fn mtu(path: &PathFacts, facts: &Facts) -> Option<Check> {
    let payload = path.both_ways()?;
    Some(of_path(
        path,
        match path.transport {
            Transport::Quic => datagrams(path, payload),
            Transport::Tcp => segments(path, payload, takes_short(path, facts)),
        },
    ))
}

fn datagrams(path: &PathFacts, payload: u16) -> Check {
    if payload < LEAST_PAYLOAD {
        let way = way(path, LEAST_PAYLOAD);
        let text = format!("mtu: datagrams of {LEAST_PAYLOAD} bytes do not get through{way}");
        return check(Id::Mtu, Status::Fail, text, Some(Remedy::mtu()));
    }
    let status = match payload < FULL_PAYLOAD {
        true => Status::Warn,
        false => Status::Ok,
    };
    let text = match (path.payload, path.payload_in) {
        (Some(out), Some(back)) if out != back => {
            format!("{out} bytes of payload to the relay, {back} from it")
        }
        _ => format!("{payload} bytes of payload"),
    };
    check(Id::Mtu, status, text, None)
}

fn segments(path: &PathFacts, payload: u16, takes_short: bool) -> Check {
    let way = way(path, 1);
    let (status, rest) = match (payload, takes_short) {
        // A handshake has shown that these get through.
        (0, true) => (Status::Warn, "; the node uses short ones"),
        (0, false) => (Status::Fail, ", and no handshake ends with short ones"),
        _ => return check(Id::Mtu, Status::Ok, "full segments get through", None),
    };
    let text = format!("mtu: full TCP segments do not get through{way}{rest}");
    check(Id::Mtu, status, text, Some(Remedy::segments()))
}

/// The direction in which packets are lost. Long ones come from the relay only in answer to long ones, which so get there.
fn way(path: &PathFacts, least: u16) -> &'static str {
    let gets_there = path.payload.is_some_and(|payload| payload >= least);
    match gets_there {
        true => " from the relay to this node",
        false => " from this node to the relay",
    }
}
