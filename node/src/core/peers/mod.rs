//! Which peers are connected, over which paths, and which path of a peer is best.
//!
//! Pure: no IO, no clock, no Swarm. Time comes in as an argument.

mod path;
mod score;
mod table;

pub use path::{Hop, How, Path, PathKind, ReportedBy};
pub use score::{Axis, Score};
pub use table::PeerTable;
