//! The streams of flows: they begin and end a flow, and carry what no QUIC datagram does.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of fourteen frames few belong in a state, and a new one belongs in none"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{Action, Destinations, End, Flow, FlowKey, Flows, ForwardId, Role};
use crate::{
    core::session::StreamId,
    wire::{
        Accept, Carries, Frame, Open, Refusal, Refuse, ResetReason, Resume, SessionId,
        datagram::FlowNumber,
    },
};

impl Flows {
    /// The forward is gone, and its flows with it.
    pub fn handle_forward_gone(&mut self, forward: ForwardId) {
        let of_forward = self.clients.iter().filter(|(id, _)| id.forward == forward);
        for key in of_forward.map(|(_, key)| *key).collect::<Vec<_>>() {
            self.end(key, End::Reset);
        }
    }

    /// The forward leads to `to` from now on. Its other flows end.
    pub fn handle_redirect(&mut self, forward: ForwardId, to: &Destinations) {
        let of_forward = self.clients.iter().filter(|(id, _)| id.forward == forward);
        for key in of_forward.map(|(_, key)| *key).collect::<Vec<_>>() {
            let flow = self.flows.get_mut(&key).expect("a client has its flow");
            let stays = to.contains(&(flow.service.clone(), key.peer));
            match &mut flow.client {
                Some(client) if stays => client.to = Arc::clone(to),
                _ => drop(self.end(key, End::Reset)),
            }
        }
    }

    /// A peer that may use the service opens a flow. `Err` is the refusal, which goes on the stream.
    ///
    /// # Errors
    /// If there are as many flows as there may be, or the flow has a number that is in use.
    pub fn handle_open(
        &mut self,
        peer: PeerId,
        open: &Open,
        idle: Duration,
        stream: StreamId,
        now: Instant,
    ) -> Result<FlowKey, Refuse> {
        let instance = self.instance;
        let refuse = |refusal| Err(Refuse { instance, refusal });
        let Carries::Datagrams(number) = open.carries else {
            return refuse(Refusal::Malformed);
        };
        let key = FlowKey {
            peer,
            role: Role::Service,
            number,
        };
        match self.flows.get(&key) {
            // Repeated after a loss.
            Some(flow) if flow.session == open.session => {
                self.resume(key, open.attempt, None, stream, now);
                return Ok(key);
            }
            Some(_) => return refuse(Refusal::Malformed),
            None => {}
        }
        if self.is_full(peer, Role::Service) {
            return refuse(Refusal::Busy);
        }
        let flow = Flow {
            session: open.session,
            service: open.service.clone(),
            client: None,
            idle,
            last: now,
            look: now,
            accepted: true,
            attempt: 0,
            stream: None,
            left: None,
            lost: None,
            wants_stream: false,
            out: Default::default(),
            queue: Default::default(),
        };
        self.insert(key, flow, now);
        self.attach(key, open.attempt, None, stream);
        Ok(key)
    }

    /// The peer resumes a flow on a new stream. `None`: it has none such.
    pub fn handle_resume(
        &mut self,
        peer: PeerId,
        resume: &Resume,
        stream: StreamId,
        now: Instant,
    ) -> Option<FlowKey> {
        let found = self.find(peer, Role::Service, resume.session);
        if let Some(key) = found {
            let paused = resume.progress.paused;
            self.resume(key, resume.attempt, paused, stream, now);
        }
        found
    }

    /// `paused`: how long it had no stream, as far as the peer has noticed.
    fn resume(
        &mut self,
        key: FlowKey,
        attempt: u32,
        paused: Option<Duration>,
        stream: StreamId,
        now: Instant,
    ) {
        let paused = self.paused(&key, now).max(paused);
        if self.attach(key, attempt, paused, stream) {
            self.carried(key, paused);
        }
    }

    fn paused(&self, key: &FlowKey, now: Instant) -> Option<Duration> {
        let lost = self.flows.get(key)?.lost?;
        Some(now.saturating_duration_since(lost))
    }

