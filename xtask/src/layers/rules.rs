//! The table: which crate and which folder may name which. See the layers in `ARCHITECTURE.md`.

use super::source::Tree;

/// From the top down. A crate may name those of lower rows.
const CRATES: &[&[&str]] = &[
    &["xtask"],
    &["p2pnode-tests"],
    &["p2pnode", "relay-node"],
    &["p2pnode-services"],
    &["p2pnode-transports", "p2pnode-daemon"],
    &["p2pnode-protocol"],
];

/// For each crate its folders, from the top down. A folder may name those of its own row and of lower ones; that no circle
/// comes of it, the search for circles sees to. Only programs name the crate's root.
#[rustfmt::skip]
const FOLDERS: &[(&str, &[&[&str]])] = &[
    ("p2pnode-transports", &[
        &["displace", "handle", "listen", "ranged", "resolve", "server"],
        &["quic", "tcp", "tls"],
        &["error", "record", "reset", "shared"],
        &["net"],
    ]),
    ("p2pnode-services", &[&["core"], &["identity"], &["wire"], &["config"]]),
    ("p2pnode", &[
        &["command", "node"],
        &["control"],
        &["swarm"],
        &["services"],
        &["observe"],
        &["core", "discovery", "punch"],
        &["config"],
    ]),
    ("relay-node", &[&["command"], &["swarm"], &["observe"], &["core", "quic_scheduler"], &["config"]]),
];

/// Whoever reads the clock or rolls dice cannot be simulated.
#[rustfmt::skip]
const CLOCK_AND_DICE: &[&str] = &[
    "Instant::now", "Instant::elapsed", "SystemTime::now", "fastrand", "getrandom", "rand",
];

/// A generator with a seed is randomness that is an argument: the same seed rolls the same dice. `Rng::new` takes its seed
/// from the system, as the free functions do.
const SEEDED: &[&str] = &["fastrand::Rng", "fastrand::Rng::with_seed"];

/// What does IO, or lets others do it.
const IO: &[&str] = &["Swarm", "std::fs", "std::process", "std::thread", "tokio"];
const PROGRAM: &[&str] = &["clap", "schemars", "serde_norway", "serde_yaml"];

/// A module, and paths of other crates that nothing in it may use: any run of segments.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("p2pnode::core", CLOCK_AND_DICE),
    ("p2pnode::core", IO),
    ("p2pnode::punch::machine", CLOCK_AND_DICE),
    ("p2pnode::punch::machine", IO),
    ("relay-node::core", CLOCK_AND_DICE),
    ("relay-node::core", IO),
    ("p2pnode-services", CLOCK_AND_DICE),
    ("p2pnode-services", IO),
    ("p2pnode-services", PROGRAM),
    ("p2pnode-protocol", PROGRAM),
    ("p2pnode-transports", PROGRAM),
    ("p2pnode-daemon", &["NetworkBehaviour", "libp2p::swarm"]),
];

/// Modules of this workspace that a module may not use, beside the rows.
const STRANGERS: &[(&str, &str)] = &[("p2pnode::control", "p2pnode::observe::output")];

pub(crate) fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = unplaced(tree);
    for used in &tree.uses {
        if let Some(why) = forbids(tree, used.from, used.to) {
            let place = tree.place(used.from, used.line);
            faults.push(format!("{place} uses {}: {why}", used.path));
        }
    }
    for used in &tree.foreign {
        let from = tree.name(used.from);
        let named = |what: &str| {
            let what: Vec<_> = what.split("::").collect();
            used.path.windows(what.len()).any(|part| part == what)
        };
        if SEEDED.contains(&used.path.join("::").as_str()) {
            continue;
        }
        for (module, paths) in FORBIDDEN.iter().filter(|(module, _)| is_in(&from, module)) {
            if let Some(path) = paths.iter().find(|path| named(path)) {
                let place = tree.place(used.from, used.line);
                let used = used.path.join("::");
                faults.push(format!("{place} uses {used}: {module} may not use {path}"));
            }
        }
    }
    faults.sort();
    faults.dedup();
    faults
}

fn unplaced(tree: &Tree) -> Vec<String> {
    let unplaced = tree.modules.iter().filter_map(|module| {
        let [name] = module.path.as_slice() else {
            return None;
        };
        module.parent?;
        let rows = rows(&module.crate_name)?;
        row(rows, name).is_none().then(|| {
            let (file, name, crate_name) = (module.file.display(), name, &module.crate_name);
            format!("{file}: {name} is in no layer of {crate_name}: see xtask/src/layers/rules.rs")
        })
    });
    unplaced.collect()
}

fn forbids(tree: &Tree, from: usize, to: usize) -> Option<String> {
    let (from_name, to_name) = (tree.name(from), tree.name(to));
    let (from, to) = (&tree.modules[from], &tree.modules[to]);
    if from.crate_name != to.crate_name {
        let rows = (row(CRATES, &from.crate_name)?, row(CRATES, &to.crate_name)?);
        return (rows.0 >= rows.1)
            .then(|| format!("{} may not use {}", from.crate_name, to.crate_name));
    }
    let stranger = STRANGERS
        .iter()
        .find(|(module, other)| is_in(&from_name, module) && is_in(&to_name, other));
    if let Some((module, other)) = stranger {
        return Some(format!("{module} may not use {other}"));
    }
    let rows = rows(&from.crate_name)?;
    let above = from.path.first()?;
    let from_row = row(rows, above)?;
    let Some(below) = to.path.first() else {
        return Some(format!("{above} may not use the root of {}", to.crate_name));
    };
    (from_row > row(rows, below)?)
        .then(|| format!("{above} is below {below} in {}", from.crate_name))
}

fn rows(crate_name: &str) -> Option<&'static [&'static [&'static str]]> {
    let found = FOLDERS.iter().find(|(name, _)| *name == crate_name)?;
    Some(found.1)
}

fn row(rows: &[&[&str]], name: &str) -> Option<usize> {
    rows.iter().position(|row| row.contains(&name))
}

fn is_in(name: &str, module: &str) -> bool {
    name.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
