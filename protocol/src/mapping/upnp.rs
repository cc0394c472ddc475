//! Actions of UPnP's [WANIPConnection:2](https://openconnectivity.org/upnp-specs/UPnP-gw-WANIPConnection-v2-Service.pdf), and the router's
//! description that names them.
//!
//! The XML is scanned for elements by name. A router that nests or escapes what it need not is not understood.

use std::net::{IpAddr, Ipv4Addr};

use super::{Http, Protocol};

/// The services that map ports, best first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// No more services are looked at.
const MOST_SERVICES: usize = 64;

/// A mapping is somebody else's.
pub const CONFLICT: u16 = 718;
/// Leases have to be 0: for ever.
pub const ONLY_PERMANENT: u16 = 725;
/// There is no such mapping.
pub const NO_SUCH_ENTRY: u16 = 714;

/// What the router calls a mapping.
const DESCRIPTION: &str = "p2pnode";

/// A service of the router that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its type.
    pub kind: &'static str,
    /// Where its actions are called.
    pub control: Http,
}

/// An action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What is the outside address?
    ExternalAddress,
    /// Who has this outside port?
    Entry {
        /// The protocol.
        protocol: Protocol,
        /// The outside port.
        external: u16,
    },
    /// Map the outside port to this client.
    Add {
        /// The protocol.
        protocol: Protocol,
        /// The outside port.
        external: u16,
        /// The client's address.
        client: Ipv4Addr,
        /// The client's port.
        port: u16,
        /// In seconds.
        lease: u32,
        /// Whether another outside port will do. `WANIPConnection:2` alone can choose one.
        any: bool,
    },
    /// End the mapping.
    Delete {
        /// The protocol.
        protocol: Protocol,
        /// The outside port.
        external: u16,
    },
}

/// The services of a description that came from `from`, best first. One whose control URL is at another host is left out.
#[must_use]
pub fn services(description: &str, from: &Http) -> Vec<Service> {
    let mut found: Vec<_> = elements(description, "service")
        .take(MOST_SERVICES)
        .filter_map(|service| {
            let kind = value(service, "serviceType")?;
            let rank = SERVICES.iter().position(|known| *known == kind)?;
            let control = from.join(value(service, "controlURL")?)?;
            let kind = SERVICES[rank];
            Some((rank, Service { kind, control }))
        })
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, service)| service).collect()
}

impl Service {
    /// The request that calls `action`.
    #[must_use]
    pub fn call(&self, action: Action) -> Vec<u8> {
        let (name, arguments) = action.write(self.can_choose());
        let arguments: String = arguments
            .iter()
            .map(|(name, value)| format!("<{name}>{value}</{name}>"))
            .collect();
        let kind = self.kind;
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{kind}\">{arguments}\
             </u:{name}></s:Body></s:Envelope>\r\n"
        );
        self.control.post(kind, name, &body)
    }

    /// Whether the router can choose an outside port.
    #[must_use]
    pub fn can_choose(&self) -> bool {
        self.kind == SERVICES[0]
    }
}

impl Action {
    fn write(self, can_choose: bool) -> (&'static str, Vec<(&'static str, String)>) {
        let entry = |protocol: Protocol, external: u16| {
            vec![
                ("NewRemoteHost", String::new()),
                ("NewExternalPort", external.to_string()),
                ("NewProtocol", protocol.name().to_owned()),
            ]
        };
        match self {
            Self::ExternalAddress => ("GetExternalIPAddress", Vec::new()),
            Self::Entry { protocol, external } => {
                ("GetSpecificPortMappingEntry", entry(protocol, external))
            }
            Self::Delete { protocol, external } => ("DeletePortMapping", entry(protocol, external)),
            Self::Add {
                protocol,
                external,
                client,
                port,
                lease,
                any,
            } => {
                let mut arguments = entry(protocol, external);
                arguments.extend([
                    ("NewInternalPort", port.to_string()),
                    ("NewInternalClient", client.to_string()),
                    ("NewEnabled", "1".to_owned()),
                    ("NewPortMappingDescription", DESCRIPTION.to_owned()),
                    ("NewLeaseDuration", lease.to_string()),
                ]);
                let name = if any && can_choose {
                    "AddAnyPortMapping"
                } else {
                    "AddPortMapping"
                };
                (name, arguments)
            }
        }
    }
}

/// The outside address in an answer to [`Action::ExternalAddress`].
#[must_use]
pub fn external_address(body: &str) -> Option<Ipv4Addr> {
    value(body, "NewExternalIPAddress")?.parse().ok()
}

/// The outside port in an answer to [`Action::Add`], where the router has chosen it.
#[must_use]
pub fn reserved_port(body: &str) -> Option<u16> {
    value(body, "NewReservedPort")?
        .parse()
        .ok()
        .filter(|port| *port > 0)
}

/// Whom an outside port is mapped to, in an answer to [`Action::Entry`].
#[must_use]
pub fn entry(body: &str) -> Option<(IpAddr, u16)> {
    let client = value(body, "NewInternalClient")?.parse().ok()?;
    Some((client, value(body, "NewInternalPort")?.parse().ok()?))
}