    fn carried(&mut self, key: FlowKey, paused: Option<Duration>) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.lost = None;
            // One that had none for longer is over, whatever the peer claims.
            let paused = paused.map(|paused| paused.min(flow.idle));
            let left = flow.left.take();
            self.close(key, left);
            self.actions.push_back(Action::Carried(key, paused));
        }
    }

    pub(super) fn find(&self, peer: PeerId, role: Role, session: SessionId) -> Option<FlowKey> {
        let number = |number| FlowKey { peer, role, number };
        let mut of_peer = self
            .flows
            .range(number(FlowNumber::FIRST)..=number(FlowNumber::LAST));
        let found = of_peer.find(|(_, flow)| flow.session == session);
        found.map(|(key, _)| *key)
    }

    /// Whether the stream carries the flow from now on.
    fn attach(
        &mut self,
        key: FlowKey,
        attempt: u32,
        paused: Option<Duration>,
        stream: StreamId,
    ) -> bool {
        let instance = self.instance;
        let Some(flow) = self.flows.get_mut(&key) else {
            return false;
        };
        if flow.stream.is_some() && attempt <= flow.attempt {
            self.actions
                .push_back(Action::CloseStream(key, stream, None));
            return false;
        }
        flow.attempt = attempt;
        if let Some(left) = flow.stream.replace(stream) {
            self.actions.push_back(Action::CloseStream(key, left, None));
        }
        flow.out.clear();
        flow.out
            .push_back(Frame::Accept(progress(instance, paused)));
        true
    }

    /// The stream that was wanted for the flow is open.
    pub fn handle_stream(&mut self, key: FlowKey, stream: StreamId, now: Instant) {
        let (instance, paused) = (self.instance, self.paused(&key, now));
        let Some(flow) = self.flows.get_mut(&key) else {
            self.actions
                .push_back(Action::CloseStream(key, stream, None));
            return;
        };
        flow.wants_stream = false;
        flow.attempt += 1;
        let (session, attempt) = (flow.session, flow.attempt);
        let first = match flow.accepted {
            true => Frame::Resume(Resume {
                session,
                instance,
                attempt,
                progress: progress(instance, paused),
            }),
            false => Frame::Open(Open {
                session,
                instance,
                attempt,
                service: flow.service.clone(),
                carries: Carries::Datagrams(key.number),
                limit: 0,
                client: flow
                    .client
                    .as_ref()
                    .map(|from| (from.id.client, from.id.listener)),
                linger: None,
            }),
        };
        flow.out.clear();
        flow.out.push_back(first);
        // The peer would take an earlier end of it for a loss.
        let left = flow.stream.replace(stream);
        let earlier = left.and_then(|left| flow.left.replace(left));
        self.close(key, earlier);
    }

    /// No stream could be opened. The next datagram asks for one again, unless there is another destination.
    pub fn handle_stream_failed(&mut self, key: FlowKey, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        flow.wants_stream = false;
        let has_other = flow.client.as_ref().is_some_and(|from| from.to.len() > 1);
        if has_other && flow.stream.is_none() {
            self.pass_over(key, End::Unreachable, now);
        }
    }

    /// The stream has ended.
    pub fn handle_stream_lost(&mut self, key: FlowKey, stream: StreamId, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        flow.left.take_if(|left| *left == stream);
        let is_newest = flow.stream.take_if(|newest| *newest == stream).is_some();
        // The one before carries it until the peer has accepted the next.
        let is_lost = flow.stream.is_none() && flow.left.is_none();
        flow.lost = flow.lost.or((flow.accepted && is_lost).then_some(now));
        if is_newest && (!flow.queue.is_empty() || !flow.accepted) {
            self.want_stream(key);
        }
    }

    /// There is a better path for the flow's stream.
    pub fn handle_better_path(&mut self, key: FlowKey) {
        if let Some(flow) = self.flows.get_mut(&key)
            && key.role == Role::Forward
            && !std::mem::replace(&mut flow.wants_stream, true)
        {
            self.actions.push_back(Action::OpenStream(key));
        }
    }

    /// `frame` has come on the flow's stream.
    pub fn handle_frame(&mut self, key: FlowKey, stream: StreamId, frame: Frame, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        // A datagram on a stream that is being left is as good as any.
        let is_current = flow.stream == Some(stream);
        match frame {
            Frame::Datagram(payload) => self.deliver(key, payload, now),
            Frame::Accept(accept) if is_current && key.role == Role::Forward => {
                match std::mem::replace(&mut flow.accepted, true) {
                    false => {
                        let left = flow.left.take();
                        self.close(key, left);
                        self.actions.push_back(Action::Opened(key));
                    }
                    true => self.carried(key, self.paused(&key, now).max(accept.paused)),
                }
            }
            Frame::Refuse(refuse) if is_current && key.role == Role::Forward => {
                self.pass_over(key, End::Refused(refuse.refusal), now);
            }
            Frame::Reset(reset) => {
                let end = match reset.reason {
                    ResetReason::Idle => End::Idle,
                    reason => End::ResetByPeer(reason),
                };
                self.end(key, end);
            }
            Frame::Skipped(_) => {}
            _ if !is_current => {}
            _ => drop(self.end(key, End::Violation)),
        }
    }

    /// What the flow's stream takes next.
    pub fn poll_transmit(&mut self, key: FlowKey, stream: StreamId) -> Option<Frame> {
        let flow = self.flows.get_mut(&key)?;
        if flow.stream != Some(stream) {
            return None;
        }
        if let Some(frame) = flow.out.pop_front() {
            return Some(frame);
        }
        // What is sent to a peer that refuses is lost, and the next one may take it.
        if !flow.accepted
            && flow
                .client
                .as_ref()
                .is_some_and(|from| from.has_next(&key.peer, &flow.service))
        {
            return None;
        }
        let peer = self.peers.get_mut(&key.peer)?;
        let datagram = flow.queue.pop([&mut peer.room, &mut self.all]);
        datagram.map(Frame::Datagram)
    }

    /// Only the opener opens streams.
    pub(super) fn want_stream(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        let needs = key.role == Role::Forward && flow.stream.is_none() && !flow.wants_stream;
        if needs {
            flow.wants_stream = true;
            self.actions.push_back(Action::OpenStream(key));
        }
    }
}

fn progress(instance: u64, paused: Option<Duration>) -> Accept {
    Accept {
        instance,
        paused,
        ..Accept::default()
    }
}
