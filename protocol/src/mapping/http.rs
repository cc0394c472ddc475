//! As much of HTTP/1.1 as UPnP needs.

use std::net::{IpAddr, SocketAddr};

/// No router's description or answer is longer.
const LARGEST: usize = 128 * 1024;

/// No head of an answer is longer.
const LONGEST_HEAD: usize = 16 * 1024;

/// A place at the router that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The router.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// Begins with `/`, and has neither blanks nor control characters.
    pub path: String,
}

impl Http {
    /// A place. A path that no request line can have becomes `/`.
    #[must_use]
    pub fn new(host: IpAddr, port: u16, path: &str) -> Self {
        let is_plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        let path = if is_plain { path } else { "/" };
        Self {
            host,
            port,
            path: path.to_owned(),
        }
    }

    /// Reads `http://HOST:PORT/PATH`. `None` unless the host is `router`, by its address.
    #[must_use]
    pub fn read(url: &str, router: IpAddr) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_router = |host: IpAddr| host == router;
        let with_port = authority.parse::<SocketAddr>().ok();
        let with_port = with_port.map(|addr| (addr.ip(), addr.port()));
        let plain = || {
            authority
                .trim_matches(['[', ']'])
                .parse()
                .ok()
                .map(|ip| (ip, 80))
        };
        let (host, port) = with_port.or_else(plain)?;
        (is_router(host) && port > 0).then(|| Self::new(host, port, path))
    }

    /// The place that a reference in a document from here means. `None` if that is another host.
    #[must_use]
    pub fn join(&self, reference: &str) -> Option<Self> {
        if reference.contains("://") {
            return Self::read(reference, self.host);
        }
        let path = match reference.strip_prefix('/') {
            // Another host with the same scheme.
            Some(rest) if rest.starts_with('/') => return None,
            Some(_) => reference.to_owned(),
            None => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{reference}")
            }
        };
        Some(Self::new(self.host, self.port, &path))
    }

    /// Where to connect to.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// A request for the document.
    #[must_use]
    pub fn get(&self) -> Vec<u8> {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.path,
            self.addr()
        )
        .into_bytes()
    }

    /// A call of an action ([UPnP Device Architecture 1.1, 3.2](https://openconnectivity.org/upnp-specs/UPnP-arch-DeviceArchitecture-v1.1.pdf)).
    #[must_use]
    pub fn post(&self, service: &str, action: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
             SOAPAction: \"{service}#{action}\"\r\nContent-Length: {}\r\n\r\n{body}",
            self.path,
            self.addr(),
            body.len()
        )
        .into_bytes()
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The content.
    pub body: String,
}

impl Response {
    /// More is not read.
    pub const LARGEST: usize = LARGEST;

    /// Reads what the router sent until it closed the connection. `None` if that is no answer, or not all of it.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..bytes.len().min(LARGEST))?;
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let body = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
        let header = |name: &str| {
            lines.clone().find_map(|line| {
                let (its, value) = line.split_once(':')?;
                its.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let is_chunked = header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let body = if is_chunked {
            chunks(body)?
        } else {
            let length = header("content-length")
                .map(str::parse::<usize>)
                .transpose()
                .ok()?;
            body.get(..length.unwrap_or(body.len()))?.to_vec()
        };
        Some(Self {
            status: status.parse().ok()?,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Whether all of the answer is there before the connection is closed: some routers keep it open. Cheap, as it is asked for each
    /// piece that comes.
    #[must_use]
    pub fn is_whole(bytes: &[u8]) -> bool {
        let start = &bytes[..bytes.len().min(LONGEST_HEAD)];
        let Some(end) = start.windows(4).position(|four| four == b"\r\n\r\n") else {
            return bytes.len() >= LONGEST_HEAD;
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let header = |name: &str| {
            head.split("\r\n").find_map(|line| {
                let (its, value) = line.split_once(':')?;
                its.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let body = &bytes[end + 4..];
        let is_whole = match (header("transfer-encoding"), header("content-length")) {
            (Some(_), _) => body.ends_with(b"0\r\n\r\n") && Self::read(bytes).is_some(),
            (None, Some(length)) => length
                .parse()
                .is_ok_and(|length: usize| body.len() >= length),
            (None, None) => false,
        };
        bytes.len() >= LARGEST || is_whole
    }
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 1));

    #[test]
    fn a_place_is_at_the_router_by_its_address_or_it_is_none() {
        let place = Http::read("http://192.168.1.1:5000/rootDesc.xml", ROUTER).unwrap();
        assert_eq!(place, Http::new(ROUTER, 5000, "/rootDesc.xml"));
        assert_eq!(Http::read("http://192.168.1.1", ROUTER).unwrap().port, 80);
        for other in [
            "http://192.168.1.2:5000/",
            "http://169.254.169.254/latest",
            "http://router/",
            "https://192.168.1.1/",
            "http://192.168.1.1:0/",
            "http://user@192.168.1.1/",
            "http://192.168.1.1.example.net/",
            "192.168.1.1",
        ] {
            assert_eq!(Http::read(other, ROUTER), None, "{other}");
        }
        assert_eq!(place.join("ctl/IPConn").unwrap().path, "/ctl/IPConn");
        assert_eq!(place.join("/ctl").unwrap().path, "/ctl");
        assert_eq!(place.join("http://192.168.1.1:81/c").unwrap().port, 81);
        for other in ["//10.0.0.1/ctl", "http://10.0.0.1/ctl"] {
            assert_eq!(place.join(other), None, "{other}");
        }
        let split = place.join("/a\r\nHost: evil").unwrap();
        assert_eq!(split.path, "/");
    }

    #[test]
    fn an_answer_is_read_by_its_length_its_chunks_or_its_end() {
        let read = |text: &str| Response::read(text.as_bytes());
        let whole = Some(Response {
            status: 200,
            body: "abcd".to_owned(),
        });
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcdMORE",
            "HTTP/1.0 200 OK\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2;x\r\ncd\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(text), whole, "{text}");
        }
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab",
            "HTTP/1.1 OK\r\n\r\n",
            "SSH-2.0",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(!Response::is_whole(b"HTTP/1.0 200 OK\r\n\r\nab"));
        assert!(Response::is_whole(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
        ));
    }
}
