//! Ports of a host that somebody else holds.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
};

use anyhow::{Context as _, Result};

use crate::host::Host;

/// Ports held, UDP and TCP, until dropped. The holder is the process of the test.
pub struct Held {
    _udp: Vec<UdpSocket>,
    _tcp: Vec<TcpListener>,
}

pub fn hold(host: &Host, ports: RangeInclusive<u16>) -> Result<Held> {
    host.device.run_sync(move || {
        let locals = || {
            ports
                .clone()
                .map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        };
        Ok(Held {
            _udp: locals()
                .map(|local| UdpSocket::bind(local).with_context(|| format!("udp {local}")))
                .collect::<Result<_>>()?,
            _tcp: locals()
                .map(|local| TcpListener::bind(local).with_context(|| format!("tcp {local}")))
                .collect::<Result<_>>()?,
        })
    })
}
