//! Which peers are connected, over which paths, and which path of a peer is best.
//!
//! Pure: no IO, no clock, no Swarm. Time comes in as an argument.

mod cause;
mod path;
mod score;
mod table;

pub(crate) use cause::PathCause;
pub use path::{Hop, How, Path, PathKind, ReportedBy};
pub(crate) use score::Score;
pub use score::{Axis, DecidedBy};
pub(crate) use table::PeerTable;