/// The code in a fault.
#[must_use]
pub fn fault(body: &str) -> Option<u16> {
    value(body, "errorCode")?.parse().ok()
}

/// The text of the first element of this name, without blanks around it. `None` if it has elements of its own.
#[must_use]
pub fn value<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let value = elements(xml, name).next()?.trim();
    (!value.contains('<')).then_some(value)
}

/// The contents of all elements of this name, whatever their prefix. Elements of one name within each other are not told apart.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let open = rest.find('<')?;
            let tag = &rest[open + 1..];
            let end = tag.find('>')?;
            let after = &tag[end + 1..];
            let full = tag[..end].split([' ', '\t', '\r', '\n']).next()?;
            let local = full.rsplit_once(':').map_or(full, |(_, local)| local);
            if local != name || tag[..end].ends_with('/') {
                rest = after;
                continue;
            }
            let close = after.find(&format!("</{full}>"))?;
            rest = &after[close..];
            return Some(&after[..close]);
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

    /// As miniupnpd writes it, shortened.
    const ROOT: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/ctl/L3F</controlURL></service></serviceList>
<deviceList><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>
<controlURL>/ctl/PPP</controlURL></service><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><SCPDURL>/WANIPCn.xml</SCPDURL><controlURL>ctl/IPConn</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>http://10.0.0.1/ctl</controlURL></service>
</serviceList></device></deviceList></device></root>"#;

    #[test]
    fn a_description_names_the_services_that_are_at_the_router_best_first() {
        let found = services(ROOT, &Http::new(ROUTER, 5000, "/rootDesc.xml"));
        let kinds: Vec<_> = found.iter().map(|service| service.kind).collect();
        assert_eq!(kinds, [SERVICES[0], SERVICES[2]]);
        assert_eq!(found[0].control, Http::new(ROUTER, 5000, "/ctl/IPConn"));
        assert!(found[0].can_choose());
    }

    #[test]
    fn an_action_is_called_with_its_arguments_in_their_order() {
        let service = services(ROOT, &Http::new(ROUTER, 5000, "/")).swap_remove(0);
        let add = Action::Add {
            protocol: Protocol::Udp,
            external: 40018,
            client: Ipv4Addr::new(192, 168, 1, 2),
            port: 40017,
            lease: 7200,
            any: true,
        };
        let request = String::from_utf8(service.call(add)).unwrap();
        for part in [
            "POST /ctl/IPConn HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n",
            "SOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:2#AddAnyPortMapping\"\r\n",
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>40018</NewExternalPort><NewProtocol>UDP</NewProtocol>\
             <NewInternalPort>40017</NewInternalPort><NewInternalClient>192.168.1.2</NewInternalClient><NewEnabled>1</NewEnabled>\
             <NewPortMappingDescription>p2pnode</NewPortMappingDescription><NewLeaseDuration>7200</NewLeaseDuration>",
        ] {
            assert!(request.contains(part), "{part}: {request}");
        }
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn answers_and_faults_are_read_and_what_is_missing_is_none() {
        let answer = |inner: &str| {
            format!("<s:Envelope><s:Body><u:R xmlns:u=\"x\">{inner}</u:R></s:Body></s:Envelope>")
        };
        let address = answer("<NewExternalIPAddress> 203.0.113.7 </NewExternalIPAddress>");
        assert_eq!(
            external_address(&address),
            Some(Ipv4Addr::new(203, 0, 113, 7))
        );
        assert_eq!(
            reserved_port(&answer("<NewReservedPort>41000</NewReservedPort>")),
            Some(41000)
        );
        assert_eq!(
            reserved_port(&answer("<NewReservedPort>0</NewReservedPort>")),
            None
        );
        let whose = "<NewInternalPort>80</NewInternalPort><NewInternalClient>192.168.1.9</NewInternalClient>";
        assert_eq!(
            entry(&answer(whose)),
            Some(("192.168.1.9".parse().unwrap(), 80))
        );
        let fault =
            "<s:Fault><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></s:Fault>";
        assert_eq!(super::fault(&answer(fault)), Some(CONFLICT));
        for bad in [
            "",
            "<",
            "<a",
            "<errorCode>",
            "<errorCode><x/></errorCode>",
            "<errorCode/>",
        ] {
            assert_eq!(super::fault(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_that_a_router_sends_panics_or_leads_to_another_host() {
        let mut seed = 1_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 40).unwrap_or_default()
        };
        let texts = [ROOT.as_bytes(), b"HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1:1/\r\nST: x:InternetGatewayDevice:1\r\n\r\n"];
        for _ in 0..3000 {
            let mut bytes = texts[next() % texts.len()].to_vec();
            for _ in 0..1 + next() % 8 {
                let at = next() % bytes.len();
                bytes[at] = u8::try_from(next() % 256).unwrap();
            }
            bytes.truncate(1 + next() % bytes.len());
            super::super::fuzz::read_anything(&bytes, ROUTER);
        }
    }
}
