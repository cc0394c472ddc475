//! Which peers are connected, over which paths, and which path of a peer is best.
//!
//! Pure: no IO, no clock, no Swarm. Time comes in as an argument.

mod cause;
mod path;
mod score;
mod table;

pub(crate) use cause::PathCause;
pub use path::{Hop, How, Path, PathKind, ReportedBy};
pub use score::{Axis, Decision, Score};
pub use table::PeerTable;
