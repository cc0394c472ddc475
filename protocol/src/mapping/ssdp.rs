//! How a router with UPnP is found: SSDP ([UPnP Device Architecture 1.1, 1.3](https://openconnectivity.org/upnp-specs/UPnP-arch-DeviceArchitecture-v1.1.pdf)).

use std::net::IpAddr;

use super::Http;

/// The port that answers.
pub const PORT: u16 = 1900;

/// No answer is longer.
pub const LARGEST: usize = 2048;

/// What is searched for: gateways of both versions.
pub const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// A search for `target`, sent to the router alone and not to its group: no other device is asked.
#[must_use]
pub fn search(router: IpAddr, target: &str) -> Vec<u8> {
    let host = std::net::SocketAddr::new(router, PORT);
    format!("M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n").into_bytes()
}

/// The description of the gateway that an answer names. `None` if it is at another host than the router.
#[must_use]
pub fn location(answer: &str, router: IpAddr) -> Option<Http> {
    let answer = answer.get(..LARGEST).unwrap_or(answer);
    let mut lines = answer.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?;
    let (mut location, mut is_gateway) = (None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "location" => location = Http::read(value.trim(), router),
            "st" => is_gateway = value.contains(":InternetGatewayDevice:"),
            _ => {}
        }
    }
    location.filter(|_| is_gateway && status.split(' ').nth(1) == Some("200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 1));

    #[test]
    fn the_router_names_its_own_description_or_none() {
        let answer = |location: &str, target: &str| {
            let text = format!(
                "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {target}\r\nLocation: {location}\r\n\r\n"
            );
            super::location(&text, ROUTER)
        };
        let own = "http://192.168.1.1:5000/rootDesc.xml";
        assert_eq!(answer(own, TARGETS[0]), Http::read(own, ROUTER));
        assert_eq!(answer("http://10.0.0.1/rootDesc.xml", TARGETS[0]), None);
        assert_eq!(
            answer(own, "urn:schemas-upnp-org:device:MediaServer:1"),
            None
        );
        assert_eq!(super::location("HTTP/1.1 404 No\r\n\r\n", ROUTER), None);
        assert!(
            search(ROUTER, TARGETS[1])
                .starts_with(b"M-SEARCH * HTTP/1.1\r\nHOST: 192.168.1.1:1900\r\n")
        );
    }
}
