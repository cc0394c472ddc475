//! Forwards: services of other nodes, brought to local sockets.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use libp2p::PeerId;
use p2pnode_services::{
    config::{Address, Forward, ServiceName, What},
    core::{flows::Destinations, session::Settings, sockets::Holder},
    wire::{Carries, ResetReason},
};

use super::{
    Hub,
    driver::{Driver, Outcome},
    forwards::{Entry, ForwardError, Keeps, Shared},
    lines::{Report, Sink},
    listener::{Listener, Listening, Looks, Slot},
    local::Socket,
    places::Pauses,
    running::Running,
};

/// How long a peer may take that is not the last one of its forward: somewhat longer than pings take to notice a dead path.
const NEXT_AFTER: Duration = Duration::from_secs(5);

/// A forward that exists as long as this does.
#[derive(Debug)]
pub(crate) struct Forwarding {
    hub: Hub,
    number: u64,
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.hub.end_forward(self.number);
    }
}

impl Hub {
    /// Brings services here as long as the returned value exists. `once`: for one client.
    ///
    /// # Errors
    /// If it cannot listen.
    pub(crate) fn forward(
        &self,
        forward: Forward,
        once: bool,
        sink: Option<Sink>,
    ) -> Result<Forwarding, ForwardError> {
        let number = self.start_forward(forward, once, false, sink)?;
        Ok(Forwarding {
            hub: self.clone(),
            number,
        })
    }

