//! The kinds of values that only a node has: how each is written, read and printed.

use p2pnode_daemon::config::{
    Form, Kind,
    kind::{self},
};
use p2pnode_protocol::{addr, quote};
use p2pnode_transports::{Congestion, FamilyPolicy, PortRange, Transport};

use super::{AdvertiseTemplate, PunchFilter, RelayAddr, Rotate, Service};

pub(super) const PORT_RANGE: Kind<PortRange> = Kind {
    expects: "a range of ports such as 40000-40050, or one port",
    form: Form::TextOrInteger,
    parse: kind::from_str,
    print: PortRange::to_string,
};

pub(super) const FAMILY: Kind<FamilyPolicy> = Kind {
    expects: "auto, prefer-ip4, prefer-ip6, only-ip4 or only-ip6",
    form: Form::Choice(&["auto", "prefer-ip4", "prefer-ip6", "only-ip4", "only-ip6"]),
    parse: kind::from_str,
    print: FamilyPolicy::to_string,
};

pub(super) const CONGESTION: Kind<Congestion> = Kind {
    expects: "cubic or bbr",
    form: Form::Choice(&["cubic", "bbr"]),
    parse: kind::from_str,
    print: Congestion::to_string,
};

pub(super) const TRANSPORT: Kind<Transport> = Kind {
    expects: "quic or tcp",
    form: Form::Choice(&["quic", "tcp"]),
    parse: |text| kind::choose(text, &[("quic", Transport::Quic), ("tcp", Transport::Tcp)]),
    print: Transport::to_string,
};

pub(super) const SEARCH: Kind<bool> = Kind {
    expects: "auto or off",
    form: Form::Choice(&["auto", "off"]),
    parse: |text| kind::choose(text, &[("auto", true), ("off", false)]),
    print: |searches| if *searches { "auto" } else { "off" }.to_owned(),
};

pub(super) const ROTATE: Kind<Rotate> = Kind {
    expects: "auto, off or the age at which mappings end, such as 60s",
    form: Form::Text,
    parse: |text| match text {
        "auto" => Ok(Rotate::Auto),
        "off" => Ok(Rotate::Off),
        age => (kind::DURATION.parse)(age).map(Rotate::After),
    },
    print: |rotate| match rotate {
        Rotate::Auto => "auto".to_owned(),
        Rotate::Off => "off".to_owned(),
        Rotate::After(age) => (kind::DURATION.print)(age),
    },
};

pub(super) const SERVICE: Kind<Service> = Kind {
    expects: "a name and a port such as p2pnode.default.svc.cluster.local:443",
    form: Form::Text,
    parse: kind::from_str,
    print: Service::to_string,
};

pub(super) const RELAY: Kind<RelayAddr> = Kind {
    expects: "a relay's address such as /dns/relay.example.net/udp/4001/quic-v1/p2p/12D3KooW...",
    form: Form::Text,
    parse: relay,
    print: RelayAddr::to_string,
};

pub(super) const ADVERTISE: Kind<AdvertiseTemplate> = Kind {
    expects: "an address such as /ip4/198.51.100.7/udp/{port}/quic-v1",
    form: Form::Text,
    parse: kind::from_str,
    print: AdvertiseTemplate::to_string,
};

pub(super) const FILTER: Kind<PunchFilter> = Kind {
    expects: "a network, and perhaps a transport, such as 10.0.0.0/8 or fd00::/8 quic",
    form: Form::Text,
    parse: kind::from_str,
    print: PunchFilter::to_string,
};

fn relay(text: &str) -> Result<RelayAddr, String> {
    let endpoint = addr::dialable(text).map_err(|error| error.to_string())?;
    match endpoint.peer {
        Some(peer) => Ok(RelayAddr {
            peer,
            addr: endpoint.addr,
        }),
        None => Err(format!(
            "relay {} names no peer id; append /p2p/<id>, as `relay-node id` prints it",
            quote(text)
        )),
    }
}
