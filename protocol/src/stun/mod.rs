//! STUN's binding method ([RFC 8489](https://www.rfc-editor.org/rfc/rfc8489)): messages and their codec. Pure.
//!
//! [`Message`] holds the attributes that a binding needs, those of [RFC 5780](https://www.rfc-editor.org/rfc/rfc5780), and two of
//! this project. Requests without the magic cookie ([RFC 3489](https://www.rfc-editor.org/rfc/rfc3489)) are messages too: their
//! addresses are written in the attributes of that time.

mod message;
mod read;
mod write;

pub use message::{
    ATTRIBUTE, COOKIE, Change, Class, HEADER, LARGEST, Malformed, Message, OnBehalf, PORT, Port,
    RelayInfo, Transaction, is_stun,
};

#[cfg(test)]
mod tests;