    fn start_forward(
        &self,
        forward: Forward,
        once: bool,
        is_configured: bool,
        sink: Option<Sink>,
    ) -> Result<u64, ForwardError> {
        let failed = |source| ForwardError {
            listen: forward.listen.clone(),
            source,
        };
        if let (Some(at), Some(ports)) = (forward.listen.socket(), self.ports())
            && ports.range().contains(at.port())
        {
            let reason = format!("the port is in the dial range {}", ports.range());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let number = self.number();
        let (listener, listen) = match forward.listen.socket() {
            Some(at) if forward.listen.is_udp() => {
                let listener = self.listen_udp(number, at, destinations(&forward), sink.clone());
                let listener = listener.map_err(failed)?;
                let listen = Address::Udp(listener.at.ip(), listener.at.port());
                (Err(listener), listen)
            }
            Some(_) | None => {
                let (listener, listen) = Listener::bind(&forward.listen).map_err(failed)?;
                (Ok(listener), listen)
            }
        };
        let shared = Arc::new(Shared {
            number,
            listen: listen.clone(),
            to: Mutex::new(forward.to.clone().into()),
            sessions: AtomicUsize::new(0),
            is_gone: AtomicBool::new(false),
            sink: sink.clone(),
        });
        let wishes = self.wishes_of(&forward);
        let listener: Box<dyn Keeps> = match listener {
            Ok(listener) => {
                let slot = Slot::new(listener);
                let takes = listen_on(self.clone(), Arc::clone(&slot), Arc::clone(&shared), once);
                Box::new(Listening(slot, tokio::spawn(takes).abort_handle()))
            }
            Err(datagrams) => Box::new(datagrams),
        };
        let to = shared.to();
        let entry = Entry {
            forward,
            shared,
            is_configured,
            wishes,
            _listener: listener,
        };
        self.state().forwards.0.insert(number, entry);
        self.offering_changed();
        tracing::info!(own = tracing::field::Empty, %listen, %to, "forwarding");
        if let Some(sink) = sink {
            let listening = Report::Listening {
                listen: listen.to_string(),
                to: to.clone(),
            };
            // The channel is new.
            let _ = sink.try_send(listening.into());
        }
        Ok(number)
    }

    /// The forwards of the configuration are these from now on.
    pub(super) fn configure_forwards(&self, forwards: &[Forward]) -> Vec<ForwardError> {
        let state = self.state();
        let configured = state
            .forwards
            .0
            .iter()
            .filter(|(_, entry)| entry.is_configured);
        let known: Vec<_> = configured
            .map(|(number, entry)| (*number, entry.forward.clone()))
            .collect();
        drop(state);
        for (number, known) in &known {
            match forwards.iter().find(|now| now.listen == known.listen) {
                Some(now) if now == known => {}
                Some(now) => self.redirect(*number, now),
                None => self.end_forward(*number),
            }
        }
        let is_new = |forward: &&Forward| {
            known
                .iter()
                .all(|(_, known)| known.listen != forward.listen)
        };
        let mut failed = Vec::new();
        for forward in forwards.iter().filter(is_new) {
            let started = self.start_forward(forward.clone(), false, true, None);
            failed.extend(started.err());
        }
        failed
    }

    /// A forward leads elsewhere from now on. Its listener stays, and so do sessions to where it still leads.
    fn redirect(&self, number: u64, forward: &Forward) {
        let wishes = self.wishes_of(forward);
        let mut state = self.state();
        let Some(entry) = state.forwards.0.get_mut(&number) else {
            return;
        };
        entry.forward = forward.clone();
        let before = std::mem::replace(&mut entry.wishes, wishes);
        let shared = Arc::clone(&entry.shared);
        shared.lead_to(&forward.to);
        let of_forward = |running: &&Arc<Running>| running.forward == Some(number);
        for running in state.running.values().filter(of_forward) {
            if !forward.to.contains(&running.destination()) {
                running.leave(|mail| mail.reset = Some(ResetReason::ServiceGone));
            }
        }
        drop(state);
        // They take the lock.
        drop(before);
        self.redirect_udp(number, &destinations(forward));
        tracing::info!(own = tracing::field::Empty, listen = %shared.listen, to = shared.to(), "forwarding");
    }

    fn wishes_of(&self, forward: &Forward) -> Vec<Box<dyn Keeps>> {
        let peers = forward.to.iter().map(|(_, peer)| *peer);
        peers
            .map(|peer| Box::new(self.wish(peer)) as Box<dyn Keeps>)
            .collect()
    }

    /// Ends the forward of a command that listens there.
    pub(crate) fn end_forward_at(&self, listen: &str) {
        let is_it =
            |entry: &&Entry| !entry.is_configured && entry.shared.listen.to_string() == listen;
        let found = self
            .state()
            .forwards
            .all()
            .find(is_it)
            .map(|entry| entry.shared.number);
        if let Some(number) = found {
            self.end_forward(number);
        }
    }

    /// Ends a forward and its sessions.
    fn end_forward(&self, number: u64) {
        let entry = self.state().forwards.remove(number);
        self.end_sessions_of(number);
        // It takes the lock for its wishes.
        drop(entry);
        self.offering_changed();
    }

    /// Ends the sessions of a forward, or of the SOCKS5 server.
    pub(super) fn end_sessions_of(&self, number: u64) {
        let state = self.state();
        let sessions = state.running.values();
        for running in sessions.filter(|running| running.forward == Some(number)) {
            running.leave(|mail| mail.reset = Some(ResetReason::ServiceGone));
        }
    }

    /// Connects `socket` with a service, until the session has ended.
    pub(crate) async fn connect(
        &self,
        service: ServiceName,
        peer: PeerId,
        socket: Socket,
        sink: Sink,
    ) {
        let session = self.session((service, peer), socket, true, None, Some(sink));
        if let Err(socket) = session.await {
            socket.reset();
        }
    }

    /// One session for a client, which gets `greeting` once the peer has accepted. `Outcome::socket` is its socket if not.
    pub(super) async fn session_with_greeting(
        &self,
        (service, peer): (ServiceName, PeerId),
        socket: Socket,
        greeting: Vec<u8>,
        server: u64,
    ) -> Result<Outcome, Socket> {
        let (client, server) = (socket.addresses().map(|(client, _)| client), Some(server));
        let name = service.clone();
        let running = |key| Running::new(key, name, client, server, None, None, self.metrics());
        let Some((running, share)) = self.open_session(running, peer, service, Carries::Bytes)
        else {
            return Err(socket);
        };
        let settings = self.settings();
        let mut driver = Driver::open(self.clone(), running, share, socket, true, settings);
        driver.greet(greeting);
        Ok(driver.run().await)
    }

    /// One session for a client. `Err`: there are as many sessions as there may be.
    pub(super) async fn session(
        &self,
        (service, peer): (ServiceName, PeerId),
        socket: Socket,
        is_last: bool,
        forward: Option<u64>,
        sink: Option<Sink>,
    ) -> Result<Outcome, Socket> {
        let client = socket.addresses().map(|(client, _)| client);
        let name = service.clone();
        let running = |key| Running::new(key, name, client, forward, sink, None, self.metrics());
        let Some((running, share)) = self.open_session(running, peer, service, Carries::Bytes)
        else {
            return Err(socket);
        };
        let settings = self.settings();
        let settings = Settings {
            open_timeout: match is_last {
                true => settings.open_timeout,
                false => NEXT_AFTER,
            },
            ..settings.clone()
        };
        let driver = Driver::open(self.clone(), running, share, socket, !is_last, &settings);
        Ok(driver.run().await)
    }
}

/// Where the datagrams of a forward go.
fn destinations(forward: &Forward) -> Destinations {
    let named = forward.to.iter().filter_map(|(what, peer)| match what {
        What::Service(service) => Some((service.clone(), *peer)),
        What::Raw(_) => None,
    });
    named.collect()
}

async fn listen_on(hub: Hub, listener: Arc<Slot>, shared: Arc<Shared>, once: bool) {
    let (holder, who) = (Holder::Forward(shared.number), shared.listen.to_string());
    let (mut pauses, mut looks) = (Pauses::default(), Looks::new(&shared.listen));
    loop {
        hub.has_place(holder, &who).await;
        let accepted = listener.accept(&mut looks, || hub.sockets().take(holder));
        let Some(accepted) = accepted.await else {
            return;
        };
        match accepted {
            Ok(socket) => {
                pauses.works();
                let serve = serve(hub.clone(), Arc::clone(&shared), socket);
                if once {
                    listener.close();
                    // Its session outlives this task, as any other one does.
                    tokio::spawn(serve);
                    return;
                }
                tokio::spawn(serve);
            }
            Err(error) => {
                tracing::warn!(listen = %shared.listen, %error, "a forward cannot accept a client and goes on");
                tokio::time::sleep(pauses.next()).await;
            }
        }
    }
}

/// Serves a client with the first peer that answers.
async fn serve(hub: Hub, shared: Arc<Shared>, socket: Socket) {
    shared.sessions.fetch_add(1, Relaxed);
    if let Some(socket) = try_peers(&hub, &shared, socket).await {
        socket.reset();
    }
    shared.sessions.fetch_sub(1, Relaxed);
}

/// The socket, if it is left. Nothing of it is read before a peer has accepted, or only the last peer is left. See decision 0722.
async fn try_peers(hub: &Hub, shared: &Shared, mut socket: Socket) -> Option<Socket> {
    let (mut route, mut index) = (shared.route(), 0);
    while let Some((what, peer)) = route.get(index).filter(|_| !shared.is_gone.load(Relaxed)) {
        index += 1;
        let is_last = index == route.len();
        if !is_last && hub.is_unreachable(peer) {
            continue;
        }
        let (number, sink) = (Some(shared.number), shared.sink.clone());
        let session = match what {
            What::Service(service) => {
                let to = (service.clone(), *peer);
                hub.session(to, socket, is_last, number, sink).await
            }
            What::Raw(protocol) => {
                let next_after = (!is_last).then_some(NEXT_AFTER);
                let to = (protocol, *peer);
                Ok(hub.raw_session(to, socket, number, sink, next_after).await)
            }
        };
        match session {
            Ok(Outcome {
                socket: Some(kept), ..
            }) => socket = kept,
            Ok(_) => return None,
            Err(socket) => return Some(socket),
        }
        let now = shared.route();
        if !Arc::ptr_eq(&now, &route) {
            (route, index) = (now, 0);
        }
    }
    Some(socket)
}
