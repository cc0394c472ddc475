//! Arrows and circles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::source::{Tree, Use};

/// Uses of one file that are named for each arrow of a circle. The first are enough to see what it is for.
const MAX_EXAMPLES: usize = 4;

/// Nodes, each with those to which it has arrows and the uses that make the arrow.
type Graph<'a> = BTreeMap<String, BTreeMap<String, Vec<&'a Use>>>;

/// From, to, because of.
type Arrow<'a> = (String, String, &'a Use);

pub(crate) fn show(tree: &Tree) -> String {
    let mut text = String::new();
    let crates = joined(tree.uses.iter().filter_map(|used| {
        let (from, to) = (&tree.modules[used.from], &tree.modules[used.to]);
        (from.crate_name != to.crate_name)
            .then(|| (from.crate_name.clone(), to.crate_name.clone(), used))
    }));
    show_one(&mut text, "crates", &crates);
    for name in crate_names(tree) {
        let folders = joined(tree.uses.iter().filter_map(|used| {
            let (from, to) = (&tree.modules[used.from], &tree.modules[used.to]);
            let top = |path: &[String]| path.first().map_or("(root)".to_owned(), String::clone);
            let (from_top, to_top) = (top(&from.path), top(&to.path));
            let within = from.crate_name == name && to.crate_name == name && from_top != to_top;
            within.then_some((from_top, to_top, used))
        }));
        show_one(&mut text, name, &folders);
    }
    text
}

fn show_one(text: &mut String, title: &str, graph: &Graph<'_>) {
    let _ = writeln!(text, "{title}");
    for (from, to) in graph {
        let to: Vec<_> = to.keys().map(String::as_str).collect();
        if !to.is_empty() {
            let _ = writeln!(text, "  {from} -> {}", to.join(", "));
        }
    }
}

/// The circles of files, and those of folders that no circle of files makes plain.
pub(crate) fn circles(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    let within = || {
        tree.uses
            .iter()
            .filter(|used| tree.modules[used.from].crate_name == tree.modules[used.to].crate_name)
    };
    let files = joined(within().map(|used| (tree.name(used.from), tree.name(used.to), used)));
    report(tree, "files", &files, &mut faults);
    // The children of each module that has some, each with all below it.
    let mut levels = BTreeMap::<(&str, &[String]), Vec<Arrow<'_>>>::new();
    for used in within() {
        let (from, to) = (&tree.modules[used.from], &tree.modules[used.to]);
        let both = from.path.iter().zip(&to.path);
        let shared = both.take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.path.get(shared), to.path.get(shared)) {
            let level = (from.crate_name.as_str(), &from.path[..shared]);
            let arrows = levels.entry(level).or_default();
            arrows.push((a.clone(), b.clone(), used));
        }
    }
    for ((name, path), arrows) in levels {
        let place = std::iter::once(name).chain(path.iter().map(String::as_str));
        let title = format!("folders of {}", place.collect::<Vec<_>>().join("::"));
        report(tree, &title, &joined(arrows.into_iter()), &mut faults);
    }
    faults
}

fn crate_names(tree: &Tree) -> BTreeSet<&str> {
    let modules = tree.modules.iter();
    modules.map(|module| module.crate_name.as_str()).collect()
}

fn joined<'a>(arrows: impl Iterator<Item = Arrow<'a>>) -> Graph<'a> {
    let mut graph = Graph::new();
    for (from, to, used) in arrows {
        graph.entry(to.clone()).or_default();
        let of_from = graph.entry(from).or_default();
        of_from.entry(to).or_default().push(used);
    }
    graph
}

fn report(tree: &Tree, what: &str, graph: &Graph<'_>, faults: &mut Vec<String>) {
    for circle in tangles(graph) {
        let mut text = format!("circle of {what}: {}", circle.join(", "));
        for from in &circle {
            for (to, uses) in graph[from].iter().filter(|(to, _)| circle.contains(to)) {
                let _ = write!(text, "\n  {from} -> {to} ({})", uses.len());
                for used in uses.iter().take(MAX_EXAMPLES) {
                    let place = tree.place(used.from, used.line);
                    let _ = write!(text, "\n    {place} uses {}", used.path);
                }
            }
        }
        faults.push(text);
    }
}

/// The sets of two and more nodes of which each can be reached from each other.
fn tangles(graph: &Graph<'_>) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|node| (node, reachable(graph, node)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for node in graph.keys() {
        let circle: Vec<_> = reached[node]
            .iter()
            .filter(|other| reached[**other].contains(node))
            .map(|other| (*other).clone())
            .collect();
        if circle.len() > 1 && seen.insert(circle.clone()) {
            found.push(circle);
        }
    }
    found
}

fn reachable<'a>(graph: &'a Graph<'_>, from: &'a String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(node) = left.pop() {
        for next in graph[node].keys() {
            if reached.insert(next) {
                left.push(next);
            }
        }
    }
    reached
}
