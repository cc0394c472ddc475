//! The command's side of the control socket.

use std::{path::Path, time::Duration};

use libp2p::PeerId;
use p2pnode_daemon::control::{self, ClientError, Lines};

use super::{DialRequest, EndRequest, ForwardRequest, Found, MapRequest, OWNER, ServeRequest};
use crate::{
    core::{mappings::Exposure, netcheck},
    observe::status::{Status, Why},
    services::Line,
    swarm::netcheck::LONGEST,
};

/// How long the body of an answer may take that the node has at hand.
const SOON: Duration = Duration::from_secs(5);

/// How often a node that takes its time is asked whether it is there.
const BREATH: Duration = Duration::from_secs(5);

/// A way to ask a running node.
#[derive(Debug, Clone)]
pub(crate) struct Client(control::Client);

/// The reports of a dial that the node makes.
pub(crate) type Reports = Lines<super::Report>;

impl Client {
    /// A client of the node at `path`. Does not connect yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self(control::Client::new(OWNER, path))
    }

    /// Whether a node answers there.
    ///
    /// # Errors
    ///
    /// [`ClientError::System`] if that cannot be seen.
    pub(crate) async fn is_served(&self) -> Result<bool, ClientError> {
        self.0.is_served().await
    }

    /// The node's status.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.0.get("/v1/status").await
    }

    /// The node's status with its sessions.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn status_with_sessions(&self) -> Result<Status, ClientError> {
        self.0.get("/v1/status/sessions").await
    }

    /// Lets the node offer a service as long as the answer exists.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn serve(&self, request: &ServeRequest) -> Result<Lines<Line>, ClientError> {
        self.0.post("/v1/serve", request).await
    }

    /// Lets the node bring services here as long as the answer exists.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn forward(
        &self,
        request: &ForwardRequest,
    ) -> Result<Lines<Line>, ClientError> {
        self.0.post("/v1/forward", request).await
    }

    /// Lets the node end what a command has asked for, while the reports of its sessions still come.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn end(&self, request: &EndRequest) -> Result<(), ClientError> {
        let _: Lines<()> = self.0.post("/v1/end", request).await?;
        Ok(())
    }

    /// Lets the node expose a port as long as the answer exists.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused with 409 if the node has no ports mapped.
    pub(crate) async fn map(&self, request: &MapRequest) -> Result<Lines<Exposure>, ClientError> {
        self.0.post("/v1/map", request).await
    }

    /// What `peer` offers to the node.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn services(&self, peer: PeerId) -> Result<Found, ClientError> {
        let mut found = self.0.post(&format!("/v1/services/{peer}"), &()).await?;
        let stopped = || Found::NoAnswer("the node is stopping".to_owned());
        // The node has to reach the peer first.
        let found = self.while_it_lives(found.next()).await?;
        Ok(found.unwrap_or_else(stopped))
    }

    /// Why the path of `peer` is what it is.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused with 404 if the peer is not connected, and with 400 if `peer` is neither an id nor a name.
    pub(crate) async fn why(&self, peer: &str) -> Result<Why, ClientError> {
        self.0.get(&format!("/v1/why/{peer}")).await
    }

    /// What the node sees of its network.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn netcheck(&self, lifetime: bool) -> Result<netcheck::Report, ClientError> {
        match lifetime {
            true => {
                let asked = self.0.get_within("/v1/netcheck/lifetime", LONGEST * 2);
                self.while_it_lives(asked).await
            }
            false => self.0.get("/v1/netcheck").await,
        }
    }

    /// What the node answers in its own time. A node that stands still meanwhile is not waited for.
    async fn while_it_lives<T>(
        &self,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let stands_still = async {
            loop {
                if let Err(error) = self.status().await {
                    return error;
                }
                tokio::time::sleep(BREATH).await;
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            error = stands_still => Err(error),
        }
    }

    /// Lets the node dial `peer` no longer when it is lost. Returns whether it was wanted.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused with 400 if `peer` is neither an id nor a name.
    pub(crate) async fn forget(&self, peer: &str) -> Result<bool, ClientError> {
        let mut answer: Lines<bool> = self.0.post(&format!("/v1/forget/{peer}"), &()).await?;
        Ok(answer.next_within(SOON).await?.unwrap_or_default())
    }

    /// Lets the node dial, which takes so long at most.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub(crate) async fn dial(
        &self,
        request: &DialRequest,
        time: Duration,
    ) -> Result<Reports, ClientError> {
        self.0.post_within("/v1/dial", request, time).await
    }
}
