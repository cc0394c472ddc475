//! `relay-node`: see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2pnode_daemon::command::main(relay_node::command::execute)
}
