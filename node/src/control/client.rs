//! The command's side of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use libp2p::PeerId;
use tokio::net::UnixStream;

use super::{DialRequest, Report};
use crate::status::{Status, Why};

/// The largest answer that is read at once: ten thousand peers with some paths each.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// A way to ask a running node.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

/// The reports of a dial that the node makes.
#[derive(Debug)]
pub struct Reports {
    client: Client,
    answer: Incoming,
    /// What has come of the next line.
    buffer: Vec<u8>,
}

impl Reports {
    /// The next report; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`] if the node goes away.
    pub async fn next(&mut self) -> Result<Option<Report>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| self.client.broken(&error));
            }
            let Some(frame) = self.answer.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| self.client.broken(&error))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

/// The node did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node listens there.
    #[error("no node answers on the control socket {}: {source}: start one with `p2pnode run`, or set control.socket to its path", .path.display())]
    NoNode {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node refuses, and says why.
    #[error("{reason}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The node's words.
        reason: String,
    },
    /// The connection broke, or carried something else than was asked for.
    #[error("the node on the control socket {} broke off: {reason}", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        reason: String,
    },
}

impl Client {
    /// A client of the node at `path`. Does not connect yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Whether a node answers there.
    pub async fn is_served(&self) -> bool {
        UnixStream::connect(&self.path).await.is_ok()
    }

    /// The node's status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.read(Method::GET, "/v1/status", Bytes::new()).await
    }

    /// Why the path of `peer` is what it is.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused with 404 if the peer is not connected.
    pub async fn why(&self, peer: PeerId) -> Result<Why, ClientError> {
        self.read(Method::GET, &format!("/v1/why/{peer}"), Bytes::new())
            .await
    }

    /// Lets the node dial.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn dial(&self, request: &DialRequest) -> Result<Reports, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| self.broken(&error))?;
        let answer = self.send(Method::POST, "/v1/dial", body.into()).await?;
        Ok(Reports {
            client: self.clone(),
            answer,
            buffer: Vec::new(),
        })
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = self.send(method, target, body).await?;
        let bytes = Limited::new(answer, ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| self.broken(&error))?
            .to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Incoming, ClientError> {
        let stream =
            UnixStream::connect(&self.path)
                .await
                .map_err(|source| ClientError::NoNode {
                    path: self.path.clone(),
                    source,
                })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Ends with the answer, or with the caller's interest in it.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(hyper::header::HOST, "localhost")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let text = Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| self.broken(&error))?
            .to_bytes();
        Err(ClientError::Refused {
            status,
            reason: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}
