//! Values that cannot work, each of which the chart or the binaries have to refuse, and to name.

use anyhow::{Context as _, Result};
use p2pnode_tests::k8s::{documents, faults};

use super::bench::Bench;

/// The mutations that nobody refuses, or whose fault is not named.
pub(super) fn uncaught(bench: &Bench) -> Result<Vec<String>> {
    let mutations = documents(include_str!("mutations.yaml"))?;
    let mutations = mutations[0].as_array().context("a list")?;
    let mut uncaught = Vec::new();
    for mutation in mutations {
        let [chart, set, told] =
            [0, 1, 2].map(|index| mutation[index].as_str().unwrap_or_default());
        let refused = match bench.try_helm(chart, &[set])? {
            Ok(manifests) => faults(&manifests, &bench.bins),
            Err(error) => vec![error.to_string()],
        };
        if !refused.iter().any(|refusal| refusal.contains(told)) {
            uncaught.push(format!(
                "{chart} with {set}: {told:?} is not told, but {refused:?}"
            ));
        }
    }
    let caught = mutations.len() - uncaught.len();
    println!(
        "  {caught} of {} are refused, each by name",
        mutations.len()
    );
    Ok(uncaught)
}
