//! Configuration: flags beat the environment, the environment beats the file, the file beats the defaults.
//!
//! A program describes each key once, in the function that reads it from a [`Reader`]: its path, what it means, the
//! [`Kind`] of its value and its default. From that one description come the loading, the faults, `config show` with the
//! origin of each value, and the JSON Schema.
//!
//! ```
//! use crate::config::{self, Program, Reader, Sources, kind};
//!
//! const PROGRAM: Program = Program { name: "demo", env: "DEMO" };
//!
//! fn read(reader: &mut Reader<'_>) -> usize {
//!     reader.one("limits.peers", "How many peers to admit.", &kind::COUNT, "16")
//! }
//!
//! let mut sources = Sources::default();
//! sources.env.insert("DEMO_LIMITS_PEERS".into(), "32".into());
//! assert_eq!(config::load(&PROGRAM, &sources, read).map(|loaded| loaded.config), Ok(32));
//! ```
//!
//! Rules that hold for every key:
//! - The variable of `a.b_c` is `PREFIX_A_B_C`; the items of a list are separated by commas. An empty variable counts as
//!   not set, and so does a key without a value in the file.
//! - Every source is checked, also where a stronger one wins, and all faults are told at once.
//! - Other variables of the prefix are ignored (a cluster sets `P2PNODE_SERVICE_HOST` for a Service `p2pnode`), except
//!   those that look like a slip of the pen.

mod document;
mod fault;
pub mod kind;
mod reader;
mod schema;
mod shape;
mod show;
mod source;
#[cfg(test)]
mod tests;

pub use document::Document;
pub use fault::{Fault, Faults, Place};
pub use kind::{Form, Kind};
pub use reader::{Loaded, Reader, load};
pub use schema::schema;
pub use show::Shown;
pub use source::{Flags, Program, Sources};
