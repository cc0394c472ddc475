//! The control socket, from the side of a command.

use std::{
    future::Future,
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::sleep};

use super::Owner;
use crate::remedy;

/// The most bytes of an answer that is read whole: ten thousand peers with some paths each.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// How long a process may take to answer, or to begin an answer in lines.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to get into the queue of a process.
const AGAIN: Duration = Duration::from_millis(50);

/// Asks a running process.
#[derive(Debug, Clone)]
pub struct Client {
    owner: Owner,
    path: PathBuf,
}

/// An answer in lines, each the JSON of a `T`.
#[derive(Debug)]
pub struct Lines<T> {
    client: Client,
    answer: Incoming,
    /// The part of the next line that has arrived.
    buffer: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// [`Self::next`], within that time.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn next_within(&mut self, time: Duration) -> Result<Option<T>, ClientError> {
        let client = self.client.clone();
        client.in_time(time, self.next()).await
    }

    /// The next line; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`] if the process goes away.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return self.client.decode(&line).map(Some);
            }
            let Some(frame) = self.answer.frame().await else {
                return match std::mem::take(&mut self.buffer) {
                    rest if rest.is_empty() => Ok(None),
                    rest => self.client.decode(&rest).map(Some),
                };
            };
            let frame = frame.map_err(|error| self.client.broken(&error))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens there.
    #[error("no {} answers on the control socket {}: {source}: start one with `{}`, or set control.socket to its path", .owner.noun, .path.display(), .owner.run)]
    NotRunning {
        /// What should run there.
        owner: Owner,
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// This user may not open the socket, or the system refuses otherwise.
    #[error("cannot open the control socket {} of the {}: {source}: {remedy}", .path.display(), .owner.noun)]
    System {
        /// The process that was asked.
        owner: Owner,
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The process does not know the request, or its answer is not what this version knows.
    #[error("the {} on the control socket {} is of another version than this command ({reason}): use the command of its version, or restart it", .owner.noun, .path.display())]
    OtherVersion {
        /// The process that was asked.
        owner: Owner,
        /// The socket.
        path: PathBuf,
        /// What is not known.
        reason: String,
    },
    /// The process is there and does not answer.
    #[error("the {} on the control socket {} does not answer within {}: it is stopped, or has too much to do", .owner.noun, .path.display(), seconds(*.patience))]
    Silent {
        /// How long it had time.
        patience: Duration,
        /// The process that was asked.
        owner: Owner,
        /// The socket.
        path: PathBuf,
    },
    /// The process refuses.
    #[error("{reason}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Why, in one line.
        reason: String,
    },
    /// The connection broke.
    #[error("the {} on the control socket {} broke off: {reason}: it is ending, or was restarted; ask again", .owner.noun, .path.display())]
    Broken {
        /// The process that was asked.
        owner: Owner,
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

impl Client {
    /// A client of the `owner` at `path`. Does not connect yet.
    #[must_use]
    pub fn new(owner: Owner, path: &Path) -> Self {
        Self {
            owner,
            path: path.to_owned(),
        }
    }

    /// Whether a process listens there.
    ///
    /// # Errors
    ///
    /// [`ClientError::System`] if that cannot be seen.
    pub async fn is_served(&self) -> Result<bool, ClientError> {
        match UnixStream::connect(&self.path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => {
                let error = self.unconnected(error);
                let is_absent = matches!(error, ClientError::NotRunning { .. });
                if is_absent { Ok(false) } else { Err(error) }
            }
        }
    }

    /// The answer to `GET target`, which is the JSON of a `T`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.get_within(target, PATIENCE).await
    }

    /// The same for an answer that may take longer.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn get_within<T: DeserializeOwned>(
        &self,
        target: &str,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let bytes = self.in_time(patience, async {
            let answer = self.send(Method::GET, target, Bytes::new()).await?;
            let answer = Limited::new(answer, ANSWER_LIMIT).collect().await;
            Ok(answer.map_err(|error| self.broken(&error))?.to_bytes())
        });
        self.decode(&bytes.await?)
    }

    /// The answer to `POST target` with the JSON of `request`, in lines.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn post<T>(
        &self,
        target: &str,
        request: &impl Serialize,
    ) -> Result<Lines<T>, ClientError> {
        self.post_within(target, request, PATIENCE).await
    }

    /// The same for a command that has less time.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn post_within<T>(
        &self,
        target: &str,
        request: &impl Serialize,
        time: Duration,
    ) -> Result<Lines<T>, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| self.broken(&error))?;
        let patience = time.min(PATIENCE);
        let answer = self
            .in_time(patience, self.send(Method::POST, target, body.into()))
            .await?;
        Ok(Lines {
            client: self.clone(),
            answer,
            buffer: Vec::new(),
            of: PhantomData,
        })
    }

    async fn in_time<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let silent = |_| ClientError::Silent {
            patience,
            owner: self.owner,
            path: self.path.clone(),
        };
        tokio::time::timeout(patience, answer)
            .await
            .map_err(silent)?
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Incoming, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // The connection ends with the answer, or when the caller drops it.
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
        let reason = String::from_utf8_lossy(&text).trim().replace('\n', " ");
        let is_known = match status {
            StatusCode::NOT_FOUND => !reason.is_empty(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNPROCESSABLE_ENTITY => false,
            _ => true,
        };
        Err(match is_known {
            true => ClientError::Refused { status, reason },
            false => self.other_version(format!("it answers {status} {reason}").trim()),
        })
    }

    /// A process that is slow to take clients has some in its queue, and the queue may be full.
    async fn connect(&self) -> Result<UnixStream, ClientError> {
        loop {
            match UnixStream::connect(&self.path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(AGAIN).await,
                connected => return connected.map_err(|source| self.unconnected(source)),
            }
        }
    }

    fn unconnected(&self, source: io::Error) -> ClientError {
        let (owner, path) = (self.owner, self.path.clone());
        let is_absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        match remedy::of(&source, &path).filter(|_| !is_absent.contains(&source.kind())) {
            Some(remedy) => ClientError::System {
                owner,
                path,
                source,
                remedy,
            },
            None => ClientError::NotRunning {
                owner,
                path,
                source,
            },
        }
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| match error.is_eof() {
            true => self.broken(&"the answer is not whole"),
            false => self.other_version(&error.to_string()),
        })
    }

    fn other_version(&self, reason: &str) -> ClientError {
        ClientError::OtherVersion {
            owner: self.owner,
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken {
            owner: self.owner,
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}
