//! A node for other programs: started from a configuration, asked through a [`Handle`], stopped at its end.

use std::{collections::BTreeMap, path::Path};

use libp2p::identity::Keypair;
use p2pnode_daemon::config::{Document, Faults, Flags, Reader, Sources, load, schema};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    config::{Config, PROGRAM, Purpose},
    core::event::Event,
    swarm::{handle::Handle, node::start_held},
};

/// A node that runs as a task of the current tokio runtime. It stops when this value is dropped.
#[derive(Debug)]
pub struct Node {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// The node's task panicked. Please report this with the log.
#[derive(Debug, thiserror::Error)]
#[error("the event loop panicked; please report this with the log")]
pub struct Panicked(#[source] tokio::task::JoinError);

impl Node {
    /// Starts a node with this identity: binds its sockets, connects to its relays and reserves on them.
    ///
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the file of join tokens is invalid, or if a socket cannot be bound.
    pub fn start(keypair: &Keypair, config: &Config) -> anyhow::Result<Self> {
        let (node, stop) = start_held(keypair, config, config.reservations)?;
        node.serve(config)?;
        Ok(Self {
            handle: node.handle,
            events: node.events,
            task: node.task,
            stop,
        })
    }

    /// The way to dial, and to ask for the status. Clones may go to other tasks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The next event of the whole node; `None` once the node has stopped. At most 1024 events wait here, and the node drops
    /// the rest.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Closes every connection and stops the node.
    ///
    /// # Errors
    ///
    /// [`Panicked`].
    pub async fn stop(self) -> Result<(), Panicked> {
        drop(self.stop);
        self.task.await.map_err(Panicked)
    }
}

impl Config {
    /// Reads and checks a configuration of a node in YAML, as in a file for `p2pnode run`. Keys that are left out have their
    /// defaults. The keys of the program alone, such as `control.socket`, have no effect on a [`Node`].
    ///
    /// # Errors
    ///
    /// Every fault, each with its place, its value and the remedy.
    pub fn from_yaml(yaml: &str) -> Result<Self, Faults> {
        // The program derives the paths of its key and its socket from these; a `Node` uses neither.
        let env = BTreeMap::from([("HOME".to_owned(), "/".to_owned())]);
        let document = Document::parse(Path::new("configuration"), yaml.to_owned());
        let sources = Sources {
            file: Some(document?),
            env,
            flags: Flags::default(),
        };
        let loaded = load(&PROGRAM, &sources, |reader| {
            Self::read(reader, Purpose::Run)
        })?;
        Ok(loaded.config)
    }

    /// The JSON Schema of the configuration file, as `p2pnode config schema` prints it.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        let read = |reader: &mut Reader<'_>| Self::read(reader, Purpose::Check);
        schema(&PROGRAM, read).to_value()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use super::*;
    use crate::{
        core::{
            dialer::{Request, Until},
            event::Reached,
        },
        services::{Callers, OpenSessionError, ServeError},
    };

    #[tokio::test]
    async fn one_node_dials_another_and_both_report_the_path() {
        let range = |first: u16| format!("dial: {{ port_range: {first}-{} }}", first + 9);
        let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let callee = Config::from_yaml(&range(45_300)).unwrap();
        let mut callee = Node::start(&a, &callee).unwrap();
        let status = callee.handle().status().await.unwrap();
        let port = status.punch_ports.values().next().copied().unwrap();
        let caller = Config::from_yaml(&range(45_310)).unwrap();
        let caller = Node::start(&b, &caller).unwrap();
        let request = Request {
            peer: a.public().to_peer_id(),
            addrs: vec![
                format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
                    .parse()
                    .unwrap(),
            ],
            until: Until::Direct,
            timeout: Duration::from_secs(30),
            pings: 1,
        };
        let mut events = caller.handle().dial(request).await.unwrap();
        let outcome = loop {
            if let Event::Result(outcome) = events.recv().await.unwrap() {
                break outcome;
            }
        };
        assert_eq!(outcome.outcome, Reached::Direct, "{outcome:?}");
        loop {
            if let Event::Connected { peer, .. } = callee.next_event().await.unwrap() {
                assert_eq!(peer, b.public().to_peer_id());
                break;
            }
        }
        let why = caller.handle().why(a.public().to_peer_id()).await.unwrap();
        assert_eq!(why.unwrap().candidates.len(), 1);
        caller.stop().await.unwrap();
        callee.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_program_opens_a_session_with_a_service_of_another_program_and_half_closes_it() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let callee = Config::from_yaml("dial: { port_range: 45320-45329 }").unwrap();
        let callee = Node::start(&a, &callee).unwrap();
        let status = callee.handle().status().await.unwrap();
        let port = status.punch_ports.values().next().copied().unwrap();
        let callee_id = a.public().to_peer_id();
        let caller = Config::from_yaml(&format!(
            "dial: {{ port_range: 45330-45339 }}\npeers: {{ callee: {{ id: {callee_id}, addrs: [/ip4/127.0.0.1/udp/{port}/quic-v1] }} }}"
        ));
        let caller = Node::start(&b, &caller.unwrap()).unwrap();
        let callers = Callers::These(vec![b.public().to_peer_id()]);
        let mut incoming = callee.handle().serve("greet", callers.clone()).unwrap();
        assert_eq!(
            callee.handle().serve("greet", callers).unwrap_err(),
            ServeError::Taken
        );
        let served = tokio::spawn(async move {
            let mut session = incoming.next().await.unwrap();
            let mut question = String::new();
            session.read_to_string(&mut question).await.unwrap();
            session
                .write_all(question.to_uppercase().as_bytes())
                .await
                .unwrap();
            session.shutdown().await.unwrap();
            (session.peer(), incoming)
        });
        let mut session = caller.handle().open(callee_id, "greet").await.unwrap();
        session.write_all(b"hello").await.unwrap();
        session.shutdown().await.unwrap();
        let mut answer = String::new();
        session.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HELLO");
        let (peer, _incoming) = served.await.unwrap();
        assert_eq!(peer, b.public().to_peer_id());
        let refused = caller.handle().open(callee_id, "nothing").await;
        assert!(
            matches!(refused, Err(OpenSessionError::Refused(_))),
            "{refused:?}"
        );
        caller.stop().await.unwrap();
        callee.stop().await.unwrap();
    }

    #[test]
    fn each_fault_of_a_configuration_is_reported_with_its_place() {
        let faults = Config::from_yaml("dial: { port_range: 80-79 }").unwrap_err();
        assert!(
            faults
                .to_string()
                .starts_with("configuration:1:21: dial.port_range: invalid port range `80-79`"),
            "{faults}"
        );
    }
}
