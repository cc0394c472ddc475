use std::path::Path;

use super::{
    faults,
    graph::show,
    source::{Root, Tree},
};

/// The library `p2pnode`, made of `files` below its `src`.
fn node(files: &[(&str, &str)]) -> Tree {
    tree(&[("p2pnode", "")], files)
}

/// The libraries of `crates`, each with the folder that it has its `src` in.
fn tree(crates: &[(&str, &str)], files: &[(&str, &str)]) -> Tree {
    let roots: Vec<_> = crates
        .iter()
        .map(|(name, folder)| Root {
            crate_name: (*name).to_owned(),
            is_lib: true,
            file: Path::new(folder).join("lib.rs"),
        })
        .collect();
    let text = |file: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == file);
        found.map(|(_, text)| (*text).to_owned())
    };
    Tree::read(&roots, &text).expect("a tree that can be parsed")
}

#[track_caller]
fn assert_one(tree: &Tree, words: &[&str]) {
    let faults = faults(tree);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    for word in words {
        assert!(faults[0].contains(word), "{word:?} is not in {}", faults[0]);
    }
}

#[test]
fn a_clean_tree_passes_and_is_shown() {
    let tree = node(&[
        (
            "lib.rs",
            "mod core; mod config; mod swarm; pub use swarm::run;",
        ),
        (
            "swarm.rs",
            "use crate::core::{self, State}; pub fn run(s: State) { core::go(); }",
        ),
        (
            "core/mod.rs",
            "mod dialer; pub use dialer::Dialer; use crate::config::Config; pub struct State; pub fn go() {}",
        ),
        (
            "core/dialer.rs",
            "pub struct Dialer; fn wait(now: std::time::Instant) {}",
        ),
        ("config.rs", "pub(crate) struct Config;"),
    ]);
    assert_eq!(faults(&tree), Vec::<String>::new());
    let shown = show(&tree);
    assert!(
        shown.contains("  core -> config\n  swarm -> core\n"),
        "{shown}"
    );
}

#[test]
fn a_circle_of_files_is_found_with_the_lines_that_make_it() {
    let tree = node(&[
        ("lib.rs", "mod core;"),
        ("core/mod.rs", "mod a;\nmod b;"),
        ("core/a.rs", "\nuse super::b::B;\npub struct A;"),
        ("core/b.rs", "pub struct B(super::a::A);"),
    ]);
    let faults = faults(&tree);
    assert!(
        faults[0].contains("core/a.rs:2 uses super::b::B"),
        "{faults:#?}"
    );
    assert!(
        faults[0].contains("core/b.rs:1 uses super::a::A"),
        "{faults:#?}"
    );
}

#[test]
fn a_parent_and_its_child_are_a_circle_if_each_uses_what_the_other_defines() {
    let tree = node(&[
        ("lib.rs", "mod core;"),
        (
            "core/mod.rs",
            "mod a; pub(crate) use a::A; pub struct B(A);",
        ),
        ("core/a.rs", "use super::B; pub struct A;"),
    ]);
    assert_one(
        &tree,
        &["circle of files", "core/mod.rs:1 uses A", "uses super::B"],
    );
}

#[test]
fn a_reexport_stands_for_what_it_names() {
    let tree = node(&[
        ("lib.rs", "mod core; pub use core::A;"),
        (
            "core/mod.rs",
            "mod a; mod b; pub(crate) use a::A as Renamed; pub use a::A;",
        ),
        ("core/a.rs", "pub struct A;"),
        ("core/b.rs", "use super::Renamed; fn f(_: crate::A) {}"),
    ]);
    assert_eq!(faults(&tree), Vec::<String>::new());
}

#[test]
fn a_circle_of_folders_is_found_where_the_files_make_none() {
    let tree = node(&[
        ("lib.rs", "mod core; mod punch;"),
        ("core/mod.rs", "mod a; pub mod b;"),
        ("core/a.rs", "use crate::punch::C;"),
        ("core/b.rs", "pub struct B;"),
        ("punch.rs", "pub struct C; mod d;"),
        ("punch/d.rs", "use crate::core::b::B;"),
    ]);
    assert_one(
        &tree,
        &["circle of folders of p2pnode: core, punch", "core/a.rs:1"],
    );
}

