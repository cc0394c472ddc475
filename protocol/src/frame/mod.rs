//! How messages are delimited on a stream: each one follows its length.
//!
//! - [`json`]: this project's own protocols. A length of two bytes and that much JSON.
//! - [`varint`]: libp2p's protocols. A length as a varint and that much of a protocol buffer.
//!
//! Both compare the length with a limit before they allocate, and read nothing behind the message.

pub mod json;
pub mod varint;

pub use json::{MAX_MESSAGE, read, read_up_to, write, write_up_to};
