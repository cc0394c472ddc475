//! The sessions of all peers: what the first frame of a stream means, and which sessions have to end.
//!
//! Each session is driven on its own; the table knows whose it is and of which service. An id counts only together with the peer
//! that authenticated the connection, so nobody resumes the session of another peer.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use libp2p::PeerId;

use super::{
    access::{Access, Limits, Opens},
    memory::{Memory, PeerMemory, Share},
};
use crate::{
    config::ServiceName,
    wire::{Carries, Frame, Hello, Open, Refusal, Refuse, ResetReason, Resume, SessionId},
};

/// A session, as one process names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The other side.
    pub peer: PeerId,
    /// Who opened it.
    pub role: Role,
    /// Its id.
    pub session: SessionId,
}

/// Which side of a session this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It opened the session: a forward.
    Forward,
    /// It accepted the session: a service.
    Service,
}

/// What becomes of a stream that a peer opened.
#[derive(Debug)]
pub enum Verdict {
    /// A session begins: dial the target.
    New(Key, Share),
    /// It is a stream of this session.
    Attach(Key),
    /// Send this, and close the stream.
    Answer(Frame),
    /// The session is the peer's, which opens or resumes too often. Close the stream: the peer asks again on another one, after a pause.
    Later(Key),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The peer's process is this one: `handle_peer_instance`.
    PeerIs(Key, u64),
    /// `handle_reset` with the reason.
    Reset(Key, ResetReason),
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    /// This process: random.
    instance: u64,
    memory: Memory,
    access: Access,
    limits: Limits,
    peers: BTreeMap<PeerId, Peer>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Peer {
    memory: PeerMemory,
    instance: Option<u64>,
    /// Its earlier processes: what they have sent may still arrive.
    past: VecDeque<u64>,
    sessions: BTreeMap<(Role, SessionId), Entry>,
    /// The services of the raw streams that it has opened.
    raw: BTreeMap<SessionId, ServiceName>,
    opens: Opens,
}

#[derive(Debug)]
struct Entry {
    service: ServiceName,
    carries_datagrams: bool,
}

/// How many earlier processes of a peer are remembered.
const PAST: usize = 8;

/// How many peers without sessions are remembered, for their rate and their process.
const IDLE_PEERS: usize = 4_096;

impl Sessions {
    /// None yet. `instance` is random.
    #[must_use]
    pub fn new(instance: u64, memory: Memory, access: Access, limits: Limits) -> Self {
        Self {
            instance,
            memory,
            access,
            limits,
            peers: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// This process.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.values().map(|peer| peer.sessions.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is offered to `peer`.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// `peer` has opened a stream of which this is the first frame.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only three frames begin a stream"
    )]
    pub fn handle_first_frame(&mut self, peer: PeerId, first: &Frame, now: Instant) -> Verdict {
        match first {
            Frame::Open(open) => self.open(peer, open, now),
            Frame::Resume(resume) => self.resume(peer, resume, now),
            Frame::Hello(hello) => {
                if self.peers.contains_key(&peer) {
                    self.process(peer, hello.instance);
                }
                Verdict::Answer(self.hello())
            }
            _ => self.refuse(Refusal::Malformed),
        }
    }

    /// The question which process the peer is, for a connection of a peer that has [`Self::accepted_from`].
    #[must_use]
    pub fn hello(&self) -> Frame {
        Frame::Hello(Hello {
            instance: self.instance,
            lists: false,
        })
    }

    /// The peer's answer to [`Self::hello`].
    pub fn handle_hello(&mut self, peer: PeerId, hello: Hello) {
        if self.peers.contains_key(&peer) {
            self.process(peer, hello.instance);
        }
    }

    /// Whether `peer`, which no service names, has almost as many sessions, flows and raw streams as it may.
    #[must_use]
    pub fn is_crowded(&self, peer: &PeerId) -> bool {
        let most = self.limits.unnamed - self.limits.unnamed / 16;
        let has_many = |peer: &Peer| peer.streams() >= most;
        self.peers.get(peer).is_some_and(has_many) && !self.access.names(peer)
    }

