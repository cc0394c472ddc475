//! `p2pnode`: see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2pnode_daemon::command::main(p2pnode::execute)
}