#[test]
fn an_arrow_against_the_layers_is_found() {
    let tree = node(&[
        ("lib.rs", "mod core; mod swarm;"),
        ("core.rs", "\n\nfn f() { crate::swarm::go() }"),
        ("swarm.rs", "pub fn go() {}"),
    ]);
    assert_one(
        &tree,
        &["core.rs:3 uses crate::swarm::go", "core is below swarm"],
    );
}

#[test]
fn crates_have_layers_too() {
    let crates = [("p2pnode", "node"), ("p2pnode-protocol", "protocol")];
    let tree = tree(
        &crates,
        &[
            ("node/lib.rs", "mod core;"),
            ("node/core.rs", "pub use p2pnode_protocol::Family;"),
            (
                "protocol/lib.rs",
                "pub struct Family; use p2pnode::core::X;",
            ),
        ],
    );
    assert_one(
        &tree,
        &["protocol/lib.rs:1", "p2pnode-protocol may not use p2pnode"],
    );
}

#[test]
fn a_program_may_use_the_root_of_its_library() {
    let root = |is_lib, file: &str| Root {
        crate_name: "p2pnode".to_owned(),
        is_lib,
        file: file.into(),
    };
    let text = |file: &Path| match file.to_str() {
        Some("lib.rs") => Some("mod command; use command::Code; pub struct Root;".to_owned()),
        Some("main.rs") => {
            Some("use p2pnode::Root; fn main() { p2pnode::command::go() }".to_owned())
        }
        Some("command.rs") => Some("pub struct Code; pub fn go() {}".to_owned()),
        _ => None,
    };
    let roots = [root(true, "lib.rs"), root(false, "main.rs")];
    let tree = Tree::read(&roots, &text).expect("a tree that can be parsed");
    assert_eq!(faults(&tree), Vec::<String>::new());
}

#[test]
fn a_folder_without_a_layer_is_found() {
    let tree = node(&[("lib.rs", "mod attic;"), ("attic.rs", "")]);
    assert_one(&tree, &["attic is in no layer"]);
}

#[test]
fn the_core_reads_no_clock_rolls_no_dice_and_does_no_io() {
    for line in [
        "fn f() { std::time::Instant::now(); }",
        "use std::time::Instant as I; fn f() { assert!(I::now() > x); }",
        "fn f(since: Instant) { since.elapsed(); }",
        "fn f() { fastrand::u8(..); }",
        "use fastrand::Rng; fn f() { Rng::new(); }",
        "fn f() { fastrand::Rng::default(); }",
        "use fastrand::*;",
        "use tokio::sync::mpsc;",
        "use libp2p::{PeerId, Swarm as S};",
        "#[tokio::main] fn f() {}",
    ] {
        let core = node(&[("lib.rs", "mod core;"), ("core.rs", line)]);
        assert!(!faults(&core).is_empty(), "{line}");
        let swarm = node(&[("lib.rs", "mod swarm;"), ("swarm.rs", line)]);
        assert_eq!(faults(&swarm), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn the_core_may_roll_dice_whose_seed_is_an_argument() {
    for line in [
        "struct S { rng: fastrand::Rng } fn f(seed: u64) { fastrand::Rng::with_seed(seed); }",
        "use fastrand::Rng; fn f(seed: u64) -> Rng { Rng::with_seed(seed) }",
    ] {
        let core = node(&[("lib.rs", "mod core;"), ("core.rs", line)]);
        assert_eq!(faults(&core), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn tests_are_exempt() {
    let tree = node(&[
        ("lib.rs", "mod core; mod swarm;"),
        (
            "core.rs",
            "#[cfg(test)] mod tests; #[cfg(test)] mod sim { use crate::swarm::X; } \
             #[cfg(test)] use crate::swarm::X; #[cfg(test)] fn f() { fastrand::bool(); }",
        ),
        ("swarm.rs", "pub struct X;"),
    ]);
    assert_eq!(faults(&tree), Vec::<String>::new());
}