    /// How many sessions `peer` has opened here.
    #[must_use]
    pub fn accepted_from(&self, peer: &PeerId) -> usize {
        self.peers.get(peer).map_or(0, Peer::accepted)
    }

    /// This process opens a session at `peer`. `None`: there are as many as the memory admits.
    pub fn handle_open(
        &mut self,
        key: Key,
        service: ServiceName,
        carries: Carries,
        now: Instant,
    ) -> Option<Share> {
        self.forget_idle(now);
        let peer = self.peer(key.peer);
        let share = peer.memory.session()?;
        peer.insert(key, service, carries);
        Some(share)
    }

    /// The peer opens a raw stream of a service that it may use. Whether it may have another. It is one until [`Self::handle_over`].
    pub fn handle_raw(&mut self, key: Key, service: &ServiceName, now: Instant) -> bool {
        self.forget_idle(now);
        let (limits, is_named) = (self.limits.clone(), self.access.names(&key.peer));
        let known = self.peer(key.peer);
        let raw = known.raw.values().filter(|of| *of == service).count();
        let open = raw + known.count(service, false);
        let has_stream = is_named || known.streams() < limits.unnamed;
        let is_admitted =
            open < limits.raw && has_stream && known.opens.admits(service, limits.opens, now);
        if is_admitted {
            known.raw.insert(key.session, service.clone());
        }
        is_admitted
    }

    /// The session or the raw stream is over.
    pub fn handle_over(&mut self, key: Key) {
        if let Some(peer) = self.peers.get_mut(&key.peer) {
            peer.raw.remove(&key.session);
            peer.sessions.remove(&(key.role, key.session));
        }
    }

    /// The services and their rules are others. Sessions that they do not permit end, and those of services that are gone.
    pub fn handle_access(&mut self, access: Access) {
        self.access = access;
        for (id, peer) in &self.peers {
            for ((role, session), entry) in &peer.sessions {
                let reason = match self.access.knows(&entry.service) {
                    true => ResetReason::NotAllowed,
                    false => ResetReason::ServiceGone,
                };
                if *role == Role::Service && !self.access.permits(id, &entry.service) {
                    let key = Key {
                        peer: *id,
                        role: *role,
                        session: *session,
                    };
                    self.actions.push_back(Action::Reset(key, reason));
                }
            }
        }
    }

