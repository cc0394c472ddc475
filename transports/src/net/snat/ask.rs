//! A batch of messages to the kernel, and its answers.

use std::io;

use netlink_sys::Socket;

use crate::net::interfaces::netlink::{self, NLMSG_ERROR};

/// Sends a batch. The kernel has answered every message of it when that returns.
pub(super) fn ask(socket: &Socket, batch: &[u8]) -> io::Result<()> {
    socket.send(batch, 0)?;
    loop {
        let datagram = match socket.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        for message in netlink::messages(&datagram) {
            let error = netlink::error(message);
            if netlink::u16_at(message, 4) == Some(NLMSG_ERROR) && error.raw_os_error() != Some(0) {
                return Err(error);
            }
        }
    }
}
