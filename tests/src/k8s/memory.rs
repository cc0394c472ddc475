//! Whether a program that is full by each of its limits at once fits into the memory of its container.

use serde_json::Value;

use super::{
    config::Config,
    container::{Container, Program},
    text,
};

/// A node of which nobody knows, and a relay (`docs/benchmarks.md`, sizes and relay-capacity).
const IDLE: u64 = 14_000_000;

/// A stranger's idle connection to a node, over QUIC, which takes more than TCP (`docs/decisions/0507-memory-of-containers.md`).
const NODE_CONNECTION: u64 = 80_000;

/// What a node has at once (`docs/threat-model.md`, budgets of a node): connections, and handshakes of three kinds.
const NODE_CONNECTIONS: u64 = 4096 + 3 * 128;

/// A connection of a relay with its reservation (`docs/benchmarks.md`, relay-capacity: 66.9 kB).
const RELAY_CONNECTION: u64 = 66_900;

/// A circuit that carries, without its two connections (`docs/benchmarks.md`, relay-capacity: 1,000 circuits and their 2,000
/// connections took a relay from 680 to 1,022 MB).
const CIRCUIT: u64 = (1_022_000_000 - 680_000_000) / 1000 - 2 * RELAY_CONNECTION;

/// A record of a peer, as the README has it.
const RECORD: u64 = 1024;

/// What is wrong if the memory of a container does not hold its program with every limit reached. The program closes connections
/// above `limits.memory`, by default 80 % of the container's memory: honest ones must fit below that.
pub(super) fn too_little(container: &Container<'_>, config: &Config) -> Option<String> {
    let memory = text(container.spec, "/resources/limits/memory");
    let Some(bytes) = bytes(memory) else {
        return Some(format!(
            "resources.limits.memory is {memory:?}: without it limits.memory has no default"
        ));
    };
    let full = full(container.program, config);
    let usable = bytes / 5 * 4;
    (full > usable).then(|| {
        format!("resources.limits.memory is {memory}, of which {usable} bytes are used, and the limits together take {full}")
    })
}

fn full(program: Program, config: &Config) -> u64 {
    let limit = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or_default();
    IDLE + match program {
        Program::P2pnode => NODE_CONNECTIONS * NODE_CONNECTION,
        Program::RelayNode => {
            let connections = limit("limits.connections") + limit("limits.pending_connections");
            connections * RELAY_CONNECTION
                + limit("limits.circuits") * CIRCUIT
                + limit("limits.records") * RECORD
        }
    }
}

/// A quantity of Kubernetes in binary units.
fn bytes(quantity: &str) -> Option<u64> {
    let (digits, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30)]
        .into_iter()
        .find_map(|(unit, shift)| Some((quantity.strip_suffix(unit)?, shift)))?;
    Some(digits.parse::<u64>().ok()? << shift)
}