    /// The service has another target, or is gone: its sessions end.
    pub fn handle_service_changed(&mut self, service: &ServiceName) {
        for (id, peer) in &self.peers {
            for ((role, session), entry) in &peer.sessions {
                if *role == Role::Service && entry.service == *service {
                    let key = Key {
                        peer: *id,
                        role: *role,
                        session: *session,
                    };
                    self.actions
                        .push_back(Action::Reset(key, ResetReason::ServiceGone));
                }
            }
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn open(&mut self, peer: PeerId, open: &Open, now: Instant) -> Verdict {
        // Whoever may not use the service learns nothing, and costs no memory.
        if let Err(refusal) = self.access.admits(&peer, &open.service, open.carries) {
            return self.refuse(refusal);
        }
        self.forget_idle(now);
        self.peer(peer);
        if !self.process(peer, open.instance) {
            return self.refuse(Refusal::UnknownSession);
        }
        let (limits, is_named) = (self.limits.clone(), self.access.names(&peer));
        let known = self.peer(peer);
        let key = Key {
            peer,
            role: Role::Service,
            session: open.session,
        };
        let is_admitted = known.opens.admits(&open.service, limits.opens, now);
        match known.sessions.contains_key(&(key.role, key.session)) {
            true if is_admitted => return Verdict::Attach(key),
            true => return Verdict::Later(key),
            false if is_admitted => {}
            false => return self.refuse(Refusal::Busy),
        }
        let (datagrams, most) = match open.carries {
            Carries::Bytes => (false, limits.sessions),
            Carries::Datagrams(_) => (true, limits.flows),
        };
        let is_full = known.count(&open.service, datagrams) >= most;
        if is_full || (!is_named && known.streams() >= limits.unnamed) {
            return self.refuse(Refusal::Busy);
        }
        let share = match is_named {
            true => known.memory.session(),
            false => known.memory.session_of_stranger(),
        };
        let Some(share) = share else {
            return self.refuse(Refusal::Busy);
        };
        known.insert(key, open.service.clone(), open.carries);
        Verdict::New(key, share)
    }

    fn resume(&mut self, peer: PeerId, resume: &Resume, now: Instant) -> Verdict {
        let is_known = self.peers.contains_key(&peer) && self.process(peer, resume.instance);
        let key = Key {
            peer,
            role: Role::Service,
            session: resume.session,
        };
        let opens = self.limits.opens;
        let found = self.peers.get_mut(&peer).filter(|_| is_known);
        let admitted = found.and_then(|known| {
            let entry = known.sessions.get(&(key.role, key.session))?;
            Some(known.opens.admits(&entry.service, opens, now))
        });
        match admitted {
            Some(true) => Verdict::Attach(key),
            Some(false) => Verdict::Later(key),
            None => self.refuse(Refusal::UnknownSession),
        }
    }

    /// The peer's process is `instance`. If it was another one, its sessions are over. Those that this process has opened know
    /// themselves with which one they are: nobody reports it here. False: an earlier one speaks.
    fn process(&mut self, id: PeerId, instance: u64) -> bool {
        let peer = self.peer(id);
        if peer.past.contains(&instance) {
            return false;
        }
        let last = peer.instance.replace(instance);
        let Some(last) = last.filter(|last| *last != instance) else {
            return true;
        };
        peer.past.push_back(last);
        if peer.past.len() > PAST {
            peer.past.pop_front();
        }
        let learn = peer.sessions.keys().map(|(role, session)| Key {
            peer: id,
            role: *role,
            session: *session,
        });
        let learn: Vec<_> = learn.map(|key| Action::PeerIs(key, instance)).collect();
        // They are gone at once: the new process may not resume them.
        peer.sessions.retain(|(role, _), _| *role == Role::Forward);
        self.actions.extend(learn);
        true
    }

    fn refuse(&self, refusal: Refusal) -> Verdict {
        let instance = self.instance;
        Verdict::Answer(Frame::Refuse(Refuse { instance, refusal }))
    }

    fn peer(&mut self, id: PeerId) -> &mut Peer {
        let memory = &self.memory;
        self.peers.entry(id).or_insert_with(|| Peer {
            memory: memory.peer(),
            instance: None,
            past: VecDeque::new(),
            sessions: BTreeMap::new(),
            raw: BTreeMap::new(),
            opens: Opens::default(),
        })
    }

    fn forget_idle(&mut self, now: Instant) {
        if self.peers.len() >= IDLE_PEERS {
            let opens = self.limits.opens;
            self.peers.retain(|_, peer| {
                let is_empty = peer.sessions.is_empty() && peer.raw.is_empty();
                !is_empty || !peer.opens.is_idle(opens, now)
            });
        }
    }
}

impl Peer {
    fn insert(&mut self, key: Key, service: ServiceName, carries: Carries) {
        let carries_datagrams = matches!(carries, Carries::Datagrams(_));
        let entry = Entry {
            service,
            carries_datagrams,
        };
        self.sessions.insert((key.role, key.session), entry);
    }

    /// How many of its sessions this process has accepted.
    fn accepted(&self) -> usize {
        let keys = self.sessions.keys();
        keys.filter(|(role, _)| *role == Role::Service).count()
    }

    /// How many streams of its connections its sessions and raw streams take.
    fn streams(&self) -> usize {
        self.accepted() + self.raw.len()
    }

    fn count(&self, service: &ServiceName, datagrams: bool) -> usize {
        let of_service = |((role, _), entry): &(&(Role, SessionId), &Entry)| {
            *role == Role::Service
                && entry.service == *service
                && entry.carries_datagrams == datagrams
        };
        self.sessions.iter().filter(of_service).count()
    }
}

#[cfg(test)]
mod tests;
