use std::path::Path;

use super::{
    faults,
    graph::show,
    source::{Root, Tree},
};

/// `files` has a file a line: its name below the folder of the sources, and its text, where `⏎` ends a line.
fn tree(roots: &[(&str, bool, &str)], files: &str) -> Tree {
    let root = |&(crate_name, is_lib, file): &(&str, bool, &str)| Root {
        crate_name: crate_name.to_owned(),
        is_lib,
        file: file.into(),
    };
    let text = |file: &Path| {
        let mut lines = files.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(name, _)| Path::new(name.trim()) == file);
        found.map(|(_, text)| text.replace('⏎', "\n"))
    };
    let roots: Vec<_> = roots.iter().map(root).collect();
    Tree::read(&roots, &text).expect("a tree that can be parsed")
}

fn node(files: &str) -> Tree {
    tree(&[("p2pnode", true, "lib.rs")], files)
}

#[track_caller]
fn assert_clean(tree: &Tree) {
    assert_eq!(faults(tree), Vec::<String>::new());
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
    let tree = node(
        "lib.rs: mod core; mod config; mod swarm; pub use swarm::run;
         swarm.rs: use crate::core::{self, State}; pub fn run(s: State) { core::go(); }
         core/mod.rs: mod a; pub use a::A; use crate::config::Config; pub struct State; pub fn go() {}
         core/a.rs: pub struct A; fn wait(now: std::time::Instant) {}
         config.rs: pub(crate) struct Config;",
    );
    assert_clean(&tree);
    let shown = show(&tree);
    let arrows = "  core -> config\n  swarm -> core\n";
    assert!(shown.contains(arrows), "{shown}");
}

#[test]
fn a_circle_of_files_is_found_with_the_lines_that_make_it() {
    let tree = node(
        "lib.rs: mod core;
         core/mod.rs: mod a;⏎mod b;
         core/a.rs: ⏎use super::b::B;⏎pub struct A;
         core/b.rs: pub struct B(super::a::A);",
    );
    let faults = faults(&tree);
    for place in [
        "core/a.rs:2 uses super::b::B",
        "core/b.rs:1 uses super::a::A",
    ] {
        assert!(faults[0].contains(place), "{faults:#?}");
    }
}

#[test]
fn a_parent_and_its_child_are_a_circle_if_each_uses_what_the_other_defines() {
    let tree = node(
        "lib.rs: mod core;
         core/mod.rs: mod a; pub(crate) use a::A; pub struct B(A);
         core/a.rs: use super::B; pub struct A;",
    );
    let words = ["circle of files", "core/mod.rs:1 uses A", "uses super::B"];
    assert_one(&tree, &words);
}

#[test]
fn a_reexport_stands_for_what_it_names() {
    assert_clean(&node(
        "lib.rs: mod core; pub use core::A;
         core/mod.rs: mod a; mod b; pub(crate) use a::A as Renamed; pub use a::A;
         core/a.rs: pub struct A;
         core/b.rs: use super::Renamed; fn f(_: crate::A) {}",
    ));
}

#[test]
fn a_circle_of_folders_is_found_where_the_files_make_none() {
    let tree = node(
        "lib.rs: mod core; mod punch;
         core/mod.rs: mod a; pub mod b;
         core/a.rs: use crate::punch::C;
         core/b.rs: pub struct B;
         punch.rs: pub struct C; mod d;
         punch/d.rs: use crate::core::b::B;",
    );
    let words = ["circle of folders of p2pnode: core, punch", "core/a.rs:1"];
    assert_one(&tree, &words);
}

#[test]
fn an_arrow_against_the_layers_and_a_folder_without_one_are_found() {
    let tree = node(
        "lib.rs: mod core; mod swarm;
         core.rs: ⏎⏎fn f() { crate::swarm::go() }
         swarm.rs: pub fn go() {}",
    );
    let words = ["core.rs:3 uses crate::swarm::go", "core is below swarm"];
    assert_one(&tree, &words);
    let tree = node("lib.rs: mod attic;\nattic.rs: ");
    assert_one(&tree, &["attic is in no layer"]);
}

#[test]
fn crates_have_layers_too() {
    let tree = tree(
        &[
            ("p2pnode", true, "node/lib.rs"),
            ("p2pnode-protocol", true, "protocol/lib.rs"),
        ],
        "node/lib.rs: mod core;
         node/core.rs: pub use p2pnode_protocol::Family;
         protocol/lib.rs: pub struct Family; use p2pnode::core::X;",
    );
    let words = ["protocol/lib.rs:1", "p2pnode-protocol may not use p2pnode"];
    assert_one(&tree, &words);
}

#[test]
fn a_program_may_use_the_root_of_its_library() {
    assert_clean(&tree(
        &[("p2pnode", true, "lib.rs"), ("p2pnode", false, "main.rs")],
        "lib.rs: mod command; use command::Code; pub struct Root;
         main.rs: use p2pnode::Root; fn main() { p2pnode::command::go() }
         command.rs: pub struct Code; pub fn go() {}",
    ));
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
        let core = node(&format!("lib.rs: mod core;\ncore.rs: {line}"));
        assert!(!faults(&core).is_empty(), "{line}");
        assert_clean(&node(&format!("lib.rs: mod swarm;\nswarm.rs: {line}")));
    }
}

#[test]
fn the_core_may_roll_dice_whose_seed_is_an_argument() {
    for line in [
        "struct S { rng: fastrand::Rng } fn f(seed: u64) { fastrand::Rng::with_seed(seed); }",
        "use fastrand::Rng; fn f(seed: u64) -> Rng { Rng::with_seed(seed) }",
    ] {
        let core = node(&format!("lib.rs: mod core;\ncore.rs: {line}"));
        assert_eq!(faults(&core), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn tests_are_exempt() {
    assert_clean(&node(
        "lib.rs: mod core; mod swarm;
         core.rs: #[cfg(test)] mod tests; #[cfg(test)] mod sim { use crate::swarm::X; } #[cfg(test)] use crate::swarm::X; \
                  #[cfg(test)] fn f() { fastrand::bool(); }
         swarm.rs: pub struct X;",
    ));
}
