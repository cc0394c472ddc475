//! The exit code of a dial.

use p2pnode_daemon::exit::Exit;

use crate::core::event::Reached;

/// The exit code of a dial. `any_connection`: whether a relayed connection was enough.
pub(super) fn exit_of(reached: Reached, any_connection: bool) -> Exit {
    match reached {
        Reached::Direct => Exit::Success,
        Reached::Relayed if any_connection => Exit::Success,
        Reached::Relayed => Exit::RelayedOnly,
        Reached::Unreachable => Exit::Unreachable,
    }
}
