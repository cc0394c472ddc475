//! Whose fault it is that a dial failed.

/// Where the fault of a failed dial lies. Of several, the greatest decides whether to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// This host has no port of the range, or no socket, or a limit of this node forbids the connection.
    Local,
    /// The address leads to another peer, or no transport of this node dials it. Another dial fails alike.
    Address,
    /// No answer, a refusal, a cut: another dial may succeed.
    Remote,
}
