//! A connection that was accepted and that nobody has taken yet.

use std::{io, mem};

use tokio::net::TcpStream;

use crate::net::socket;

/// A connection that nobody has taken yet. One that is dropped is reset, whether something has arrived on it or not. If nothing has,
/// the kernel would send a FIN, which the remote takes for the end of a program.
#[derive(Debug)]
pub(crate) struct Accepted(pub(crate) io::Result<TcpStream>);

impl Accepted {
    pub(crate) fn take(mut self) -> io::Result<TcpStream> {
        mem::replace(&mut self.0, Err(io::ErrorKind::NotConnected.into()))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Ok(stream) = &self.0
            && let Err(error) = socket::reset_on_close(stream)
        {
            tracing::debug!(%error, "cannot reset a connection that is refused");
        }
    }
}
