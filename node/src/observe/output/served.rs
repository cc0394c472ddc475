//! Services, forwards and sessions as tables for people.

use super::{
    columns::{size, table},
    short,
};
use crate::observe::status::{AddressStatus, ForwardStatus, ServiceStatus, SessionStatus, Status};

/// Those of a node that has some.
pub(super) fn served(text: &mut String, status: &Status, colour: bool) {
    if !status.services.is_empty() {
        let head = ["SERVICE", "TARGET", "SESSIONS", "IN", "OUT"].map(str::to_owned);
        let rows = std::iter::once(head).chain(status.services.iter().map(service));
        text.push('\n');
        table(text, &rows.collect::<Vec<_>>(), colour);
    }
    if !status.forwards.is_empty() {
        let head = ["FORWARD", "TO", "PEER", "SESSIONS"].map(str::to_owned);
        let rows = std::iter::once(head).chain(status.forwards.iter().map(forward));
        text.push('\n');
        table(text, &rows.collect::<Vec<_>>(), colour);
    }
    if !status.addresses.is_empty() {
        let head = ["ADDRESS", "STANDS FOR"].map(str::to_owned);
        let row = |of: &AddressStatus| [of.address.to_string(), of.peer.to_string()];
        let rows = std::iter::once(head).chain(status.addresses.iter().map(row));
        text.push('\n');
        table(text, &rows.collect::<Vec<_>>(), colour);
    }
    if let Some(sessions) = &status.sessions {
        text.push('\n');
        self::sessions(text, sessions, colour);
    }
}

/// Sessions that are open.
pub(super) fn sessions(text: &mut String, sessions: &[SessionStatus], colour: bool) {
    let head = [
        "SESSION", "ROLE", "SERVICE", "PEER", "CLIENT", "PATH", "OVER", "IN", "OUT",
    ];
    let rows = std::iter::once(head.map(str::to_owned)).chain(sessions.iter().map(session));
    table(text, &rows.collect::<Vec<_>>(), colour);
}

fn service(service: &ServiceStatus) -> [String; 5] {
    [
        service.name.clone(),
        service.target.clone(),
        service.sessions.to_string(),
        size(service.bytes_in),
        size(service.bytes_out),
    ]
}

fn forward(forward: &ForwardStatus) -> [String; 4] {
    [
        forward.listen.clone(),
        forward.to.clone(),
        forward.peer.as_ref().map(short).unwrap_or_default(),
        forward.sessions.to_string(),
    ]
}

fn session(session: &SessionStatus) -> [String; 9] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    [
        session.session.clone(),
        session.role.clone(),
        session.service.clone(),
        short(&session.peer),
        or_none(session.client.map(|client| client.to_string())),
        or_none(session.kind.map(|kind| kind.to_string())),
        or_none(session.transport.map(|transport| transport.to_string())),
        size(session.bytes_in),
        size(session.bytes_out),
    ]
}
