//! Lets the event loop, the sinks and the readers know what is mapped.

use std::net::SocketAddr;

use super::{Keeper, Open};
use crate::{
    config::PUNCH,
    core::mappings::{Claim, Entry, Event, Exposure, ExposureState, Inside, Method, changes},
    observe::status::ExposeStatus,
};

impl Keeper {
    /// Lets the event loop, the sinks and the readers know what is mapped.
    pub(super) fn report(&mut self) {
        while let Some(event) = self.mappings.poll_event() {
            report(&event);
            if let Event::Refused { inside, reason } = event {
                let refused = Exposure {
                    reason: Some(reason),
                    ..Exposure::new(inside.protocol, ExposureState::Refused)
                };
                self.report_to(inside, refused);
            }
        }
        while let Some((inside, wait)) = self.mappings.poll_wait() {
            let (protocol, port) = (inside.protocol.name(), inside.port);
            let own = tracing::field::Empty;
            tracing::warn!(own, protocol, port, reason = %wait, "a port waits to be mapped");
            let waiting = Exposure {
                reason: Some(wait.to_string()),
                ..Exposure::new(inside.protocol, ExposureState::Waiting)
            };
            self.report_to(inside, waiting);
        }
        self.outside
            .router
            .send_replace(self.mappings.router().clone());
        self.show_exposed();
        let now: Vec<Claim> = self.mappings.claims().collect();
        let before = self.outside.claims.borrow().clone();
        if now == before {
            return;
        }
        for (state, claim) in changes(&before, &now) {
            let changed = Exposure {
                method: Some(claim.method),
                address: Some(claim.verified.unwrap_or(claim.external)),
                ..Exposure::new(claim.inside.protocol, state.into())
            };
            self.report_to(claim.inside, changed);
        }
        let punch = self.punch();
        let entries = now.iter().filter_map(|claim| {
            let open = self.open_at(claim.inside);
            let name = match open {
                Some(open) => open.port.expose.name.as_str(),
                None => PUNCH,
            };
            let is_known = open.is_some() || punch.contains(&claim.inside);
            let entry = Entry {
                name: name.to_owned(),
                protocol: claim.inside.protocol,
                public: claim.verified?,
                private: SocketAddr::new(self.gateway?.own, claim.inside.port),
            };
            is_known.then_some(entry)
        });
        self.sinks.show(entries.collect());
        // An error means that the event loop has ended.
        let _ = self.outside.claims.send(now);
    }

    /// Lets the event loop know which ports lead where.
    fn show_exposed(&self) {
        let open = self.exposed.iter();
        let open = open.map(|open| (&open.port.expose, Some(open.port.inside.port)));
        let all = open.chain(self.missing.iter().map(|expose| (expose, None)));
        let status = all.map(|(expose, port)| ExposeStatus {
            name: expose.name.to_string(),
            protocol: expose.protocol,
            port,
            target: expose.target.to_string(),
        });
        self.outside.exposed.send_replace(status.collect());
    }

    fn report_to(&self, inside: Inside, mut report: Exposure) {
        report.port = Some(inside.port);
        let open = self.open_at(inside);
        if let Some(reports) = open.and_then(|open| open.reports.as_ref()) {
            let _ = reports.try_send(report);
        }
    }

    pub(super) fn open_at(&self, inside: Inside) -> Option<&Open> {
        self.exposed.iter().find(|open| open.port.inside == inside)
    }
}

fn report(event: &Event) {
    let own = tracing::field::Empty;
    let (Event::Granted { inside, .. }
    | Event::Proved { inside, .. }
    | Event::Doubted { inside }
    | Event::Lost { inside, .. }
    | Event::Refused { inside, .. }) = event;
    let (protocol, port) = (inside.protocol.name(), inside.port);
    match event {
        Event::Granted {
            external,
            method: Method::Hold,
            ..
        } => {
            tracing::info!(own, protocol, port, %external, "a port is held: traffic to a relay keeps its mapping");
        }
        Event::Granted {
            external, method, ..
        } => {
            tracing::info!(own, protocol, port, %external, ?method, "the router says that it maps a port");
        }
        Event::Proved { at, .. } => {
            tracing::info!(own, protocol, port, %at, "a mapping is verified from outside");
        }
        Event::Doubted { .. } => {
            tracing::warn!(
                own,
                protocol,
                port,
                "a mapping no longer lets anything in; it is withdrawn, and the router is asked again"
            );
        }
        Event::Lost { reason, .. } => {
            tracing::info!(own, protocol, port, ?reason, "a mapping has ended");
        }
        Event::Refused { reason, .. } => {
            tracing::warn!(own, protocol, port, reason, "the router maps no port");
        }
    }
}
