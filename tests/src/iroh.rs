//! The iroh endpoint and its relay (`tests/peers/iroh-peer`).

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    args::PATIENCE,
    host::Host,
    lab::Lab,
    node::{Launch, Process},
};

/// Where the relay serves HTTP: the port of `iroh-relay --dev`.
const RELAY_PORT: u16 = 3340;

pub struct IrohRelay {
    pub host: Host,
    pub process: Process,
    program: PathBuf,
}

impl IrohRelay {
    pub async fn start(lab: &Lab, program: &Path, name: &str) -> Result<Self> {
        let host = lab.public_host(name).await?;
        let listen = SocketAddr::new(IpAddr::from([0_u16; 8]), RELAY_PORT);
        let process = Launch::new(name, program)
            .args(["relay", "--listen", &listen.to_string()])
            .on(&host)?;
        process.event("listening", PATIENCE).await?;
        Ok(Self {
            host,
            process,
            program: program.to_owned(),
        })
    }

    pub fn url(&self, host: &Host) -> Result<String> {
        let ip6 = host.ip(false).is_err();
        let address = SocketAddr::new(self.host.ip(ip6)?, RELAY_PORT);
        Ok(format!("http://{address}"))
    }

    pub fn listen(&self, name: &str, host: &Host, port: u16) -> Result<Launch> {
        self.endpoint(name, "listen", host, port)
    }

    /// An endpoint of `host` that reaches another one: the one given, or the one that it will be told once it is at the relay.
    pub fn dial(
        &self,
        name: &str,
        host: &Host,
        port: u16,
        endpoint: Option<&str>,
        timeout_s: u64,
    ) -> Result<Launch> {
        let dial = self.endpoint(name, "dial", host, port)?;
        let dial = dial.args(["--timeout", &timeout_s.to_string()]);
        Ok(match endpoint {
            Some(endpoint) => dial.arg(endpoint),
            None => dial.told(),
        })
    }

    fn endpoint(&self, name: &str, command: &str, host: &Host, port: u16) -> Result<Launch> {
        let (url, port) = (self.url(host)?, port.to_string());
        let args = [command, "--relay", &url, "--port", &port];
        Ok(Launch::new(name, &self.program).args(args))
    }
}
