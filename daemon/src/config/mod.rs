//! Configuration: flags beat the environment, the environment beats the file, the file beats the defaults.
//!
//! A program describes each key once, in the function that reads it from a [`Reader`]. It gives path, meaning, the [`Kind`] of
//! the value and the default. Loading, faults, `config show` with the origin of each value, and the JSON Schema all use that
//! description.
//!
//! ```
//! use p2pnode_daemon::config::{self, Program, Reader, Sources, kind};
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
//! Rules for every key:
//! - The variable of `a.b_c` is `PREFIX_A_B_C`; commas separate the items of a list. An empty variable and a
//!   key without a value in the file count as not set.
//! - Every source is checked, even if a stronger one wins, and all faults are reported at once.
//! - Other variables with the prefix are ignored (a cluster sets `P2PNODE_SERVICE_HOST` for a Service `p2pnode`), except
//!   likely misspellings.

mod document;
mod fault;
mod key;
pub mod kind;
mod load;
mod lost;
pub mod placeholder;
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
pub use load::{Loaded, load};
pub use reader::Reader;
pub use schema::schema;
pub use show::Shown;
pub use source::{Flags, Program, Sources};
