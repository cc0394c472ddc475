//! `healthcheck`: asks the process that runs with the same configuration whether it is alive and ready.
//!
//! Probes that execute a command use it, in an image without a shell or an HTTP client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::{exit::Usage, remedy};

/// An answer takes milliseconds. A process that has not answered in this time serves nobody.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of an answer that are read: a few lines of what is missing.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Arguments of `healthcheck`.
#[derive(Debug, Clone, Copy, Args)]
pub struct HealthArgs {
    /// Whether the process answers at all
    #[arg(long, conflicts_with = "ready")]
    pub live: bool,
    /// Whether the process is ready for work; the default
    #[arg(long)]
    pub ready: bool,
}

/// Where the process that runs with this configuration answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serves {
    /// The address of the admin HTTP server.
    pub admin: Option<SocketAddr>,
    /// The path of the control socket.
    pub control: Option<PathBuf>,
}

impl HealthArgs {
    fn path(self) -> &'static str {
        if self.live { "/livez" } else { "/readyz" }
    }

    /// Asks, and returns the answer in one line.
    ///
    /// Asks the admin server if one is configured, else the control socket: several processes may share the default socket, and
    /// only one the address.
    ///
    /// # Errors
    /// What is missing, in one line, if the answer is no; why nothing answers; [`Usage`] if neither is configured.
    pub async fn ask(self, serves: &Serves) -> anyhow::Result<String> {
        let asked = async {
            match (serves.admin, &serves.control) {
                (Some(admin), _) => {
                    let admin = from_here(admin);
                    let answer = async {
                        let stream = TcpStream::connect(admin).await?;
                        get(stream, self.path()).await
                    };
                    answer.await.with_context(|| {
                        format!("nothing answers on {admin}, the admin.listen of this configuration")
                    })
                }
                (None, Some(control)) => {
                    let stream = UnixStream::connect(control).await.map_err(|error| {
                        let what = if error.kind() == io::ErrorKind::PermissionDenied {
"this user may not ask"
} else {
"nothing answers on"
};
                        let remedy = remedy::of(&error, control);
                        let remedy = remedy.map(|remedy| format!(": {remedy}"));
                        anyhow::anyhow!(
                            "{what} {}, the control.socket of this configuration: {error}{}",
                            control.display(),
                            remedy.unwrap_or_default()
                        )
                    })?;
                    get(stream, self.path()).await
                }
                (None, None) => Err(Usage(
                    "admin.listen is not set, so there is nothing to ask; set it, for example to 127.0.0.1:9464".to_owned(),
                )
                .into()),
            }
        };
        let (status, body) = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
            anyhow::anyhow!(
                "no answer within {}s: the process is stopped, or has too much to do",
                PATIENCE.as_secs()
            )
        })??;
        let line = one_line(&body);
        if line.is_empty() {
            bail!(
                "the process answers {status} without a word: it is of another version than this command"
            );
        }
        if !status.is_success() {
            bail!("{line}");
        }
        Ok(line)
    }
}

/// The address at which a listener of this host on `addr` is reached from this host.
fn from_here(addr: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if !addr.ip().is_unspecified() {
        addr.ip()
    } else if addr.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    SocketAddr::new(ip, addr.port())
}

/// `not ready`, and the lines of what is missing, on one line.
fn one_line(body: &str) -> String {
    let mut lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let rest: Vec<_> = lines.collect();
    if rest.is_empty() {
        first
    } else {
        format!("{first}: {}", rest.join("; "))
    }
}

async fn get<S>(stream: S, path: &str) -> anyhow::Result<(StatusCode, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with the answer, or with this process.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?
        .to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::sync::Arc;

    use prometheus_client::registry::Registry;
    use tokio::net::UnixListener;

    use super::*;
    use crate::{
        admin::{self, Health, Readiness},
        exit::Exit,
        http::{self, Bounds},
        signals::Shutdown,
    };

    const LIVE: HealthArgs = HealthArgs {
        live: true,
        ready: false,
    };
    const READY: HealthArgs = HealthArgs {
        live: false,
        ready: false,
    };

    fn health(readiness: &Readiness) -> Health {
        Health {
            readiness: readiness.clone(),
            metrics: Arc::new(Registry::default()),
        }
    }

    #[tokio::test]
    async fn a_process_is_alive_from_the_start_and_ready_when_nothing_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let readiness = Readiness::new([("reservation", "none held"), ("sockets", "none bound")]);
        let tcp = admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        // Bound to every address, as in a pod.
        let admin = SocketAddr::from(([0, 0, 0, 0], tcp.local_addr().unwrap().port()));
        let (_trigger, shutdown) = Shutdown::pair();
        let over_tcp = http::serve(
            tcp,
            admin::router(health(&readiness)),
            Bounds::admin(&[]),
            shutdown.requested(),
        );
        let unix = UnixListener::bind(&socket).unwrap();
        let (_trigger, shutdown) = Shutdown::pair();
        let over_unix = http::serve(
            unix,
            admin::router(health(&readiness)),
            Bounds::control(),
            shutdown.requested(),
        );
        tokio::spawn(over_tcp);
        tokio::spawn(over_unix);

        let ways = [
            Serves {
                admin: Some(admin),
                // Not asked: the socket may be another process's.
                control: Some(directory.path().join("nobody.sock")),
            },
            Serves {
                admin: None,
                control: Some(socket),
            },
        ];
        for serves in &ways {
            assert_eq!(LIVE.ask(serves).await.unwrap(), "alive");
            assert_eq!(
                READY.ask(serves).await.unwrap_err().to_string(),
                "not ready: reservation: none held; sockets: none bound"
            );
        }
        readiness.present("reservation");
        readiness.present("sockets");
        for serves in &ways {
            assert_eq!(LIVE.ask(serves).await.unwrap(), "alive");
            assert_eq!(READY.ask(serves).await.unwrap(), "ready");
        }
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_is_named() {
        let listener = admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let admin = listener.local_addr().unwrap();
        drop(listener);
        let serves = Serves {
            admin: Some(admin),
            control: None,
        };
        let error = LIVE.ask(&serves).await.unwrap_err();
        assert!(error.to_string().contains(&admin.to_string()), "{error}");
        assert_eq!(Exit::of(&error), Exit::Failure);

        let serves = Serves {
            admin: None,
            control: Some("/nowhere/control.sock".into()),
        };
        let error = READY.ask(&serves).await.unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/control.sock"),
            "{error}"
        );

        let error = READY.ask(&Serves::default()).await.unwrap_err();
        assert!(error.to_string().contains("admin.listen"), "{error}");
        assert_eq!(Exit::of(&error), Exit::Usage);
    }

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.0.0.7:9464", "10.0.0.7:9464"),
        ] {
            assert_eq!(from_here(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
